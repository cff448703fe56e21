"""The gate's second half: is the INT8 engine faster than the FP16 one?

Not yet run on a GPU: `python -m calibration check MODEL --fp16 FP16.onnx ...` there does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edge_restore.bench import timing
from edge_restore.engine.gpu import this_gpu
from edge_restore.report import cells

SIZE = (720, 1280)
"""(height, width) of the frame that both engines restore."""

MIN_GAIN = 1.05
"""How many times as fast INT8 must be: for less, what it loses is not worth it."""

NO_GPU = "not measured: no GPU on this machine"
NO_FP16 = "not measured: no FP16 graph was named (--fp16)"


def of_engines(int8: Path, fp16: Path | None) -> tuple[str, bool]:
    """What is known of the engines' speed in words, and whether INT8 is not the faster one.

    Both engines are built, or taken from the cache, and run in turns on one frame; what is timed is
    the network alone.

    Raises:
        BackendError: an engine cannot be built or run.
    """
    gpu = this_gpu()
    if gpu is None:
        return NO_GPU, False
    if fp16 is None:
        return NO_FP16, False
    from edge_restore.backends.tensorrt import TensorRTRestorer

    frame = np.zeros((*SIZE, 3), np.uint8)
    restorers = {
        "INT8": TensorRTRestorer([int8], ungated=True), "FP16": TensorRTRestorer([fp16])
    }  # fmt: skip
    try:
        things = {}
        for name, restorer in restorers.items():
            restorer.open(*SIZE)
            things[name] = restorer.alone(frame)
        return compared(things, f"{SIZE[1]}x{SIZE[0]}, {gpu.name}")
    finally:
        for restorer in reversed(restorers.values()):
            restorer.close()


def compared(things: Mapping[str, Callable[[], object]], where: str) -> tuple[str, bool]:
    """The verdict over two networks that run when called, "INT8" and "FP16".

    INT8 has to be `MIN_GAIN` times as fast even in the least favourable draw of the rounds.
    """
    timings = timing.measure(things)
    ratio, low, _ = timing.ratio_interval(timings["FP16"], timings["INT8"])
    times = ", ".join(f"{n} {cells.milliseconds(t.median_ms)} ms" for n, t in timings.items())
    count = len(timings["INT8"].samples_ms)
    told = f"{times}: {ratio:.2f} times as fast (p50 of {count}, network alone, {where})"
    return told, low < MIN_GAIN
