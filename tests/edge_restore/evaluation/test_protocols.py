"""The protocols on cases made by hand, where they must differ."""

from __future__ import annotations

import numpy as np
import pytest

from edge_restore.errors import OptionError
from edge_restore.evaluation import protocols
from edge_restore.media.metrics import psnr, ssim

cv2 = pytest.importorskip("cv2")


def scene(height: int = 72, width: int = 88, seed: int = 0) -> np.ndarray:
    """Smooth texture, so that alignment has something to hold on to; levels 40 to 200."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (40 + 160 * smooth).round().astype(np.uint8)


def test_rounding_is_what_sets_mimo_unet_apart() -> None:
    sharp = scene()
    restored = (sharp + 0.4) / np.float32(255)  # 0.4 levels too bright everywhere
    assert protocols.mimo_unet(restored, [sharp]).psnr == pytest.approx(
        20 * np.log10(255 / 0.4), abs=1e-3
    )
    rounded = np.rint(restored * 255).astype(np.uint8)
    assert protocols.mprnet(rounded, [sharp]).psnr == float("inf")
    # of 8-bit pictures both say the same
    other = np.clip(sharp.astype(int) + 3, 0, 255).astype(np.uint8)
    eight, unit = protocols.mprnet(other, [sharp]), protocols.mimo_unet(other, [sharp])
    assert unit.psnr == pytest.approx(eight.psnr, abs=1e-4)
    assert unit.ssim == pytest.approx(eight.ssim, abs=1e-6)


def test_realblur_forgives_brightness_and_a_homography() -> None:
    large = scene(96, 112)
    sharp = large[10:82, 10:98]
    place = np.array([[1, 0.012, 1.3], [-0.01, 1, -0.8], [0, 0, 1]])  # and a turn
    seen = cv2.warpPerspective(large, place, (112, 96), flags=cv2.INTER_CUBIC)[10:82, 10:98]
    darker = (seen * 0.8).round().astype(np.uint8)
    plain, aligned = protocols.mprnet(darker, [sharp]), protocols.realblur(darker, [sharp])
    assert plain.psnr < 22
    assert aligned.psnr > 38 and aligned.ssim > 0.97
    assert aligned.remark == ""


def test_realblur_counts_the_valid_region_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sharp = scene()
    identity, _ = protocols._warped(sharp, np.eye(3, dtype=np.float32))
    assert np.array_equal(identity, sharp)
    move = np.array([[1, 0, 12], [0, 1, 0], [0, 0, 1]], np.float32)
    moved, mask = protocols._warped(sharp, move)
    assert mask[:, :-12].all() and not mask[:, -12:].any()
    assert np.array_equal(moved[:, :-12], sharp[:, 12:])
    # three levels off where the two overlap; counting the zeros beside it would gain 0.6 dB
    picture = np.roll(sharp, 12, axis=1) + 3
    with monkeypatch.context() as patch:
        patch.setattr(protocols, "_homography", lambda x, z: (move, True))
        patch.setattr(protocols, "_brightness", lambda x, z: 1.0)
        score = protocols.realblur(picture, [sharp])
    assert score.psnr == pytest.approx(20 * np.log10(255 / 3), abs=1e-3)
    # SSIM likewise: of the windows centred in the overlap, those that reach beyond it included
    x, z = sharp / np.float32(255), np.roll(picture, -12, axis=1) / np.float32(255)
    x[:, -12:], z[:, -12:] = 0, 0
    assert score.ssim == pytest.approx(ssim(z, x, 1.0, mask), abs=1e-6)
    assert score.ssim != pytest.approx(ssim(z, x, 1.0), abs=1e-6)
    # found by ECC: the picture lies 5 columns to the right of the truth, and is perfect beside them
    large = scene(72, 93)
    score = protocols.realblur(large[:, :88], [large[:, 5:]])
    assert score.psnr > 40  # 42.7: bicubic resampling at places that ECC found to 0.1 pixels


def test_realblur_says_when_nothing_can_be_aligned() -> None:
    flat = np.full((40, 40, 3), 90, np.uint8)
    score = protocols.realblur(flat, [scene(40, 40)])
    assert score.remark.startswith("not aligned")
    assert np.isfinite(score.psnr)
    assert np.isfinite(protocols.realblur(flat * 0, [scene(40, 40)]).psnr)


def test_koehler_takes_the_best_frame_after_its_best_shift() -> None:
    large, other = scene(90, 110, 1), scene(seed=2)
    restored = large[9:81, 11:99]
    moved = large[6:78, 15:103]  # what restored shows at (r, c), this shows at (r + 3, c - 4)
    noisy = np.clip(moved + np.random.default_rng(0).normal(0, 4, moved.shape), 0, 255)
    frames = [other, noisy.round().astype(np.uint8), moved]
    score = protocols.koehler(restored, frames)
    assert score.remark == "frame 3 of 3, moved by (-4, 3)"
    assert protocols.translation(moved, restored) == (3, -4)
    luminance = np.array([0.299, 0.587, 0.114])
    x, z = moved.astype(float), restored.astype(float)
    z *= (x * z).sum() / (z * z).sum()
    z = protocols.shifted(z, (3, -4)) @ luminance
    x = x @ luminance
    x[:3], x[:, -4:] = 0, 0
    assert score.psnr == pytest.approx(psnr(z, x), abs=1e-9)
    assert score.ssim == pytest.approx(ssim(z, x), abs=1e-9)
    assert score.psnr > protocols.koehler(restored, frames[:2]).psnr + 5
    assert protocols.mprnet(restored, [moved]).psnr < 25
    # whole pixels only: half a pixel and a turn are for RealBlur
    halfway = (large[9:81, 11:99].astype(int) + large[9:81, 12:100] + 1) // 2
    assert protocols.koehler(halfway.astype(np.uint8), [restored]).psnr < score.psnr


def test_koehler_takes_the_best_of_either_measure() -> None:
    """Noise costs SSIM, a slow gradient PSNR: the best frame is another for each."""
    restored = scene().astype(float)
    noise = np.random.default_rng(0).normal(0, 3, restored.shape)
    gradient = np.linspace(-12, 12, restored.shape[1])[None, :, None]
    noisy, tilted = (
        np.clip(restored + change, 0, 255).round().astype(np.uint8) for change in (noise, gradient)
    )
    alone = [protocols.koehler(scene(), [frame]) for frame in (noisy, tilted)]
    assert alone[0].psnr > alone[1].psnr + 1 and alone[0].ssim < alone[1].ssim
    both = protocols.koehler(scene(), [noisy, tilted])
    assert (both.psnr, both.ssim) == (alone[0].psnr, alone[1].ssim)


def test_shifts_go_both_ways() -> None:
    image = np.arange(24.0).reshape(4, 6, 1)
    assert np.array_equal(protocols.shifted(image, (1, 2))[1:, 2:], image[:-1, :-2])
    assert protocols.shifted(image, (1, 2)).sum() == image[:-1, :-2].sum()
    assert np.array_equal(protocols.shifted(image, (-1, -2))[:-1, :-2], image[1:, 2:])
    assert np.array_equal(protocols.shifted(image, (0, 0)), image)
    sharp = scene()
    for shift in ((0, 0), (7, -9), (-12, 3)):
        rolled = np.roll(sharp, (-shift[0], -shift[1]), (0, 1))
        assert protocols.translation(sharp, rolled) == shift


def test_names() -> None:
    assert list(protocols.PROTOCOLS) == ["mprnet", "mimo-unet", "realblur", "koehler"]
    assert protocols.find("MPRNet").name == "mprnet"
    with pytest.raises(OptionError, match="no evaluation protocol 'psnr'") as caught:
        protocols.find("psnr")
    assert "koehler" in str(caught.value)
    for protocol in protocols.PROTOCOLS.values():
        text = protocol.measure.__doc__ or ""
        assert "Source: " in text and len(text) > 300
