"""The sensitivity of a network as a picture: each layer's loss, and the frontier."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from calibration.sensitivity import LayerDrop, Sensitivity
from edge_restore.frames import Pixels
from edge_restore.media.images import write_png
from edge_restore.report import drawing
from edge_restore.storage.files import check_writable

_ROW = 20
_MOST = 32
_NAMES = 230
_BAR = 250
_VALUES = 84
_LEFT_WIDTH = _NAMES + _BAR + _VALUES + 30
_PLOT_WIDTH, _PLOT_HEIGHT = 520, 380
_BLUE: drawing.Colour = (15, 111, 120)
_ORANGE: drawing.Colour = (213, 130, 40)


def write(sensitivity: Sensitivity, out: Path) -> None:
    """Draw it into a PNG; SinkError when `out` cannot be written."""
    check_writable(out)
    write_png(out, draw(sensitivity))


def draw(sensitivity: Sensitivity) -> Pixels:
    """Left: what each layer loses alone, in dB. Right: loss over the INT8 share of the MACs."""
    height = max(74 + len(_shown(sensitivity)) * _ROW + 20, _PLOT_HEIGHT + 140)
    sheet = drawing.canvas(height, _LEFT_WIDTH + _PLOT_WIDTH + 40)
    title = (
        f"{sensitivity.network}, INT8 by {sensitivity.method}: PSNR lost against FP32 "
        f"({sensitivity.psnr:.2f} dB, {sensitivity.crops} crops)"
    )
    drawing.write(sheet, title, 16, 28)
    _bars(sheet, sensitivity)
    _frontier(sheet, sensitivity)
    return sheet


def _shown(sensitivity: Sensitivity) -> list[LayerDrop]:
    """The layers that change the most, in the network's order."""
    by_size = sorted(sensitivity.layers, key=lambda layer: -abs(layer.drop))
    least = abs(by_size[:_MOST][-1].drop)
    return [layer for layer in sensitivity.layers if abs(layer.drop) >= least][:_MOST]


def _bars(sheet: Pixels, sensitivity: Sensitivity) -> None:
    layers, count = _shown(sensitivity), len(sensitivity.layers)
    heading = "each layer alone, dB"
    if len(layers) < count:
        heading += f": the {len(layers)} of {count} that change most"
    drawing.write(sheet, heading, 16, 58, drawing.SOFT, 0.85)
    drops = [layer.drop for layer in layers]
    low, high = min(0.0, *drops), max(1e-4, *drops)
    scale = _BAR / (high - low)
    zero = _NAMES - low * scale
    for row, layer in enumerate(layers):
        y = 78 + row * _ROW
        name = drawing.shortened(layer.name.removesuffix("/Conv"), _NAMES - 30, 0.75)
        drawing.write(sheet, name, 16, y + 5, drawing.INK, 0.75)
        x = zero + layer.drop * scale
        left, right = sorted((round(zero), round(x)))
        sheet[y - 6 : y + 6, left : max(right, left + 1)] = _BLUE if layer.drop <= 0 else _ORANGE
        drawing.write(sheet, f"{layer.drop:+.4f}", _LEFT_WIDTH - 20, y + 5, drawing.SOFT, 0.75, 1)
    bottom = 78 + (len(layers) - 1) * _ROW + 8
    drawing.line(sheet, zero, 68, zero, bottom, drawing.INK)


def _frontier(sheet: Pixels, sensitivity: Sensitivity) -> None:
    left, top = _LEFT_WIDTH + 70, 76
    right, base = left + _PLOT_WIDTH - 90, top + _PLOT_HEIGHT
    heading = "one after another: dB lost over the share of MACs in INT8"
    drawing.write(sheet, heading, _LEFT_WIDTH + 10, 58, drawing.SOFT, 0.85)
    drops = [0.0, *(point.drop for point in sensitivity.frontier)]
    low, high = min(drops), max(*drops, sensitivity.budget)
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def x(share: float) -> float:
        return left + (right - left) * share

    def y(drop: float) -> float:
        return base - (base - top) * (drop - low) / (high - low)

    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100)
                if (high - low) / s <= 8)  # fmt: skip
    first = round(low / step) - 1
    for k in range(first, first + 12):
        if low <= k * step <= high:
            drawing.line(sheet, left, y(k * step), right, y(k * step), drawing.LINE)
            drawing.write(
                sheet, f"{k * step:.3g}", left - 8, y(k * step) + 5, drawing.SOFT, 0.75, 1
            )
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        drawing.write(sheet, f"{tick:.0%}", x(tick), base + 20, drawing.SOFT, 0.75, 0.5)
    budget = y(sensitivity.budget)
    drawing.line(sheet, left, budget, right, budget, _ORANGE)
    text = f"budget {sensitivity.budget:g} dB"
    drawing.write(sheet, text, right, budget - 6, _ORANGE, 0.75, 1)
    points = [(x(0), y(0)), *((x(p.macs_share), y(p.drop)) for p in sensitivity.frontier)]
    for before, after in pairwise(points):
        drawing.line(sheet, *before, *after, _BLUE, 2)
    for number, point in enumerate(points):
        chosen = number == sensitivity.chosen
        drawing.dot(sheet, *point, 5.0 if chosen else 2.5, _ORANGE if chosen else _BLUE)
    kept = sensitivity.frontier[sensitivity.chosen - 1]
    text = f"chosen: {kept.layers} layers, {kept.macs_share:.1%}, {kept.drop:+.3f} dB"
    drawing.write(sheet, text, right, base + 46, _ORANGE, 0.8, 1)
