"""Padding a picture to a network's multiple."""

from __future__ import annotations

import numpy as np

from edge_restore.frames import Pixels


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """`height` and `width` rounded up to multiples of `multiple`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_to_multiple(pixels: Pixels, multiple: int) -> Pixels:
    """Grow a picture at its bottom and right edge until both sides are multiples of `multiple`.

    What is added is the picture reflected about its last row and column, which are not repeated
    (numpy's "reflect"), so that a convolution meets no step. Where a side is too small to be
    reflected that far, its last row or column is repeated instead.

    Args:
        pixels: (height, width, channels), any dtype.
        multiple: 1 or more.

    Returns:
        The same array when nothing is to be added, otherwise a new C-contiguous one. The original
        is its top left corner: crop with ``[:height, :width]``.
    """
    height, width = pixels.shape[:2]
    padded_height, padded_width = padded_size(height, width, multiple)
    if (padded_height, padded_width) == (height, width):
        return pixels
    rows = _reflected(height, padded_height - height)
    columns = _reflected(width, padded_width - width)
    padded = np.empty((padded_height, padded_width, *pixels.shape[2:]), pixels.dtype)
    padded[:height, :width] = pixels
    padded[:height, width:] = pixels[:, columns]
    padded[height:] = padded[rows]
    return padded


def _reflected(side: int, extra: int) -> list[int]:
    """Which of `side` lines stand in for the `extra` ones after the last."""
    if extra < side:
        return [side - 2 - i for i in range(extra)]
    return [side - 1] * extra
