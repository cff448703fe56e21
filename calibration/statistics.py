"""What a frame shows, in four numbers: brightness, contrast, texture and blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from edge_restore.frames import Pixels

_WINDOW = 11
"""Taps of the mean that blurs again, see `_blur`."""

_BLOCK = 16

Plane = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Statistics:
    """Of one frame's luma (Rec. 601, levels of 255).

    Attributes:
        brightness: its mean.
        contrast: its standard deviation.
        texture: the mean standard deviation within blocks of 16x16 pixels.
        blur: from 0 (sharp) to 1, see `_blur`.
    """

    brightness: float
    contrast: float
    texture: float
    blur: float

    def vector(self) -> tuple[float, ...]:
        """The numbers in their order."""
        return astuple(self)


def luma(pixels: Pixels) -> Plane:
    """Rec. 601 luma in levels of 255, (height, width), of RGB."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def measure(pixels: Pixels) -> Statistics:
    """The statistics of a frame, uint8 (height, width, 3), RGB, at least 16 pixels each way."""
    plane = luma(pixels)
    height, width = (side // _BLOCK * _BLOCK for side in plane.shape)
    blocks = plane[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return Statistics(
        brightness=float(plane.mean()),
        contrast=float(plane.std()),
        texture=float(blocks.std(axis=(1, 3)).mean()) if blocks.size else 0.0,
        blur=max(_blur(plane), _blur(plane.T)),
    )


EQUAL_LEVELS = 3.0
"""Levels of 255 by which the mean color of a place may differ between frames that show the same.

A still camera's frames differ by noise and by what the codec makes of it: at 640x360 by up to 2.5
(H.264, rate factor 30), a photo saved as JPEG of quality 60 by 2.3. A camera that moves by one
pixel makes it 10.
"""

_PLACE = 20
"""Pixels of a place's side. Smaller ones would follow the noise."""


def different(frames: Sequence[Pixels]) -> list[int]:
    """The indices of the frames that show something else than every one before them.

    Args:
        frames: uint8 (height, width, 3), of one size.
    """
    kept: list[int] = []
    shown: list[Plane] = []
    for index, pixels in enumerate(frames):
        places = _places(pixels)
        if not shown or np.abs(np.stack(shown) - places).max(axis=(1, 2, 3)).min() > EQUAL_LEVELS:
            kept.append(index)
            shown.append(places)
    return kept


def _places(pixels: Pixels) -> Plane:
    """The mean color of each place of a frame, (rows, columns, 3)."""
    means: Plane = pixels.astype(np.float32)
    for axis in (0, 1):
        side = pixels.shape[axis]
        edges = np.linspace(0, side, max(1, round(side / _PLACE)) + 1).astype(int)
        shape = [1, 1, 1]
        shape[axis] = -1
        sums = np.add.reduceat(means, edges[:-1], axis)
        means = (sums / np.diff(edges).reshape(shape)).astype(np.float32)
    return means


def _blur(plane: Plane) -> float:
    """How little a picture changes when it is blurred again, down its columns; 0 for a flat one.

    Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric", SPIE 2007: the share of the differences between neighbours that a mean over
    `_WINDOW` pixels leaves. `skimage.measure.blur_effect` takes Sobel's differences and the borders
    too, and so gives a slightly greater number.
    """
    if plane.shape[0] < _WINDOW + 1:
        return 0.0
    sums = np.cumsum(np.pad(plane, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    blurred = (sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW
    inner = plane[_WINDOW // 2 : plane.shape[0] - _WINDOW // 2]
    before = np.abs(np.diff(inner.astype(np.float64), axis=0))
    lost = np.maximum(before - np.abs(np.diff(blurred, axis=0)), 0)
    total = float(before.sum())
    return (total - float(lost.sum())) / total if total else 0.0
