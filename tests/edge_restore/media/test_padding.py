"""Padding to a multiple: what is added, and what is not touched."""

from __future__ import annotations

import numpy as np
import pytest

from edge_restore.media.padding import pad_to_multiple, padded_size


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )


@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 9), (9, 8), (13, 21), (6, 6)])
@pytest.mark.parametrize("multiple", [2, 4])
def test_reflects_like_numpy(height: int, width: int, multiple: int) -> None:
    image = picture(height, width)
    below, right = -height % multiple, -width % multiple
    expected = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    padded = pad_to_multiple(image, multiple)
    np.testing.assert_array_equal(padded, expected)
    assert padded.flags.c_contiguous


def test_repeats_the_edge_where_a_side_is_too_small_to_reflect() -> None:
    image = picture(1, 3)
    padded = pad_to_multiple(image, 8)
    assert padded.shape == (8, 8, 3)
    assert (padded == padded[:1]).all()
    np.testing.assert_array_equal(padded[0, 3:], np.repeat(image[0, 2:], 5, axis=0))


def test_repeats_the_edge_where_the_reflection_would_end_one_short() -> None:
    image = picture(4, 4)
    padded = pad_to_multiple(image, 8)  # four more of four, of which three could be reflected
    np.testing.assert_array_equal(padded[4:, :4], np.repeat(image[3:], 4, axis=0))


def test_reflects_as_far_as_the_side_allows() -> None:
    image = picture(5, 5)
    padded = pad_to_multiple(image, 9)  # four more of five: the last reflected line is line 0
    np.testing.assert_array_equal(padded[:5, 5:], image[:, 3::-1])


def test_gives_the_same_array_when_nothing_is_missing() -> None:
    image = picture(8, 12)
    assert pad_to_multiple(image, 4) is image


def test_padded_size() -> None:
    assert padded_size(1, 720, 8) == (8, 720)
    assert padded_size(1081, 1919, 2) == (1082, 1920)
