"""What the contract tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.contract import bindings


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-ins for TensorRT's libraries are compiled."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: it compiles the stand-ins for TensorRT's libraries")
    return tmp_path_factory.mktemp("stand_ins")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `installed` runs once for each version of the bindings."""
    if "installed" not in metafunc.fixturenames:
        return
    found = bindings.find()
    if not found:
        why = f"TensorRT's bindings are not here; {bindings.VARIABLE} names their folders"
        none = pytest.param(None, marks=pytest.mark.skip(reason=why), id="none")
        metafunc.parametrize("installed", [none])
        return
    metafunc.parametrize("installed", found, ids=[each.version for each in found])
