from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_restore.demo import camera as module
from edge_restore.demo.camera import HandHeldCamera, Shot
from edge_restore.errors import DependencyError
from edge_restore.frames import Pixels
from edge_restore.media.metrics import psnr

pytest.importorskip("cv2")


def photo(height: int = 270, width: int = 480) -> Pixels:
    random = np.random.default_rng(5)
    blocks = random.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(blocks, np.ones((6, 6, 1), np.uint8)))


SMALL = HandHeldCamera(width=160, height=90)


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    return list(SMALL.film(photo(), 4))


def still(**changes: float) -> HandHeldCamera:
    """No noise, and an exposure in which nothing moves."""
    settings = {"full_well": 1e12, "read_noise": 0.0, "exposure": 1e-6, **changes}
    return HandHeldCamera(width=160, height=90, **settings)  # type: ignore[arg-type]


def test_frames_are_what_a_camera_gives(shots: list[Shot]) -> None:
    for shot in shots:
        for pixels in (shot.blurred, shot.sharp):
            assert pixels.shape == (90, 160, 3)
            assert pixels.dtype == np.uint8
    assert [shot.time for shot in shots] == [(i + 0.5) / 30 for i in range(4)]
    assert all(15 < psnr(shot.blurred, shot.sharp) < 45 for shot in shots)


def test_the_same_seed_films_the_same_clip(shots: list[Shot]) -> None:
    again = next(iter(SMALL.film(photo(), 1)))
    assert np.array_equal(again.blurred, shots[0].blurred)
    other = next(iter(HandHeldCamera(width=160, height=90, seed=2).film(photo(), 1)))
    assert not np.array_equal(other.sharp, shots[0].sharp)


def test_without_motion_and_noise_nothing_is_lost() -> None:
    for shot in still().film(photo(), 2):
        assert shot.blur_px < 1e-3
        assert psnr(shot.blurred, shot.sharp) > 60  # what rounding leaves


def test_blur_is_a_mean_of_light_not_of_levels() -> None:
    """Black and white stripes that pass under the pixels mix to sRGB 188, not 128."""
    stripes = np.zeros((270, 480, 3), np.uint8)
    stripes[:, ::2] = 255
    for shot in still().film(stripes, 1):
        assert abs(int(np.median(shot.sharp)) - 188) <= 2


def test_noise_is_shot_and_read_noise() -> None:
    flat = np.full((270, 480, 3), 188, np.uint8)  # half of full brightness
    noisy = next(iter(still(full_well=1000.0, read_noise=10.0).film(flat, 1)))
    light = module._to_linear(noisy.blurred)
    expected = np.sqrt(0.5 * 1000 + 10**2) / 1000
    assert float(light.std()) == pytest.approx(expected, rel=0.05)


def test_typical_blur_of_the_demo() -> None:
    camera = HandHeldCamera()
    lengths = [camera.blur_px((i + 0.5) / camera.rate) for i in range(60)]
    low, high = np.percentile(lengths, [10, 90])
    assert 3.5 < low < 6 and 9 < high < 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tremor_is_within_its_band(seed: int) -> None:
    """Nearly all of the power above 4 Hz lies at 8 to 12 Hz, and it is as strong as said."""
    rate, seconds = 200, 20
    camera = HandHeldCamera(seed=seed)
    angles = np.degrees([camera.angles(i / rate) for i in range(rate * seconds)])
    window = np.hanning(len(angles))[:, None]
    power = np.abs(np.fft.rfft((angles - angles.mean(axis=0)) * window, axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(angles), 1 / rate)
    band = (frequency > 7.7) & (frequency < 12.3)
    assert (power[band].sum(axis=0) > 0.98 * power[frequency > 4].sum(axis=0)).all()
    rms = np.sqrt(2 * power[band].sum(axis=0) / (window**2).sum() / len(angles))
    assert rms == pytest.approx([0.13, 0.13, 0.15], rel=0.25)


def test_homography_is_a_rotation_about_the_camera() -> None:
    """A corner's displacement is the angle's tangent times the focal length, by hand."""
    rotation = module._rotation(0.01, 0.0, 0.0)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.allclose(rotation @ [0, 0, 1], [np.sin(0.01), 0, np.cos(0.01)])
    assert np.allclose(module._rotation(0, 0.01, 0) @ [0, 0, 1], [0, -np.sin(0.01), np.cos(0.01)])
    assert np.allclose(module._rotation(0, 0, np.pi / 2) @ [1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("size", [(270, 480), (300, 400), (540, 960)])
def test_locate_finds_the_point(size: tuple[int, int]) -> None:
    """A lone white spot on black is in the sharp frame where `locate` says."""
    spot = np.zeros((*size, 3), np.uint8)
    y, x = round(0.4 * size[0]), round(0.45 * size[1])
    spot[y - 4 : y + 5, x - 4 : x + 5] = 255
    for shot in HandHeldCamera(width=160, height=90).film(spot, 2):
        point = ((x + 0.5) / size[1], (y + 0.5) / size[0])
        expected = SMALL.locate(point, size, shot.time)
        rows, columns = np.nonzero(shot.sharp[..., 0] > 127)
        assert abs(columns.mean() - expected[0]) < 0.6
        assert abs(rows.mean() - expected[1]) < 0.6


def test_truth_and_blur_have_one_centre_of_gravity() -> None:
    """The light of a spot lies around where the truth shows it, whichever way the hand went."""
    spot = np.zeros((540, 960, 3), np.uint8)
    spot[266:275, 476:485] = 255
    for shot in HandHeldCamera(width=320, height=180, read_noise=0.0, full_well=1e9).film(spot, 4):
        centres = []
        for pixels in (shot.blurred, shot.sharp):
            light = module._to_linear(pixels)[..., 0].astype(np.float64)
            rows, columns = np.indices(light.shape)
            centres.append([(light * at).sum() / light.sum() for at in (rows, columns)])
        assert centres[0] == pytest.approx(centres[1], abs=0.1)


def test_srgb_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(module._to_8_bit(module._to_linear(levels)), levels)
    assert float(module._to_linear(np.array([128], np.uint8))[0]) == pytest.approx(0.2158605, 1e-5)


def test_a_camera_without_opencv_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="opencv-python"):
        next(iter(SMALL.film(photo(), 1)))
