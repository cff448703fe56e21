"""Soft truths: coarse colour and depth of field."""

import cv2
import numpy as np
import pytest

from train.soften import defocused, subsampled

LUMA = np.array([0.299, 0.587, 0.114])


def noise(height=80, width=90, low=0, high=256):
    return np.random.default_rng(0).integers(low, high, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("alter", [subsampled, defocused])
@pytest.mark.parametrize("size", [(80, 90), (81, 91), (1, 1), (2, 5)])
def test_the_draw_decides_and_the_picture_given_stays(alter, size):
    picture = noise(*size)
    before = picture.copy()
    for seed in range(6):
        found = alter(picture, np.random.default_rng(seed))
        assert found.shape == picture.shape and found.dtype == np.uint8
        assert np.array_equal(found, alter(picture, np.random.default_rng(seed)))
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("alter", [subsampled, defocused])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 8), (90, 200, 30), (255, 255, 255)])
def test_a_plain_picture_stays_as_it_is(alter, colour):
    picture = np.full((40, 50, 3), colour, np.uint8)
    assert np.array_equal(alter(picture, np.random.default_rng(1)), picture)


def test_coarse_colour_leaves_luma_and_grey_alone():
    middling = noise(low=100, high=150)  # far from where anything is cut off
    grey = np.repeat(noise()[..., :1], 3, axis=2)
    for seed in range(6):
        found = subsampled(middling, np.random.default_rng(seed))
        assert np.abs(found @ LUMA - middling @ LUMA).max() < 0.6  # rounding
        assert (found.astype(int) - found[..., :1]).std() < 0.6 * (
            middling.astype(int) - middling[..., :1]
        ).std()
        assert np.array_equal(subsampled(grey, np.random.default_rng(seed)), grey)


def test_coarse_colour_is_what_jpeg_makes_of_it():
    """The cell of 2x2 is one of the three, beside libjpeg at its best quality, 4:2:0."""
    smooth = cv2.GaussianBlur(noise(96, 96, 60, 196), (0, 0), 1.5)
    smooth = cv2.normalize(smooth, None, 40, 215, cv2.NORM_MINMAX)
    setting = [
        cv2.IMWRITE_JPEG_QUALITY, 100,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]  # fmt: skip
    data = cv2.imencode(".jpg", smooth[..., ::-1], setting)[1]
    coded = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    differences = {
        float(np.abs(subsampled(smooth, np.random.default_rng(seed)) - coded).mean())
        for seed in range(16)
    }
    assert min(differences) < 1.0 < np.abs(smooth - coded).mean()
    assert len(differences) == 3


def test_a_saturated_edge_gets_a_soft_luma():
    """Dark red beside white: what red bleeds over is cut off at 255."""
    picture = np.full((24, 24, 3), (120, 0, 0), np.uint8)
    picture[:, 11:] = 255
    ramps = [subsampled(picture, np.random.default_rng(seed))[12] @ LUMA for seed in range(8)]
    sharp = picture[12] @ LUMA
    assert max(np.abs(ramp - sharp).max() for ramp in ramps) > 8
    assert all(np.abs((ramp - sharp)[[*range(6), *range(18, 24)]]).max() < 0.6 for ramp in ramps)


def test_one_side_is_out_of_focus():
    picture = noise(120, 120)
    details, kept = [], []
    for seed in range(20):
        found = defocused(picture, np.random.default_rng(seed))
        details.append(found.std() / picture.std())
        kept.append(float((np.abs(found.astype(int) - picture).max(axis=2) <= 1).mean()))
        assert abs(found.mean() - picture.mean()) < 1.5
    assert 0.05 < np.mean(kept) < 0.9 and max(kept) > 0.4
    assert min(details) < 0.75 and max(details) < 1
