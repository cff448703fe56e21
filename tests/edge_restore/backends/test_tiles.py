"""Tiles: they cover the picture, fit the memory, and leave no seam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_restore.backends import tiles
from edge_restore.errors import OptionError


@pytest.mark.parametrize(
    ("height", "width", "area", "multiple"),
    [
        (720, 1280, 400_000, 2),
        (1080, 1920, 300_000, 8),
        (2160, 3840, 1_000_000, 16),
        (300, 5000, 200_000, 4),
        (4320, 7680, 150_000, 2),
    ],
)
def test_grid_covers_the_picture_within_the_area(
    height: int, width: int, area: int, multiple: int
) -> None:
    grid = tiles.plan(height, width, area, multiple)
    assert len(grid) > 1
    assert grid.tile_height * grid.tile_width <= area
    assert grid.tile_height % multiple == grid.tile_width % multiple == 0
    assert grid.tops[0] == grid.lefts[0] == 0
    assert grid.tops[-1] + grid.tile_height == height
    assert grid.lefts[-1] + grid.tile_width == width
    for begins, tile in ((grid.tops, grid.tile_height), (grid.lefts, grid.tile_width)):
        for first, second in pairwise(begins):
            assert first < second <= first + tile - tiles.OVERLAP
            assert second % multiple == 0


def test_one_tile_when_the_whole_fits() -> None:
    grid = tiles.plan(720, 1280, 720 * 1280, 2)
    assert len(grid) == 1
    assert (grid.tile_height, grid.tile_width) == (720, 1280)


def test_takes_the_grid_with_the_least_to_compute() -> None:
    # Six tiles in one row would share five long seams, six in two rows share shorter ones.
    grid = tiles.plan(1000, 1000, 300_000, 2)
    assert (len(grid.tops), len(grid.lefts)) == (2, 3)
    # A long narrow strip is cut across, never along.
    grid = tiles.plan(2000, 300, 300_000, 2)
    assert (len(grid.tops), len(grid.lefts)) == (3, 1)


def test_an_area_without_room_for_an_overlap_is_refused() -> None:
    with pytest.raises(OptionError, match=r"budget holds 1000 pixels of a 1280x720 frame"):
        tiles.plan(720, 1280, 1000, 2)


def test_what_no_tile_changes_comes_back_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    grid = tiles.plan(700, 900, 150_000, 2)
    assert len(grid) >= 6
    restored = tiles.restore(image, grid, lambda tile: tile)
    np.testing.assert_array_equal(restored, image)
    assert restored.dtype == np.uint8


def test_tiles_that_disagree_meet_in_a_linear_ramp() -> None:
    grid = tiles.plan(256, 640, 256 * 400, 2)
    assert grid.lefts == (0, 256)
    assert grid.tile_width == 384
    levels = iter((0, 128))
    restored = tiles.restore(
        np.zeros((256, 640, 3), np.uint8), grid, lambda tile: np.full_like(tile, next(levels))
    )
    row = restored[100, :, 1].astype(int)
    # They share the columns 256 to 383; the first and last 32 of those are one tile's alone.
    assert (row[:288] == 0).all()
    assert (row[352:] == 128).all()
    np.testing.assert_allclose(row[288:352], 2 * np.arange(64) + 1, atol=0.51)


def test_tiles_are_contiguous_and_of_one_size() -> None:
    grid = tiles.plan(700, 900, 150_000, 2)
    seen = set()

    def look(tile: np.ndarray) -> np.ndarray:
        seen.add((tile.shape, tile.flags.c_contiguous))
        return tile

    tiles.restore(np.zeros((700, 900, 3), np.uint8), grid, look)
    assert seen == {((grid.tile_height, grid.tile_width, 3), True)}
