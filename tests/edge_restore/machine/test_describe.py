from __future__ import annotations

import json
import os

from edge_restore import __version__
from edge_restore.machine.describe import library_versions, this_machine


def test_this_machine() -> None:
    machine = this_machine()
    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_mib == 0 or machine.memory_mib > 100
    assert json.loads(json.dumps(machine.to_json())) == machine.to_json()


def test_library_versions() -> None:
    versions = library_versions()
    assert versions["edge-restore"] == __version__
    assert versions["numpy"].count(".") >= 2
