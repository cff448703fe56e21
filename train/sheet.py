"""A picture of what the simulator does, for docs/simulator.md and for looking at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_restore.errors import DataError
from edge_restore.frames import Pixels
from edge_restore.media.images import jpeg_bytes, read_image
from edge_restore.storage.files import atomic_path, check_writable
from train.blur import MARGIN, SEVERITIES, BlurModel, expose
from train.colour import to_linear, to_srgb
from train.simulator.compression import H264_CRF, CompressionModel, compressed, h264
from train.simulator.degradation import Degradation
from train.simulator.noise import NoiseModel, noisy
from train.simulator.rain import RainModel, rain
from train.simulator.trajectories import TRAJECTORIES

TILE = 176
"""Side of one tile of the sheet, in pixels."""


def _pixels(image: Tensor) -> Pixels:
    """(1, 3, H, W) in [0, 1] -> RGB uint8 (H, W, 3)."""
    return np.asarray((image[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _labelled(tile: Pixels, text: str) -> Pixels:
    import cv2

    tile = tile.copy()
    tile[-17:] = 0
    cv2.putText(
        tile, text, (5, TILE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA
    )
    return tile


def _detailed(pixels: Pixels, side: int) -> Pixels:
    """The square of `side` pixels with the most detail, on a grid of 16 pixels."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    detail = cv2.blur(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), (side, side))
    half = side // 2
    middles = detail[half : pixels.shape[0] - half + 1 : 16, half : pixels.shape[1] - half + 1 : 16]
    row, column = np.unravel_index(int(np.argmax(middles)), middles.shape)
    top, left = int(row) * 16, int(column) * 16
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _lamps(sharp: Tensor) -> Tensor:
    """The picture at dusk with a few lamps in it: small white discs."""
    dusk = to_srgb(to_linear(sharp) * 0.1)
    side = sharp.shape[-1]
    y = torch.arange(side).view(-1, 1)
    x = torch.arange(side).view(1, -1)
    for top, left in ((0.3, 0.35), (0.45, 0.65), (0.65, 0.45)):
        disc = (y - top * side).square() + (x - left * side).square() < 3
        dusk = torch.where(disc, torch.ones_like(dusk), dusk)
    return dusk


def _rows(sharp: Tensor, seed: int) -> dict[str, Callable[[str], Pixels]]:
    """What each row of the sheet shows, by label: severity -> tile.

    `sharp` has a margin of `MARGIN` pixels. Every tile is made with the same seed.
    """

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    inner = sharp[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    quiet = {"layers": 0.0, "read_noise": 0.0, "shot_noise": 0.0}

    def moved(severity: str, trajectory: str) -> Pixels:
        model = replace(BlurModel.of(severity, trajectory), **quiet)  # type: ignore[arg-type]
        tile = _pixels(expose(sharp, model, generator(), margin=MARGIN).blurred)
        # In the corner, what becomes of a point of light in the middle of the picture.
        point = torch.zeros_like(sharp)
        middle = sharp.shape[-1] // 2
        point[..., middle, middle] = 1.0
        spread = expose(point, model, generator(), margin=MARGIN).blurred
        reach, middle = MARGIN + 2, middle - MARGIN
        spread = spread[..., middle - reach : middle + reach, middle - reach : middle + reach]
        tile[: 2 * reach, -2 * reach :] = _pixels(spread / spread.max())
        return tile

    def layered(severity: str) -> Pixels:
        model = replace(BlurModel.of(severity), layers=1.0)
        return _pixels(expose(sharp, model, generator(), margin=MARGIN).blurred)

    def lamps(severity: str) -> Pixels:
        model = replace(BlurModel.of(severity), highlights=60.0, **quiet)  # type: ignore[arg-type]
        return _pixels(expose(_lamps(sharp), model, generator(), margin=MARGIN).blurred)

    def poisson(severity: str) -> Pixels:
        photons = {"light": 1000.0, "medium": 200.0, "heavy": 50.0}[severity]
        model = NoiseModel(gaussian=0.0, photons_least=photons, photons=photons)
        return _pixels(noisy(inner, model, generator()))

    rows: dict[str, Callable[[str], Pixels]] = {}
    for trajectory in TRAJECTORIES:
        if trajectory != "mixed":
            rows[f"blur, {trajectory}"] = lambda s, t=trajectory: moved(s, t)  # type: ignore[misc]
    rows["a layer in front"] = layered
    rows["highlights"] = lamps
    rows["JPEG"] = lambda s: _pixels(compressed(inner, CompressionModel.of(s), generator()))
    rows["H.264"] = lambda s: next(h264([_pixels(inner)], H264_CRF[s]))
    rows["Gaussian noise"] = lambda s: _pixels(noisy(inner, NoiseModel.of(s), generator()))
    rows["Poisson noise"] = poisson
    rows["rain"] = lambda s: _pixels(to_srgb(rain(to_linear(inner), RainModel.of(s), generator())))
    rows["blur and JPEG"] = lambda s: _pixels(
        Degradation.of("deblur", s, jpeg=True).apply(sharp, generator()).blurred
    )
    return rows


def make(picture: Path, out: Path, *, seed: int = 0, columns: int = 2) -> None:
    """Draw the simulator's degradations of a detail of a picture at each severity, as JPEG.

    The sheet has `columns` groups of three tiles, light, medium and heavy.

    Args:
        picture: an image of 2 * (TILE + 2 * MARGIN) pixels or more; it is halved first.
        out: the JPEG to write.
        seed: of every tile.
        columns: groups beside each other.

    Raises:
        DataError: no image, or a small one. DependencyError: no OpenCV, or no PyAV with x264.
    """
    import cv2

    pixels = read_image(picture)
    check_writable(out)
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    pixels = np.asarray(half, np.uint8)
    side = TILE + 2 * MARGIN
    if min(pixels.shape[:2]) < side:
        raise DataError(
            f"{picture} is too small for a sheet",
            expected=f"{2 * side} pixels or more on both sides",
            hint="choose a larger picture",
        )
    sharp = torch.from_numpy(_detailed(pixels, side)).permute(2, 0, 1)[None].float() / 255
    strips = []
    for label, tile in _rows(sharp, seed).items():
        tiles = [_labelled(tile(severity), f"{label}: {severity}") for severity in SEVERITIES]
        strips.append(np.concatenate(tiles, axis=1))
    while len(strips) % columns:
        strips.append(np.zeros_like(strips[0]))
    rows = len(strips) // columns
    groups = [np.concatenate(strips[i * rows : (i + 1) * rows]) for i in range(columns)]
    gap = np.full((groups[0].shape[0], 8, 3), 255, np.uint8)
    sheet = groups[0]
    for group in groups[1:]:
        sheet = np.concatenate((sheet, gap, group), axis=1)
    with atomic_path(out) as temporary:
        temporary.write_bytes(jpeg_bytes(sheet, 42))
    print(f"{out}: {sheet.shape[1]}x{sheet.shape[0]}, {out.stat().st_size / 1024:.0f} kB")
