"""Restoring a large picture in overlapping tiles, blended so that no seam is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_restore.errors import OptionError
from edge_restore.frames import Pixels

OVERLAP = 128
"""Pixels that two neighbouring tiles share: somewhat more than SVDN's layers reach, which is about
100 without the learned offsets."""

MARGIN = OVERLAP // 4
"""Pixels at a tile's inner borders that are thrown away.

A tile lacks the picture beyond its border, and its result is the more wrong the nearer to it: what
is wrong most gets no weight at all."""


@dataclass(frozen=True)
class TileGrid:
    """A cover of a picture by tiles of one size, `OVERLAP` pixels or more shared by neighbours.

    Attributes:
        height, width: the picture.
        tile_height, tile_width: every tile.
        tops, lefts: where the rows and columns of tiles begin, from 0, increasing.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of each tile, row by row."""
        for top in self.tops:
            for left in self.lefts:
                yield slice(top, top + self.tile_height), slice(left, left + self.tile_width)


def plan(height: int, width: int, max_area: int, multiple: int) -> TileGrid:
    """The grid with the least to compute whose tiles have at most `max_area` pixels.

    Args:
        height, width: the picture, multiples of `multiple`.
        max_area: pixels of a tile that the memory allows.
        multiple: what the sides of a tile must be multiples of.

    Returns:
        A grid of one tile when the whole picture fits.

    Raises:
        OptionError: the area is too small for tiles of more than twice the overlap.
    """
    best: TileGrid | None = None
    rows = _splits(height, multiple)
    columns = _splits(width, multiple)
    for tile_height, tops in rows:
        for tile_width, lefts in columns:
            if tile_height * tile_width > max_area:
                continue
            grid = TileGrid(height, width, tile_height, tile_width, tops, lefts)
            if best is None or _work(grid) < _work(best):
                best = grid
    if best is None:
        least = min(tile for tile, _ in rows) * min(tile for tile, _ in columns)
        raise OptionError(
            f"the memory budget holds {max_area} pixels of a {width}x{height} frame at once",
            expected=f"at least {least} pixels, the smallest tile that overlaps its neighbours",
            hint="give a larger --memory-budget; where a container limits the memory, raise the "
            "limit",
        )
    return best


def restore(
    pixels: Pixels, grid: TileGrid, restore_tile: Callable[[Pixels], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The picture restored tile by tile.

    Where tiles overlap, the result is their mean weighted by ramps: nothing in the `MARGIN` at each
    tile's border, then rising linearly, so that one tile fades out while the next fades in.

    Args:
        pixels: uint8 (height, width, 3), the size of the grid.
        grid: from `plan`.
        restore_tile: takes uint8 (tile_height, tile_width, 3), C-contiguous, and gives as many
            values, uint8 or float32.

    Returns:
        A new array of the shape of `pixels` and the tiles' dtype; uint8 is rounded.
    """
    if len(grid) == 1:
        return restore_tile(pixels)
    row_weights = _weights(grid.tops, grid.tile_height)
    column_weights = _weights(grid.lefts, grid.tile_width)
    total = np.zeros(pixels.shape, np.float32)
    for index, (rows, columns) in enumerate(grid.slices()):
        tile = restore_tile(np.ascontiguousarray(pixels[rows, columns]))
        down = row_weights[index // len(grid.lefts)]
        across = column_weights[index % len(grid.lefts)]
        total[rows, columns] += tile * (down[:, None] * across)[:, :, None]
    if tile.dtype != np.uint8:
        return total
    return np.rint(total, out=total).clip(0, 255, out=total).astype(np.uint8)


def _splits(length: int, multiple: int) -> list[tuple[int, tuple[int, ...]]]:
    """Every sensible way to cover `length` with tiles: a tile's length and where tiles begin."""
    splits: list[tuple[int, tuple[int, ...]]] = [(length, (0,))]
    for count in range(2, max(2, length // OVERLAP) + 1):
        tile = -(-(length + (count - 1) * OVERLAP) // count)
        tile = -(-tile // multiple) * multiple
        if tile <= 2 * OVERLAP or tile >= splits[-1][0]:
            break
        # Evenly spread, so that the last tile ends with the picture, but never off the multiple:
        # a network that halves its input would see other pairs of pixels than in the whole.
        last = (length - tile) // multiple
        begins = tuple(i * last // (count - 1) * multiple for i in range(count))
        splits.append((tile, begins))
    return splits


def _work(grid: TileGrid) -> tuple[int, int]:
    return len(grid) * grid.tile_height * grid.tile_width, len(grid)


def _weights(begins: tuple[int, ...], tile: int) -> list[npt.NDArray[np.float32]]:
    """Weights along one axis of the tiles that begin at `begins`; over each pixel they sum to 1."""
    length = begins[-1] + tile
    ramps = []
    for begin in begins:
        position = np.arange(tile, dtype=np.float64)
        ramp = np.full(tile, float(OVERLAP - 2 * MARGIN))
        if begin > 0:
            ramp = np.minimum(ramp, position + 0.5 - MARGIN)
        if begin + tile < length:
            ramp = np.minimum(ramp, tile - position - 0.5 - MARGIN)
        ramps.append(np.maximum(ramp, 0))
    total = np.zeros(length)
    for begin, ramp in zip(begins, ramps, strict=True):
        total[begin : begin + tile] += ramp
    return [
        (ramp / total[begin : begin + tile]).astype(np.float32)
        for begin, ramp in zip(begins, ramps, strict=True)
    ]
