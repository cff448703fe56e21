"""The standard library's timing cache: how fast its kernels were on this GPU, kept between builds.

Not yet run on a GPU; ``pytest -m gpu tests/gpu`` checks it. TensorRT-RTX has no use for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_restore.engine.plan import Plan
from edge_restore.errors import SinkError
from edge_restore.storage import trusted_file
from edge_restore.storage.files import atomic_path
from edge_restore.storage.trusted_file import EngineError


def file(plan: Plan, folder: Path) -> Path:
    """The file for this library version and GPU: times of others mean nothing."""
    version = "".join(c if c.isalnum() else "_" for c in plan.flavour.version)
    return folder / f"{plan.flavour.name}-{version}-{plan.targets[0]}.timing"


def attach(config: Any, plan: Plan, folder: Path | None) -> Path | None:
    """Give `config` what was measured before; where to keep it, or None for nowhere."""
    if folder is None or not plan.flavour.has_timing_cache:
        return None
    path = file(plan, folder)
    try:
        known = trusted_file.read(path, "the timing cache", "remove it")
    except EngineError:  # then everything is measured anew
        known = b""
    timings = config.create_timing_cache(known)
    config.set_timing_cache(timings, False)
    return path


def keep(config: Any, path: Path | None) -> None:
    """Write what was measured; without it the next build only takes longer."""
    timings = config.get_timing_cache() if path is not None else None
    if path is None or timings is None:
        return
    try:
        with atomic_path(path, mode=trusted_file.MODE) as temporary:
            temporary.write_bytes(bytes(timings.serialize()))
    except SinkError:
        return
