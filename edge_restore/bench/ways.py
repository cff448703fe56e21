"""The three ways in which the time of a frame can be meant, each measured on its own.

- "network": the network alone, on a frame that lies where it computes.
- "host to host": a frame in the host's memory in, a restored one in the host's memory out, 8 bits
  both, with all copies and conversions.
- "camera to sink": through the pipeline, from a source that stamps each frame as a camera does to a
  sink that takes it. One frame is under way at a time: the next is taken when the last arrived. So
  this is latency, free of any queue; what a camera, a display and their drivers add is not in it.

Beside them the two ways to a smaller figure that `claims.AS_SOME_DO` names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_restore.backends.restorer import Restorer, restore_one
from edge_restore.bench import timing
from edge_restore.bench.claims import AS_SOME_DO, WAYS
from edge_restore.bench.timing import Timing
from edge_restore.frames import Frame, Pixels
from edge_restore.media.stream_info import StreamInfo
from edge_restore.pipeline import run as pipeline

_TICK = Fraction(1, 1000)
_CROP = 256
"""Side of the picture that many time instead of a frame."""

_UNTIMED = 2
"""Frames at the start of a stream that do not count: threads and buffers settle."""


class PictureSource:
    """One picture again and again, the next one when the last has arrived.

    Args:
        pixels: the picture.
        frames: how many.
        arrived: released once for each frame that the sink took.
    """

    def __init__(self, pixels: Pixels, frames: int, arrived: threading.Semaphore) -> None:
        height, width = pixels.shape[:2]
        self.info = StreamInfo(width=width, height=height, rate=None, time_base=_TICK)
        self.warnings: list[str] = []
        self.remarks: list[str] = []
        self._pixels, self._frames, self._arrived = pixels, frames, arrived

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._frames):
            self._arrived.acquire()
            frame = Frame(self._pixels, index=index, pts=index, time_base=_TICK)
            frame.clock.begin("decode")
            frame.clock.end("decode")
            yield frame

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> PictureSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class NullSink:
    """Takes frames and forgets them.

    Args:
        arrived: released for each frame.
    """

    def __init__(self, arrived: threading.Semaphore) -> None:
        self.warnings: list[str] = []
        self._arrived = arrived

    def write(self, frame: Frame) -> None:
        """Stamp the frame and let the next one come."""
        frame.clock.begin("encode")
        frame.clock.end("encode")
        self._arrived.release()

    def finish(self) -> Path | None:
        """Nothing was written."""
        return None

    def abort(self) -> None:
        """Nothing was written."""


class _Watched:
    """A restorer that tells the source when it has ended, so that the source waits no longer."""

    def __init__(self, inner: Restorer, arrived: threading.Semaphore) -> None:
        self.name, self.card, self.in_flight = inner.name, inner.card, inner.in_flight
        self.precision = inner.precision
        self.open, self.submit = inner.open, inner.submit
        self.collect, self.flush = inner.collect, inner.flush
        self._inner, self._arrived = inner, arrived

    def close(self) -> None:
        self._inner.close()
        self._arrived.release()


def host_to_host(restorer: Restorer, pixels: Pixels) -> Callable[[], object]:
    """What restores one frame and waits for it; the restorer is open for its size."""
    return lambda: restore_one(restorer, pixels)


def camera_to_sink(restorer: Restorer, pixels: Pixels, frames: int) -> list[float]:
    """Each frame's time through the pipeline, in milliseconds; opens and closes the restorer."""
    arrived = threading.Semaphore(1)
    source = PictureSource(pixels, frames + _UNTIMED, arrived)
    result = pipeline.run(source, _Watched(restorer, arrived), NullSink(arrived))
    return result.stages["total"][_UNTIMED:]


def measure(
    restorer: Restorer, pixels: Pixels, *, rounds: int = timing.ROUNDS,
    samples: int = timing.FEWEST, max_seconds: float = 60.0,
) -> dict[str, Timing]:  # fmt: skip
    """Time a restorer in every way that it offers.

    The network and host to host in turns, then as many runs of the pipeline as there are rounds.

    Args:
        restorer: of any backend; opened for the picture here, and closed.
        pixels: the picture.
        rounds: see `timing.measure`.
        samples: of each way over all rounds.
        max_seconds: for each way, see `timing.measure`.

    Returns:
        A timing for each way; the network's own only from backends that offer it (`alone`), and
        one that is not waited for from those whose calls return early (`asking`).
    """
    limits: dict[str, Any] = {"rounds": rounds, "samples": samples}
    height, width = pixels.shape[:2]
    restorer.open(height, width)
    try:
        things: dict[str, Callable[[], object]] = {"host to host": host_to_host(restorer, pixels)}
        after: dict[str, Callable[[], object]] = {}
        if (alone := getattr(restorer, "alone", None)) is not None:
            things = {"network": alone(pixels), **things}
        if (asking := getattr(restorer, "asking", None)) and (halves := asking(pixels)):
            things["not waited for"], after["not waited for"] = halves
        timings = timing.measure(things, max_seconds=max_seconds, after=after, **limits)
    finally:
        restorer.close()
    known = timings["host to host"].median_ms / 1000
    each = max(1, min(-(-samples // rounds), int(max_seconds / rounds / known)))
    streams = [tuple(camera_to_sink(restorer, pixels, each)) for _ in range(rounds)]
    timings["camera to sink"] = Timing(tuple(streams), _UNTIMED, True)
    if alone is not None and min(height, width) > _CROP:
        timings["256x256"] = _of_a_crop(restorer, pixels, max_seconds / 4, limits)
    return {way: timings[way] for way in (*WAYS, *AS_SOME_DO) if way in timings}


def _of_a_crop(
    restorer: Restorer, pixels: Pixels, max_seconds: float, limits: dict[str, Any]
) -> Timing:
    """The network alone on the picture's middle."""
    top, left = ((side - _CROP) // 2 for side in pixels.shape[:2])
    crop = np.ascontiguousarray(pixels[top : top + _CROP, left : left + _CROP])
    restorer.open(_CROP, _CROP)
    try:
        thing = {"": restorer.alone(crop)}  # type: ignore[attr-defined]
        return timing.measure(thing, max_seconds=max_seconds, **limits)[""]
    finally:
        restorer.close()
