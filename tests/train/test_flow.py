"""DIS flow between three frames of a known motion."""

import cv2
import numpy as np
import pytest

from edge_restore.errors import DataError
from train.flow import bidirectional_flow


def frames(dy, dx, size=64):
    """The same scene, which moves by (dy, dx) from each frame to the next."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (size + 40, size + 40, 3), dtype=np.uint8)
    scene = cv2.GaussianBlur(scene, (0, 0), 2)
    at = [(20 - n * dy, 20 - n * dx) for n in (-1, 0, 1)]
    return [scene[y : y + size, x : x + size].copy() for y, x in at]


@pytest.mark.parametrize(("dy", "dx"), [(0, 3), (2, 0), (-2, 4), (0, 0)])
def test_known_motion_is_found_both_ways(dy, dx):
    flow = bidirectional_flow(*frames(dy, dx))
    assert flow.shape == (2, 2, 64, 64)
    assert flow.dtype == np.float32
    inside = flow[:, :, 12:-12, 12:-12].mean(axis=(2, 3))
    np.testing.assert_allclose(inside, [[-dy, -dx], [dy, dx]], atol=0.2)


def test_frames_that_cannot_be_compared_are_named():
    small = [np.zeros((8, 9, 3), np.uint8)] * 3
    with pytest.raises(DataError, match="frames of 9x8, 9x8, 9x8"):
        bidirectional_flow(*small)
    one, two = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40, 3), np.uint8)
    with pytest.raises(DataError, match="frames of 32x32, 32x32, 40x32"):
        bidirectional_flow(one, one, two)
