"""Colour conversion against the formulas of ITU-R BT.601, BT.709 and BT.2020."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from edge_restore.media import colour
from edge_restore.sources import StreamInfo
from tests.edge_restore.clips import picture

INFO = StreamInfo(width=64, height=48, rate=Fraction(30), time_base=Fraction(1, 30))
LUMA_OF_RED_AND_BLUE = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}


def flat_frame(values: tuple[int, int, int]) -> av.VideoFrame:
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def rgb_by_formula(values: tuple[int, int, int], matrix: int, full: bool) -> np.ndarray:
    red, blue = LUMA_OF_RED_AND_BLUE[matrix]
    y, cb, cr = (
        (values[0] - (0 if full else 16)) / (255 if full else 219),
        *((value - 128) / (255 if full else 224) for value in values[1:]),
    )
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return 255 * np.array([r, (y - red * r - blue * b) / (1 - red - blue), b])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA_OF_RED_AND_BLUE))
def test_decoding_and_encoding_follow_the_formula(matrix: int, full: bool) -> None:
    info = replace(INFO, color_space=matrix, color_range=2 if full else 1)
    for values in ((60, 120, 140), (128, 128, 128), (180, 110, 120), (100, 150, 105)):
        pixels = colour.to_rgb(flat_frame(values), info, VideoReformatter())
        np.testing.assert_allclose(pixels[20, 20], rgb_by_formula(values, matrix, full), atol=0.6)
        back = colour.from_rgb(pixels, info, "yuv420p", VideoReformatter())
        found = [np.frombuffer(plane, np.uint8)[0] for plane in back.planes]
        np.testing.assert_allclose(found, values, atol=1)


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(640, 480, colour.SMPTE170M), (720, 576, colour.SMPTE170M), (1280, 720, colour.BT709)],
)
def test_an_unstated_matrix_is_guessed_as_players_do(width: int, height: int, matrix: int) -> None:
    assert colour.matrix(replace(INFO, width=width, height=height)) == matrix


@pytest.fixture
def rough_picture() -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 12, (48, 64, 3))
    return np.clip(picture(3, 48, 64) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("space", "range_"), [(2, 0), (1, 1), (1, 2), (6, 2), (9, 1)])
def test_a_picture_survives_the_way_to_rgb_and_back(
    space: int, range_: int, rough_picture: np.ndarray
) -> None:
    info = replace(INFO, color_space=space, color_range=range_)
    start = colour.from_rgb(rough_picture, info, "yuv420p", VideoReformatter())
    pixels = colour.to_rgb(start, info, VideoReformatter())
    back = colour.from_rgb(pixels, info, "yuv420p", VideoReformatter())
    assert (back.colorspace, back.color_range) == (colour.matrix(info), max(1, range_))
    for first, second in zip(start.planes, back.planes, strict=True):
        values = [np.frombuffer(plane, np.uint8).astype(float) for plane in (first, second)]
        error = values[1] - values[0]
        assert np.mean(error**2) < 1.6, "46 dB"
        assert abs(error.mean()) < 0.3


def test_rgb_sources_are_taken_as_they_are(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(picture(0, 48, 64), "rgb24").reformat(format="gbrp")
    pixels = colour.to_rgb(frame, INFO, VideoReformatter())
    np.testing.assert_array_equal(pixels, picture(0, 48, 64))
