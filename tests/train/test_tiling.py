"""Tiles in perspective, as a pinhole camera shows them, and stripes; soft where they are fine."""

import math

import numpy as np
import pytest

from train.tiling import View, plane, softened, striped, stripes, tiled

CHECKERED = np.kron([[0, 1], [1, 0]], np.ones((24, 24)))[..., None].repeat(3, 2) * 200.0
STRIPED = np.kron([[0, 1]], np.ones((48, 24)))[..., None].repeat(3, 2) * 200.0
BANDED = STRIPED.transpose(1, 0, 2)
STRAIGHT = {"horizon": -1.0, "focal": 400.0, "height": 2.0, "centre": 0.0, "angle": 0.0}


def edges(line):
    """How often a line of pixels passes the middle grey."""
    return int(np.abs(np.diff(line.astype(float) > 100)).sum())


def test_tiles_are_as_wide_as_their_row_says():
    _, seen = plane(STRIPED, 200, 600, View(**STRAIGHT))
    for row in (50, 100, 199):  # two edges per tile, of (row + 1) / height pixels
        assert edges(seen[row, :, 0]) == pytest.approx(2 * 600 * 2.0 / (row + 1), abs=2)


def test_tiles_are_as_far_as_their_row_says():
    _, seen = plane(BANDED, 200, 4, View(**STRAIGHT))
    passed = 400 * 2.0 * (1 / 61 - 1 / 200)  # tiles from row 60 to the last
    assert edges(seen[60:, 0, 0]) == pytest.approx(2 * passed, abs=1)


@pytest.mark.parametrize("horizon", [-20.0, 30.0, 30.5])
def test_the_plane_begins_below_the_horizon(horizon):
    first, seen = plane(STRIPED, 100, 50, View(**STRAIGHT | {"horizon": horizon}))
    assert first - 1 >= horizon or first == 0
    assert seen.shape == (100 - first, 50, 3)


@pytest.mark.parametrize("angle", [0.0, np.pi / 4])
@pytest.mark.parametrize("tile", [STRIPED, CHECKERED])
def test_a_pixel_is_the_mean_of_what_it_sees(tile, angle):
    """Against 64 x 64 points in every pixel, looked up one by one."""
    view = STRAIGHT | {"horizon": -4.0, "height": 1.0, "centre": 20.0, "angle": angle}
    _, seen = plane(tile.astype(np.float32), 60, 40, View(**view))
    fine = (np.arange(64 * 60) + 0.5) / 64 - 0.5, (np.arange(64 * 40) + 0.5) / 64 - 0.5
    y, x = fine[0][:, None] + 4.0, fine[1][None] - 20.0
    across, along = x / y, 400.0 / y
    c, s = np.cos(angle), np.sin(angle)
    u, v = c * across + s * along, c * along - s * across
    points = tile[(v % 1 * 48).astype(int), (u % 1 * 48).astype(int), 0]
    truth = points.reshape(60, 64, 40, 64).mean((1, 3))
    assert np.abs(seen[..., 0] - truth).mean() < 8
    assert abs(float(seen.mean()) - truth.mean()) < 2


def test_far_tiles_across_become_soft_stripes():
    """A column crosses no tile there; a row rises and falls slowly, without an edge."""
    view = {"horizon": -2.0, "focal": 30000.0, "height": 1.0, "centre": 0.0, "angle": np.pi / 4}
    _, seen = plane(CHECKERED.astype(np.float32), 62, 400, View(**view))
    row = seen[-1, :, 0].astype(float)
    assert np.ptp(row) > 180
    assert np.abs(np.diff(row)).max() < 12
    assert np.abs(np.diff(seen[-10:, 5, 0].astype(float))).max() < 10


@pytest.mark.parametrize("lay", [tiled, striped])
def test_a_part_of_the_picture_stays_and_the_draw_decides(lay):
    picture = np.random.default_rng(0).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    before = picture.copy()
    covered = []
    for seed in range(20):
        found = lay(picture, np.random.default_rng(seed))
        assert found.shape == picture.shape and found.dtype == np.uint8
        assert np.array_equal(found, lay(picture, np.random.default_rng(seed)))
        same = (found == picture).all(2)
        covered.append(float(np.mean(~same)))
        if lay is tiled:
            rows = same.all(1)
            assert not rows[int(rows.sum()) :].any()  # one line parts the two
    assert np.array_equal(picture, before)
    assert min(covered) < 0.7 and max(covered) > 0.95


@pytest.mark.parametrize("lay", [tiled, striped])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_plain_picture_is_covered_with_what_can_be_seen(lay, grey):
    """Fields of two of its colours, were they as alike as these, would be no pattern at all."""
    picture = np.full((96, 96, 3), grey, np.uint8)
    random = np.random.default_rng(1)
    contrasts = [float(np.ptp(lay(picture, random).astype(int))) for _ in range(40)]
    assert np.median(contrasts) > 20
    assert max(contrasts) <= 255


def test_a_small_picture_has_a_small_tile():
    assert tiled(np.full((20, 24, 3), 9, np.uint8), np.random.default_rng(3)).shape == (20, 24, 3)


@pytest.mark.parametrize("period", [0.8, 3.7, 29.0])
def test_stripes_are_the_mean_of_what_a_pixel_sees(period):
    """Against 512 points in every pixel, looked up one by one."""
    profile = np.random.default_rng(0).uniform(0, 255, (48, 3)).astype(np.float32)
    phase = np.arange(-60, 60)[None] / period
    seen = stripes(profile, phase, np.full((1, 120), 1 / period))
    points = ((np.arange(120 * 512) + 0.5) / 512 - 60.5) / period
    truth = profile[(points % 1 * 48).astype(int)].reshape(120, 512, 3).mean(1)
    assert np.abs(seen[0] - truth).max() < 1.5


def test_a_softened_profile_is_its_circular_gaussian_blur():
    """A step becomes the normal distribution's integral; the mean and what lies beyond stay."""
    profile = np.repeat([[0.0], [1.0]], 48, axis=0)
    soft = softened(profile, 0.05)[:, 0]
    fields = (np.arange(96) + 0.5) / 96
    steps = [math.erf((fields[i] - 0.5) / 0.05 / math.sqrt(2)) / 2 + 0.5 for i in range(24, 72)]
    np.testing.assert_allclose(soft[24:72], steps, atol=5e-3)
    assert soft.mean() == pytest.approx(0.5)
    assert soft[0] == pytest.approx(soft[47], abs=1e-6)  # the other step, where the period ends


def test_a_share_of_the_stripes_is_soft():
    """Hard ones jump from level to level, which the mean over many pictures shows."""
    picture = np.random.default_rng(0).integers(120, 136, (96, 96, 3)).astype(np.uint8)

    def steepness(waves):
        seen = [striped(picture, np.random.default_rng(s), waves).astype(int) for s in range(60)]
        return np.mean([np.abs(np.diff(each, axis=1)).max() / np.ptp(each) for each in seen])

    hard, some, soft = steepness(0.0), steepness(0.5), steepness(1.0)
    assert soft < 0.9 * hard
    assert soft + 0.2 * (hard - soft) < some < hard - 0.2 * (hard - soft)
