"""Picking calibration frames from footage: few that differ as much as the footage does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.calibration_set import FEWEST, MIN_CONTRAST, CalibrationSet, digest
from calibration.statistics import Statistics, different, luma, measure
from edge_restore.errors import DataError, SourceError
from edge_restore.frames import Pixels
from edge_restore.media.images import images_in, read_image

CANDIDATES = 256
"""Of a longer source every second, fourth, ... frame is looked at, so that there are no more."""

SIZE = (360, 640)
"""(height, width) of the middle that is cut out of larger frames. Ranges hardly depend on it."""


SAME = "shows the same as another frame"


@dataclass
class Collected:
    """What became of a source.

    Attributes:
        chosen: the set.
        looked_at: different candidates whose statistics were compared.
        left_out: why a frame was none, by its name.
        warnings: what is wrong with the source as a whole; frames before that are used.
    """

    chosen: CalibrationSet
    looked_at: int
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def collect(source: str, count: int, size: tuple[int, int] | None = None) -> Collected:
    """Pick `count` frames from a folder of images or a source of video.

    The first is the one nearest to the median of brightness, contrast, texture and blur; each
    further one is the candidate that is farthest from all chosen so far, each statistic counted in
    its own standard deviations. So the rare frames (night, a wall, a fast turn) come early.

    Args:
        source: a folder, or what `edge_restore.sources.open_source` takes.
        count: frames of the set, `FEWEST` or more; all that differ where there are fewer.
        size: (height, width) of the middle that is cut out; None for `SIZE`, or less where the
            first frame is smaller.

    Raises:
        DataError, SourceError: nothing can be read there, or too little can be used.
    """
    folder = Path(source)
    left_out: dict[str, str] = {}
    warnings: list[str] = []
    stream = _images(folder) if folder.is_dir() else _frames(source, warnings)
    candidates = _thinned(_usable(stream, size, left_out))
    kept = different([pixels for _, pixels, _ in candidates])
    for index in sorted(set(range(len(candidates))) - set(kept)):
        left_out[candidates[index][0]] = SAME
    if len(kept) < FEWEST:
        raise _too_few(source, len(kept), left_out, warnings)
    chosen = farthest([candidates[i][2] for i in kept], count)
    frames = [candidates[kept[i]][:2] for i in chosen]
    return Collected(CalibrationSet.of(frames), len(kept), left_out, warnings)


def _too_few(source: str, count: int, left_out: dict[str, str], warnings: list[str]) -> DataError:
    same = sum(why == SAME for why in left_out.values())
    found = f"'{source}' has {count + same} frame(s) that can be used"
    if same:
        found += f", but only {count} different one(s): the others show the same"
    listed = [f"{name}: {why}" for name, why in left_out.items() if why != SAME or same < 8]
    return DataError(
        found + "".join(f"\n    {line}" for line in [*warnings, *listed][:8]),
        expected=f"{FEWEST} or more different ones with something to see, of the size asked for",
        hint="name more footage, in which the camera or the scene moves, or a smaller --size",
    )


def farthest(candidates: list[Statistics], count: int) -> list[int]:
    """Indices of `count` candidates, or all: the median one, then always the farthest."""
    points = np.array([statistics.vector() for statistics in candidates])
    points = (points - np.median(points, axis=0)) / np.maximum(points.std(axis=0), 1e-6)
    chosen = [int(np.argmin(np.square(points).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(axis=1))
        distance[chosen] = -1
        chosen.append(int(np.argmax(distance)))
    return chosen


def _images(folder: Path) -> Iterator[tuple[str, Pixels | str]]:
    """The images of a folder by name; in place of one that cannot be read, why."""
    for name, file in sorted(images_in(folder).items()):
        try:
            yield name, read_image(file)
        except DataError as error:
            yield name, error.found


def _frames(source: str, warnings: list[str]) -> Iterator[tuple[str, Pixels | str]]:
    """The frames of a video; where it breaks off, the reason becomes a warning."""
    from edge_restore.sources import open_source

    with open_source(source) as stream:
        try:
            for frame in stream:
                yield f"{Path(source).name}#{frame.index}", frame.pixels
        except SourceError as error:
            warnings.append(error.found)
        warnings += stream.warnings


def _usable(
    stream: Iterable[tuple[str, Pixels | str]],
    size: tuple[int, int] | None,
    left_out: dict[str, str],
) -> Iterator[tuple[str, Pixels]]:
    """Frames cut to one size, each once; why the others are left out is noted."""
    seen: set[str] = set()
    for name, pixels in stream:
        if isinstance(pixels, str):
            left_out[name] = pixels
            continue
        height, width = pixels.shape[:2]
        if size is None:
            size = min(SIZE[0], height), min(SIZE[1], width)
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        if min(top, left) < 0:
            left_out[name] = f"{height}x{width} is smaller than {size[0]}x{size[1]}"
            continue
        middle = pixels[top : top + size[0], left : left + size[1]]
        if (contrast := float(luma(middle).std())) < MIN_CONTRAST:
            left_out[name] = f"shows nothing: its levels vary by {contrast:.1f}"
            continue
        middle = np.ascontiguousarray(middle)
        if (found := digest(middle)) in seen:
            left_out[name] = SAME
            continue
        seen.add(found)
        yield name, middle


def _thinned(frames: Iterable[tuple[str, Pixels]]) -> list[tuple[str, Pixels, Statistics]]:
    """At most `CANDIDATES` frames, evenly spread, with their statistics."""
    kept: list[tuple[int, str, Pixels]] = []
    stride = 1
    for number, (name, pixels) in enumerate(frames):
        if number % stride:
            continue
        kept.append((number, name, pixels))
        if len(kept) > CANDIDATES:
            stride *= 2
            kept = [frame for frame in kept if frame[0] % stride == 0]
    return [(name, pixels, measure(pixels)) for _, name, pixels in kept]
