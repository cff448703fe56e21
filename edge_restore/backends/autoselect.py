"""Which of the CPU's backends is the fastest here: measured once, and remembered.

Each that is installed restores one frame of the demo's photo a few times, in turns. Those whose
picture is not within `MIN_PSNR` of ONNX Runtime's in FP32 are out. The answer is kept in a file
of the user's cache, under everything that it depends on: the model, the machine, the versions, and
the number of threads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_restore import backends
from edge_restore.backends.cpu import CpuRestorer
from edge_restore.backends.restorer import restore_one
from edge_restore.engine.cache import default_folder
from edge_restore.errors import DependencyError, UserError
from edge_restore.frames import Pixels
from edge_restore.machine import describe as machine
from edge_restore.media import photo
from edge_restore.media.metrics import finite_psnr
from edge_restore.models.cards import model_card
from edge_restore.storage.files import make_folder, write_text
from edge_restore.storage.json_file import encode, read_json
from edge_restore.storage.plain_file import Kind

MIN_PSNR = 50.0
"""Of a backend's picture against ONNX Runtime's in FP32, in dB: the error is 0.8 of an 8-bit level
(root mean square), far below what any of the networks leaves of the blur."""

SIZE = (180, 320)
"""(height, width) of the frame; which backend is faster hardly depends on it."""

_TURNS = 3
_KIND = Kind("the backend chosen", "what was measured before", "it is measured again")


@dataclass(frozen=True)
class Candidate:
    """One backend's measurement: the least of a few times in ms, and its `finite_psnr`."""

    backend: str
    milliseconds: float
    psnr: float


def fastest(models: Sequence[Path], *, threads: int | None = None) -> str:
    """The name of the backend to use for the first of `models`, measured unless it is known.

    Without a second backend installed nothing is measured.
    """
    names = [name for name in backends.CPU_NAMES if _can_run(name)]
    if len(names) < 2:
        return names[0] if names else "onnxruntime"
    file = _file(models, threads, names)
    known = _read(file, names)
    if known is None:
        try:
            frame = photo.scaled(*SIZE)
        except DependencyError:
            return names[0]
        print("edge-restore: measuring which backend is fastest here, once", file=sys.stderr)
        measured = measure(models, names, frame, threads=threads)
        known = pick(measured)
        _write(file, known, measured)
    return known


def measure(
    models: Sequence[Path], names: Sequence[str], frame: Pixels, *, threads: int | None = None
) -> list[Candidate]:
    """Time the backends in turns on a frame of `SIZE`; one that cannot run a model is left out."""
    restorers: dict[str, CpuRestorer] = {}
    for name in names:
        try:
            restorers[name] = backends.on_the_cpu(name, models, threads=threads)
            restorers[name].open(*SIZE)
        except UserError:
            restorers.pop(name, None)
    pictures = {name: restore_one(restorer, frame) for name, restorer in restorers.items()}
    times = dict.fromkeys(restorers, float("inf"))
    for _ in range(_TURNS):
        for name, restorer in restorers.items():
            started = time.perf_counter()
            restore_one(restorer, frame)
            times[name] = min(times[name], time.perf_counter() - started)
    reference = pictures.get("onnxruntime", next(iter(pictures.values()), frame))
    return [
        Candidate(name, 1000 * times[name], finite_psnr(pictures[name], reference))
        for name in restorers
    ]


def pick(measured: Sequence[Candidate]) -> str:
    """The fastest that is exact enough; ONNX Runtime where none could be measured."""
    exact = [one for one in measured if one.psnr >= MIN_PSNR]
    return min(exact, key=lambda one: one.milliseconds).backend if exact else "onnxruntime"


def _can_run(name: str) -> bool:
    try:
        return backends.status(name).available
    except DependencyError:
        return False


def _file(models: Sequence[Path], threads: int | None, names: Sequence[str]) -> Path:
    here = machine.this_machine()
    versions = machine.library_versions()
    depends: dict[str, Any] = {
        "model": [model_card(model).onnx.sha256 for model in models[:1]],
        "cpu": [here.cpu, here.cores],
        "versions": [versions.get(n) for n in ("edge-restore", "onnxruntime", "openvino")],
        "threads": threads,
        "names": list(names),
    }
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    return default_folder().with_name("backends") / f"{key}.json"


def _read(file: Path, names: Sequence[str]) -> str | None:
    try:
        chosen = read_json(file, _KIND, 1 << 16)["chosen"]
    except (UserError, LookupError, TypeError):
        return None
    return chosen if chosen in names else None


def _write(file: Path, chosen: str, measured: Sequence[Candidate]) -> None:
    """Remember it; where that cannot be done, it is measured again the next time."""
    document = {"chosen": chosen, "measured": [asdict(one) for one in measured]}
    try:
        make_folder(file.parent)
        write_text(file, encode(document, indent=1) + "\n")
    except UserError:
        return
