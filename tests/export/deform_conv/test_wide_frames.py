"""FP16 precision across wide frames: the kernel's must not fall off to the right.

An absolute position rounded to half is exact below 1024 to one pixel only from there on. NVIDIA's
ModulatedDeformConv2d plugin rounds so in FP16; `plugin_samples` is an emulation of that one step,
with everything else exact, written from reading its source. It is not the plugin.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from export.deform_conv.blocks import Blocks
from export.deform_conv.launch import deform_conv2d

CHANNELS, ROWS = 8, 4
LOWEST, FLAT = 60, 1  # dB


def frame(width):
    """Image (C, H, W) in [0, 1] with detail of a few pixels, and offsets (2, H, W); float16."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: ROWS + 12, :width]
    waves = random.uniform(0.2, 0.9, (CHANNELS, 6, 2))
    phases = random.uniform(0, 2 * np.pi, (CHANNELS, 6, 1, 1))
    image = np.sin(waves[..., 0, None, None] * x + waves[..., 1, None, None] * y + phases).mean(1)
    offset = random.uniform(-6, 6, (2, *y.shape))
    return (0.5 + 0.5 * image).astype(np.float16), offset.astype(np.float16)


def samples(image, y, x):
    """Bilinear samples at float64 positions (H, W), zero outside: (C, H, W)."""
    high, wide = image.shape[1:]
    image = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    y, x = (np.clip(p, -1, side) for p, side in ((y, high), (x, wide)))
    top, left = (np.minimum(np.floor(p), side - 1) for p, side in ((y, high), (x, wide)))
    down, right = y - top, x - left
    row, column = top.astype(int) + 1, left.astype(int) + 1
    above = image[:, row, column] * (1 - right) + image[:, row, column + 1] * right
    below = image[:, row + 1, column] * (1 - right) + image[:, row + 1, column + 1] * right
    return above * (1 - down) + below * down


def kernel_samples(image, offset):
    """By the kernel: one tap, the identity as weight. The interpreter runs the full width."""
    out = deform_conv2d(
        torch.from_numpy(image)[None], torch.from_numpy(offset)[None], None,
        torch.eye(CHANNELS).half().view(CHANNELS, CHANNELS, 1, 1),
        blocks=Blocks(16, 256, 16, 1, 16, 4),
    )  # fmt: skip
    return out[0].numpy()


def plugin_samples(image, offset):
    """EMULATED in-tree plugin: the position is rounded to half, all that follows is exact."""
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    y, x = (p.astype(np.float16) + o for p, o in zip((y, x), offset, strict=True))
    return samples(image, y.astype(np.float64), x.astype(np.float64))


def psnr_by_fifth(found, exact):
    """dB against a peak of 1, for each fifth of the columns from left to right."""
    squares = (found.astype(np.float64) - exact) ** 2
    fifths = np.array_split(squares, 5, axis=2)
    return np.array([-10 * np.log10(fifth.mean()) for fifth in fifths])


@pytest.fixture(scope="module", params=[1280, 3840])
def wide(request):
    image, offset = frame(request.param)
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    return image, offset, samples(image, y + offset[0].astype(float), x + offset[1].astype(float))


def test_the_kernel_is_flat_and_above_60_db(wide):
    image, offset, exact = wide
    quality = psnr_by_fifth(kernel_samples(image, offset), exact)
    assert quality.min() >= LOWEST, quality
    assert np.ptp(quality) <= FLAT, quality


def test_positions_rounded_to_half_would_fail_the_same_test(wide):
    image, offset, exact = wide
    quality = psnr_by_fifth(plugin_samples(image, offset), exact)
    assert quality.min() < 45, quality
    assert np.ptp(quality) > 5 * FLAT, quality
    assert (np.diff(quality) < 0.5).all(), "worse and worse to the right"
