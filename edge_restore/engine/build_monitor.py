"""How far a build has come, and stopping it by a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from edge_restore.machine.process import Stop
from edge_restore.progress import Progress


@contextmanager
def make_monitor(trt: Any, config: Any, stop: Stop, stream: TextIO) -> Iterator[Any]:
    """Give `config` a monitor while the block runs, where the library has monitors.

    A builder calls back into Python from C++, where an exception cannot pass: the monitor tells it
    to stop where a signal came. It shows the steps of the outermost phase when `stream` is a
    terminal, and is silent elsewhere.
    """
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        yield None
        return
    shown = Progress(None, "building", "step", stream) if stream.isatty() else None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost = ""
            self.finished = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.outermost = phase_name
                if shown is not None:
                    shown.total = shown.done + num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.finished += 1
            if phase_name == self.outermost and shown is not None:
                shown.advance(note=phase_name)
            return not stop.event.is_set()

        def phase_finish(self, phase_name: str) -> None:
            pass

    monitor = Monitor()
    config.progress_monitor = monitor
    try:
        if shown is None:
            yield monitor
        else:
            with shown:
                yield monitor
    finally:
        config.progress_monitor = None
