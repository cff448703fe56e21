"""PSNR and SSIM, the one implementation; numpy only, so that the trainer can use it too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
"""(height, width) or (height, width, channels), any real dtype."""

Mask = npt.NDArray[np.bool_]
"""(height, width): which pixels count."""

GREATEST_PSNR = 100.0
"""What `finite_psnr` gives in place of infinity, in dB."""

_Plane = npt.NDArray[np.float64]

_RADIUS = 5
_SIGMA = 1.5
SSIM_WINDOW = 2 * _RADIUS + 1
"""Side of the SSIM window in pixels; images must be at least this large both ways."""


def psnr(a: Image, b: Image, data_range: float = 255.0, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf for equal images.

    ``10 log10(data_range^2 / mean((a - b)^2))``, computed in float64; with a `mask` the mean is
    over its pixels alone.

    Raises:
        ValueError: the shapes differ, or there are no pixels.
    """
    _check(a, b, mask)
    if mask is not None:
        a, b = a[mask], b[mask]
    error = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def finite_psnr(a: Image, b: Image) -> float:
    """`psnr` of 8-bit pictures, `GREATEST_PSNR` for equal ones: for means, and JSON."""
    return min(psnr(a, b), GREATEST_PSNR)


def ssim(a: Image, b: Image, data_range: float = 255.0, mask: Mask | None = None) -> float:
    """Structural similarity, in [-1, 1]; 1 for equal images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 2004, eq. 13: Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03,
    population (co)variance, float64. It is averaged over the pixels whose window lies inside
    the image, with a `mask` over those of them that it holds, then over channels. scikit-image
    computes the same with ``gaussian_weights=True, use_sample_covariance=False, sigma=1.5``.

    Raises:
        ValueError: the shapes differ, a side is shorter than `SSIM_WINDOW`, or the mask holds no
            pixel whose window lies inside.
    """
    _check(a, b, mask)
    if min(a.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, not "
            f"{a.shape[1]}x{a.shape[0]}"
        )
    a = a[..., np.newaxis] if a.ndim == 2 else a
    b = b[..., np.newaxis] if b.ndim == 2 else b
    inner = None if mask is None else mask[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    if inner is not None and not inner.any():
        raise ValueError("no window of SSIM is centred inside the mask")
    # One channel at a time: five float64 planes of a 4K frame are 330 MB already.
    means = []
    for channel in range(a.shape[2]):
        similarity = _ssim_plane(a[..., channel], b[..., channel], data_range)
        means.append(np.mean(similarity if inner is None else similarity[inner]))
    return float(np.mean(means))


def _check(a: Image, b: Image, mask: Mask | None) -> None:
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {a.shape} and {b.shape}")
    if mask is not None and mask.shape != a.shape[:2]:
        raise ValueError(f"a mask of shape {mask.shape} for images of shape {a.shape}")
    if a.size == 0 or (mask is not None and not mask.any()):
        raise ValueError("images without pixels")


def _ssim_plane(a: Image, b: Image, data_range: float) -> _Plane:
    """SSIM at every pixel whose window lies inside."""
    x, y = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    xx, yy, xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    # Only the sum of the two variances is needed: one filtering instead of two.
    variances = _window_mean(x * x + y * y) - xx - yy
    covariance = _window_mean(x * y) - xy
    numerator = (2 * xy + c1) * (2 * covariance + c2)
    similarity: _Plane = numerator / ((xx + yy + c1) * (variances + c2))
    return similarity


def _window_mean(plane: _Plane) -> _Plane:
    """Gaussian-weighted mean at each pixel whose window lies inside: 10 pixels less each way."""
    taps = np.exp(-0.5 * np.square(np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA))
    taps /= taps.sum()
    for _ in range(2):  # down the columns, then (transposed) along the rows
        length = plane.shape[0] - 2 * _RADIUS
        total = taps[_RADIUS] * plane[_RADIUS : _RADIUS + length]
        for i in range(_RADIUS):  # the window is symmetric: add the two ends, multiply once
            j = 2 * _RADIUS - i
            total += taps[i] * (plane[i : i + length] + plane[j : j + length])
        plane = np.ascontiguousarray(total.T)
    return plane
