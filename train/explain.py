"""A picture of what SVDN does with an image: its sampling points and its blur map (Fig. 6)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edge_restore.errors import DataError, ModelError, OptionError
from edge_restore.frames import Pixels
from edge_restore.media.images import read_image, write_png
from edge_restore.report import drawing
from edge_restore.storage.files import check_writable
from train import sampling, weights
from train.networks.svdn import SVDN, FeatureDeconvolution
from train.sampling import Sampling

SMALLEST = 32
"""An image's shortest side in pixels."""

_PANEL = 1100
"""A smaller image is enlarged by a whole number until it is about as wide."""

_GAP = 16
_LEGEND = 74
_RADIUS = 3.4
"""A dot's radius on the picture for a mask of 1."""

_FIRST: drawing.Colour = (255, 190, 40)
_COMPOSED: drawing.Colour = (70, 215, 235)
_CENTRE: drawing.Colour = (240, 60, 60)

_VIRIDIS = 16  # cv2.COLORMAP_VIRIDIS: from dark blue to yellow, as bright as it is high


def explain(image: Path, weights_file: Path, out: Path, columns: int = 6) -> None:
    """Write the picture for an image and a weights file.

    Raises:
        DataError: the image cannot be read or is too small, or no weights are there.
        ModelError: the weights are not of an SVDN with its deformable neck.
        OptionError: `columns` is not from 1 to 40.
        SinkError: `out` cannot be written.
    """
    if not 1 <= columns <= 40:
        raise OptionError(
            f"the number of columns is {columns}", expected="1 to 40", hint="give another --columns"
        )
    check_writable(out)
    network, card = weights.load(weights_file)
    if not isinstance(network, SVDN) or not isinstance(network.neck, FeatureDeconvolution):
        switches = f" with {card.arguments}" if card.arguments else ""
        raise ModelError(
            f"'{weights_file}' holds weights of {card.network}{switches}, which has no sampling "
            "points",
            expected="weights of svdn with feature_deconvolution",
            hint="name the weights of such a network",
        )
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"'{image}' is {width}x{height}",
            expected=f"at least {SMALLEST}x{SMALLEST} pixels",
            hint="name a larger image",
        )
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    result = sampling.sample(network, tensor)
    write_png(out, draw(pixels, result, columns, f"{image.name}, {weights_file.name}"))


def draw(pixels: Pixels, result: Sampling, columns: int, title: str) -> Pixels:
    """Two panels: the image with sampling points at a grid of places, and the blur map.

    A dot's area is its mask, 1 being the largest. The blur map's colours run from the smallest to
    the greatest spread in this image (1st and 99th percentile), which the bar beside it gives in
    pixels.

    Args:
        pixels: RGB uint8 (height, width, 3).
        result: from `sampling.sample` of it.
        columns: places from left to right; as many from top to bottom as fit their distance.
        title: one line above the panels.

    Returns:
        RGB uint8; the panels stand side by side for an image higher than wide, else one below the
        other.
    """
    cv2 = drawing.opencv()
    height, width = pixels.shape[:2]
    scale = max(1, round(_PANEL / max(height, width)))
    size = width * scale, height * scale
    large: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    panels = [
        _with_legend(_dotted(large, result, columns, scale), _points_legend),
        _blur_panel(large, sampling.spread(result).numpy(), (height, width)),
    ]
    upright = height > width
    panel_height = max(panel.shape[0] for panel in panels)
    panel_width = max(panel.shape[1] for panel in panels)
    rows, across = (1, 2) if upright else (2, 1)
    sheet = drawing.canvas(40 + rows * (panel_height + _GAP), _GAP + across * (panel_width + _GAP))
    drawing.write(sheet, drawing.shortened(title, sheet.shape[1] - 2 * _GAP), _GAP, 26)
    for i, panel in enumerate(panels):
        top = 40 + (0 if upright else i * (panel_height + _GAP))
        left = _GAP + (i * (panel_width + _GAP) if upright else 0)
        sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return sheet


def places(height: int, width: int, columns: int) -> list[tuple[int, int]]:
    """Pixels of the features (row, column), evenly spread over an image of that size."""
    step = width / columns
    rows = max(1, round(height / step))
    return [
        (int((i + 0.5) * height / rows) // 2, int((j + 0.5) * step) // 2)
        for i in range(rows)
        for j in range(columns)
    ]


def _dotted(large: Pixels, result: Sampling, columns: int, scale: int) -> Pixels:
    # Darker and half grey, so that the dots stand out.
    grey = large.mean(axis=2, keepdims=True)
    picture = ((0.5 * large + 0.5 * grey) * 0.6).astype(np.uint8)
    size = large.shape[0] // scale, large.shape[1] // scale
    chosen = places(*size, columns)
    for row, column in chosen:
        _dots(picture, sampling.composed(result, row, column), scale, 0.45, _COMPOSED)
    for row, column in chosen:
        _dots(picture, sampling.first_layer(result, row, column), scale, 1.0, _FIRST)
    for row, column in chosen:
        x, y = ((2 * at + 0.5 + 0.5) * scale - 0.5 for at in (column, row))
        for dx, dy in ((5, 0), (0, 5)):
            drawing.line(picture, x - dx, y - dy, x + dx, y + dy, _CENTRE)
    return np.asarray(picture)


def _dots(
    picture: Pixels, points: sampling.Points, scale: int, size: float, colour: drawing.Colour
) -> None:
    for (y, x), mask in zip(points.places.tolist(), points.masks.tolist(), strict=True):
        radius = _RADIUS * size * mask**0.5
        # Pixel 0 of the image covers the pixels 0 to scale - 1: its middle is (scale - 1) / 2.
        drawing.dot(picture, (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, radius, colour)


def _with_legend(picture: Pixels, legend: Callable[[Pixels, int], None]) -> Pixels:
    sheet = drawing.canvas(picture.shape[0] + _LEGEND, max(picture.shape[1], 640))
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    legend(sheet, picture.shape[0])
    return sheet


def _points_legend(sheet: Pixels, top: int) -> None:
    """Two lines on dark strips, because that is what the dots' colours are made for."""
    strip = sheet[top : top + _LEGEND - 10]
    strip[:] = (40, 44, 48)
    x = 14.0
    y = top + 24
    drawing.dot(sheet, x, y - 5, _RADIUS, _FIRST)
    x += 12
    text = "first layer's points"
    drawing.write(sheet, text, x, y, drawing.WHITE, 0.85)
    x += drawing.text_width(text, 0.85) + 30
    drawing.dot(sheet, x, y - 5, _RADIUS * 0.6, _COMPOSED)
    x += 12
    text = "both layers composed"
    drawing.write(sheet, text, x, y, drawing.WHITE, 0.85)
    x += drawing.text_width(text, 0.85) + 30
    drawing.line(sheet, x - 5, y - 5, x + 5, y - 5, _CENTRE)
    drawing.line(sheet, x, y - 10, x, y, _CENTRE)
    drawing.write(sheet, "place", x + 12, y, drawing.WHITE, 0.85)
    x, y = 14.0, y + 28
    drawing.write(sheet, "area of a dot = mask:", x, y, drawing.WHITE, 0.85)
    x += drawing.text_width("area of a dot = mask:", 0.85) + 18
    for mask in (0.1, 0.5, 1.0):
        drawing.dot(sheet, x, y - 5, _RADIUS * mask**0.5, _FIRST)
        drawing.write(sheet, f"{mask:g}", x + 9, y, drawing.WHITE, 0.85)
        x += 60


def _blur_panel(large: Pixels, spread: npt.NDArray[np.float32], size: tuple[int, int]) -> Pixels:
    cv2 = drawing.opencv()
    low, high = (float(v) for v in np.percentile(spread, (1, 99)))
    high = max(high, low + 0.1)
    # The features cover the padded image: cut what was padded after enlarging.
    whole = cv2.resize(spread, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    whole = whole[: size[0], : size[1]]
    level = np.clip((whole - low) / (high - low), 0, 1)
    level = cv2.resize(level, (large.shape[1], large.shape[0]), interpolation=cv2.INTER_LINEAR)
    colours = _coloured(level)
    # A little of the picture's brightness shows through, to tell where one is.
    grey = large.mean(axis=2, keepdims=True) / 255
    picture = (colours * (0.55 + 0.45 * grey)).astype(np.uint8)

    def legend(sheet: Pixels, top: int) -> None:
        text = "blur map: spread of the first layer's points"
        drawing.write(sheet, text, 2, top + 24, size=0.85)
        y, x, width = top + 38, 2 + drawing.text_width("00.0 px", 0.85) + 10, 320
        drawing.write(sheet, f"{low:.1f} px", x - 10, y + 15, size=0.85, align=1.0)
        sheet[y : y + 18, x : x + width] = _coloured(np.tile(np.linspace(0, 1, width), (18, 1)))
        drawing.write(sheet, f"{high:.1f} px", x + width + 10, y + 15, size=0.85)

    return _with_legend(picture, legend)


def _coloured(level: npt.NDArray[np.floating]) -> Pixels:
    cv2 = drawing.opencv()
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8), _VIRIDIS)
    return np.ascontiguousarray(coloured[..., ::-1])
