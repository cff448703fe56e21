"""Frame: the one thing that travels from a source to a sink."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB, uint8, shape (height, width, 3), C-contiguous."""


@dataclass(slots=True)
class StageClock:
    """When a frame entered and left each stage, in `time.perf_counter_ns` ticks.

    A stamp is taken where the thing happens (the decoder stamps decoding), never by an observer.
    """

    started: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)

    def begin(self, stage: str) -> None:
        """Stamp the entry into `stage`."""
        self.started[stage] = time.perf_counter_ns()

    def end(self, stage: str) -> None:
        """Stamp the exit from `stage`."""
        self.finished[stage] = time.perf_counter_ns()

    def milliseconds(self, stage: str) -> float:
        """Time spent in `stage`, in ms; KeyError when the frame did not pass it."""
        return (self.finished[stage] - self.started[stage]) / 1e6


@dataclass(slots=True)
class Frame:
    """One picture of a stream.

    Attributes:
        pixels: RGB uint8, (height, width, 3). Owned by the frame: a stage that changes it
            replaces the array, it does not write into it.
        index: sequence number given by the source, from 0, without gaps.
        pts: presentation time in ticks of `time_base`.
        time_base: seconds per tick.
        clock: the stages' stamps.
    """

    pixels: Pixels
    index: int
    pts: int
    time_base: Fraction
    clock: StageClock = field(default_factory=StageClock)

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])
