from __future__ import annotations

import math

import numpy as np
import pytest

from edge_restore.media.metrics import psnr, ssim


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    a = random.integers(0, 256, shape).astype(np.uint8)
    b = np.clip(a + random.normal(0, 12, shape), 0, 255).astype(np.uint8)
    return a, b


def test_psnr_by_hand() -> None:
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0] = (255, 0, 0)
    # one of twelve values is wrong by the whole range
    assert psnr(a, b) == pytest.approx(10 * math.log10(12))
    assert psnr(a / 255, b / 255, data_range=1.0) == pytest.approx(10 * math.log10(12))


def test_uint8_differences_do_not_wrap_around() -> None:
    a, b = np.full((4, 4, 3), 1, np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(20 * math.log10(255 / 254))


def test_equal_images() -> None:
    a, _ = pair((16, 16, 3))
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_two_flat_images_by_hand() -> None:
    a, b = np.full((12, 12), 100.0), np.full((12, 12), 140.0)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert ssim(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(11, 11, 3), (37, 52, 3), (64, 11, 3), (40, 41)])
def test_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    a, b = pair(shape)
    settings = {
        "gaussian_weights": True,
        "use_sample_covariance": False,
        "sigma": 1.5,
        "channel_axis": 2 if len(shape) == 3 else None,
    }
    expected = skimage.structural_similarity(a, b, data_range=255, **settings)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)
    assert psnr(a, b) == pytest.approx(skimage.peak_signal_noise_ratio(a, b), abs=1e-9)
    # in [0, 1] it is the same number
    assert ssim(a / 255, b / 255, data_range=1.0) == pytest.approx(expected, abs=1e-6)


def test_a_mask_leaves_the_rest_out() -> None:
    a, b = pair((40, 41, 3))
    mask = np.zeros((40, 41), bool)
    mask[:, :20] = True
    assert psnr(a, b, mask=mask) == pytest.approx(psnr(a[:, :20], b[:, :20]), abs=1e-12)
    assert psnr(a, b, mask=np.ones_like(mask)) == pytest.approx(psnr(a, b), abs=1e-12)
    assert ssim(a, b, mask=np.ones_like(mask)) == pytest.approx(ssim(a, b), abs=1e-12)
    # windows centred in columns 5 to 19 see columns 0 to 24
    assert ssim(a, b, mask=mask) == pytest.approx(ssim(a[:, :25], b[:, :25]), abs=1e-12)
    with pytest.raises(ValueError, match="mask of shape"):
        psnr(a, b, mask=mask.T)
    with pytest.raises(ValueError, match="without pixels"):
        psnr(a, b, mask=np.zeros_like(mask))
    mask[:, 5:] = False
    with pytest.raises(ValueError, match="inside the mask"):
        ssim(a, b, mask=mask)


def test_what_cannot_be_compared() -> None:
    a, _ = pair((16, 16, 3))
    with pytest.raises(ValueError, match="different shapes"):
        psnr(a, a[:8])
    with pytest.raises(ValueError, match="without pixels"):
        psnr(a[:0], a[:0])
    with pytest.raises(ValueError, match="11x11"):
        ssim(a[:10], a[:10])
