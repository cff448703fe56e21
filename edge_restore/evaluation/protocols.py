"""Evaluation protocols: what exactly is compared when a paper prints a PSNR.

Published tables are made by different scripts, and the scripts differ by more than the networks
do: what was rounded, what was aligned, which pixels counted. Each protocol here computes what one
published script computes, from its description below; none of their code is used.

A protocol measures the restored picture and the blurred input alike, so that the gain is the
restoration's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_restore.errors import OptionError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media.metrics import SSIM_WINDOW, Image, Mask, psnr, ssim

_Real = npt.NDArray[np.float64]

ECC_ITERATIONS = 100
ECC_FILTER = 5
"""Side of the Gaussian that smooths both images for the alignment, in pixels."""

_INNER = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * 2


@dataclass(frozen=True)
class Quality:
    """How near a picture is to the truth: PSNR in dB, SSIM, and what there is to say of it."""

    psnr: float
    ssim: float
    remark: str = ""


@dataclass(frozen=True)
class EvaluationProtocol:
    """A way to measure.

    Attributes:
        name: what `--protocol` takes.
        summary: one line for the help and the table.
        measure: the picture, uint8 or float32 in [0, 1], and its sharp frames, uint8 -> quality.
        unrounded: whether the restored picture is measured before it is rounded to 8 bits.
        trajectory: whether a blurred picture may have several sharp frames; else exactly one.
        aligns: whether the picture is moved before it is compared.
    """

    name: str
    summary: str
    measure: Callable[[Image, Sequence[Pixels]], Quality]
    unrounded: bool = False
    trajectory: bool = False
    aligns: bool = False


def mprnet(picture: Image, sharp: Sequence[Pixels]) -> Quality:
    """8-bit RGB, as MPRNet (Zamir et al., CVPR 2021) is scored on GoPro and HIDE.

    The restored picture is clipped and rounded to 8 bits, as if saved as PNG. PSNR is over all
    pixels and channels with a peak of 255; SSIM is `metrics.ssim` on the three channels, averaged.

    Source: MPRNet's Deblurring/evaluate_GOPRO_HIDE.m, which reads saved 8-bit pictures and calls
    MATLAB's psnr and ssim on the RGB arrays. MATLAB's ssim filters such an array as a volume,
    across the channels too and over mirrored borders; ours filters each channel by itself inside
    the picture, as most Python evaluations do. PSNR is the same number, SSIM is another.
    """
    return Quality(psnr(picture, sharp[0]), ssim(picture, sharp[0]))


def mimo_unet(picture: Image, sharp: Sequence[Pixels]) -> Quality:
    """Clamped float, not rounded, as MIMO-UNet (Cho et al., ICCV 2021) is scored.

    The network's output is clamped to [0, 1] and compared with the sharp picture's 8 bits divided
    by 255; the peak is 1. Rounding would add an error of up to half a level per value, which shows
    at high PSNR only.

    Source: MIMO-UNet's eval.py, which computes PSNR only; SSIM here is `metrics.ssim` of the same
    two arrays with a data range of 1.
    """
    x, z = _unit(sharp[0]), _unit(picture)
    return Quality(psnr(z, x, 1.0), ssim(z, x, 1.0))


def realblur(picture: Image, sharp: Sequence[Pixels]) -> Quality:
    """ECC-aligned and masked, as the RealBlur benchmark (Rim et al., ECCV 2020) scores.

    With x the sharp and z the 8-bit picture, both divided by 255:

    1. Brightness: z is multiplied by sum(x z) / sum(z z).
    2. Alignment: the homography that maximises the enhanced correlation coefficient (Evangelidis
       and Psarakis, PAMI 2008; cv2.findTransformECC) between the two in grey, at most 100
       iterations, a 5x5 Gaussian before, starting at the identity. z is resampled by it, bicubic.
    3. Mask: the pixels of x that z covers, by nearest neighbour. PSNR (peak 1) is over them alone.
       SSIM (data range 1) is of the two pictures with 0 outside of the mask, averaged over the
       windows that are centred in it.

    Source: the benchmark's evaluation script for RealBlur-J and -R. It stops with OpenCV's error
    where no alignment is found; here the picture is then measured where it is, with a remark. It
    scores the blurred input without alignment; here the input is aligned like the rest.
    """
    x, z = _unit(sharp[0]), _unit(picture)
    z = np.float32(_brightness(x, z)) * z
    warp, found = _homography(x, z)
    moved, mask = _warped(z, warp)
    if not mask[_INNER].any():
        moved, mask, found = z, np.ones(z.shape[:2], np.bool_), False
    x, z = x * mask[..., np.newaxis], moved * mask[..., np.newaxis]
    remark = "" if found else "not aligned: ECC did not converge"
    return Quality(psnr(z, x, 1.0, mask), ssim(z, x, 1.0, mask), remark)


def koehler(picture: Image, sharp: Sequence[Pixels]) -> Quality:
    """Best over the trajectory's frames, with a translation search, as Koehler et al. score.

    Koehler, Hirsch, Mohler, Schoelkopf, Harmeling, "Recording and Playback of Camera Shake", ECCV
    2012. The truth is a set of sharp frames, one for each place that the camera passed. For each
    frame x and the 8-bit picture z:

    1. Brightness: z is multiplied by sum(x z) / sum(z z) over all channels.
    2. Translation: the whole-pixel shift at which the circular cross-correlation of the two, each
       the mean of its channels, is greatest. z is moved by it; what moves in from outside is 0, and
       x is 0 there too.
    3. Both become luminance, 0.299 R + 0.587 G + 0.114 B; PSNR has a peak of 255 and counts the
       zeros like other pixels.

    PSNR is the greatest over the frames, and so is SSIM, each by itself.

    Source: the benchmark's eval_image.m and the programs that come with it. It prints multi-scale
    SSIM beside PSNR; SSIM here is `metrics.ssim` at the one scale, on the same luminance: its
    numbers are not those of papers.
    """
    scores = [_koehler_frame(picture, frame) for frame in sharp]
    best = max(range(len(scores)), key=lambda i: scores[i][0])
    row, column = scores[best][2]
    remark = f"frame {best + 1} of {len(sharp)}, moved by ({column}, {row})"
    return Quality(scores[best][0], max(score[1] for score in scores), remark)


def _koehler_frame(picture: Image, sharp: Pixels) -> tuple[float, float, tuple[int, int]]:
    x, z = sharp.astype(np.float64), picture.astype(np.float64)
    z *= _brightness(x, z)
    shift = translation(x, z)
    z = shifted(z, shift)
    x *= shifted(np.ones(x.shape), shift)
    luminance = np.array([0.299, 0.587, 0.114])
    x, z = x @ luminance, z @ luminance
    return psnr(z, x), ssim(z, x), shift


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol("mprnet", "8-bit RGB", mprnet),
        EvaluationProtocol("mimo-unet", "clamped float, not rounded", mimo_unet, unrounded=True),
        EvaluationProtocol("realblur", "ECC-aligned, masked", realblur, aligns=True),
        EvaluationProtocol(
            "koehler", "best over the trajectory's frames, with a translation search", koehler,
            trajectory=True, aligns=True,
        ),
    )
}  # fmt: skip


def find(name: str) -> EvaluationProtocol:
    """The protocol called `name`, in any case.

    Raises:
        OptionError: there is none.
    """
    protocol = PROTOCOLS.get(name.lower())
    if protocol is None:
        raise OptionError(
            f"there is no evaluation protocol '{name}'",
            expected="one of: "
            + ", ".join(f"{each.name} ({each.summary})" for each in PROTOCOLS.values()),
            hint="choose one of these names",
        )
    return protocol


def translation(x: Image, z: Image) -> tuple[int, int]:
    """By how many whole pixels (rows, columns) to move `z` so that it lies best on `x`.

    At the greatest value of the circular cross-correlation of the two, each the mean of its
    channels; shifts of more than half a side count as negative ones.

    Args:
        x: (height, width, channels); `z`: of the same shape.
    """
    spectra = [np.fft.rfft2(image.mean(axis=2, dtype=np.float64)) for image in (x, z)]
    correlation = np.fft.irfft2(spectra[0] * spectra[1].conj(), s=x.shape[:2])
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    row, column = (
        int(at) - side if at >= side // 2 else int(at)
        for at, side in zip(peak, correlation.shape, strict=True)
    )
    return row, column


def shifted(image: _Real, shift: tuple[int, int]) -> _Real:
    """The image (height, width, channels) moved by (rows, columns), with 0 where nothing is."""
    moved = np.zeros_like(image)
    (to_rows, from_rows), (to_columns, from_columns) = (
        (slice(max(by, 0), side + min(by, 0)), slice(max(-by, 0), side + min(-by, 0)))
        for by, side in zip(shift, image.shape[:2], strict=True)
    )
    moved[to_rows, to_columns] = image[from_rows, from_columns]
    return moved


def _unit(picture: Image) -> npt.NDArray[np.float32]:
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return picture.astype(np.float32, copy=False)


def _brightness(x: Image, z: Image) -> float:
    """The factor that brings z nearest to x; 1 for a black z."""
    energy = float(np.sum(np.square(z, dtype=np.float64)))
    return float(np.sum(np.multiply(x, z, dtype=np.float64))) / energy if energy else 1.0


def _homography(x: Image, z: Image) -> tuple[npt.NDArray[np.float32], bool]:
    """Where in z each pixel of x lies, (3, 3), and whether that was found: else the identity."""
    cv2 = _cv2()
    identity = np.eye(3, dtype=np.float32)
    # An epsilon of 0: all iterations are run, unless the correlation stops growing.
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_ITERATIONS, 0)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (x, z)]
    try:
        _, warp = cv2.findTransformECC(
            *grey, identity.copy(), cv2.MOTION_HOMOGRAPHY, criteria, None, ECC_FILTER
        )
    except cv2.error:  # it did not converge, or there is nothing to align: a flat picture
        return identity, False
    return (warp, True) if np.isfinite(warp).all() else (identity, False)


def _warped(z: npt.NDArray[Any], warp: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], Mask]:
    """z resampled at the places that `warp` gives, and where those lie inside of z."""
    cv2 = _cv2()
    size = z.shape[1], z.shape[0]
    inverse = cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(
        z, warp, size, flags=cv2.INTER_CUBIC | inverse, borderMode=cv2.BORDER_REFLECT
    )
    covered = cv2.warpPerspective(
        np.ones(z.shape[:2], np.float32), warp, size, flags=cv2.INTER_NEAREST | inverse,
        borderMode=cv2.BORDER_CONSTANT, borderValue=0,
    )  # fmt: skip
    return moved, covered > 0.5


def _cv2() -> ModuleType:
    return optional.require("cv2", needed_for="aligning images")
