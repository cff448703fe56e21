"""The benchmark's charts as inline SVG: every time in its order, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_restore.bench.peaks import Peaks
from edge_restore.bench.timing import Timing
from edge_restore.report.charts import (
    BASE,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    TOP,
    WIDTH,
    axis_title,
    grid,
    rounded_up,
    svg,
    tick,
)


@dataclass(frozen=True)
class RooflinePoint:
    """A run in the roofline: operations for each byte moved, and operations a second reached."""

    name: str
    intensity: float
    rate: float


def series(timing: Timing) -> str:
    """Each time in the order in which it was taken, a dashed line between two rounds."""
    samples = timing.samples_ms
    ceiling = rounded_up(max(samples))
    parts = [grid(max(samples))]
    step = PLOT_WIDTH / len(samples)
    taken = 0
    for one in timing.rounds_ms:
        if taken:
            at = LEFT + taken * step
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BASE}"/>')
        for i, sample in enumerate(one, taken):
            x, y = LEFT + (i + 0.5) * step, BASE - PLOT_HEIGHT * sample / ceiling
            parts.append(f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')
        taken += len(one)
    parts.append(axis_title("frame, in order; rounds apart"))
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 10}">ms</text>')
    return svg("Each time in the order in which it was taken, in milliseconds", parts)


def roofline(points: Sequence[RooflinePoint], peaks: Peaks) -> str:
    """What was reached under what the processor can do (Williams et al., CACM 2009).

    Left of the ridge memory limits, right of it arithmetic. Both axes are logarithmic.
    """
    roofs = [
        (name, rate)
        for name, rate in (("FP32", peaks.fp32), ("FP16 or bfloat16", peaks.fp16))
        if rate is not None
    ]
    if not roofs or peaks.bandwidth is None or not points:
        return ""
    highest = max(rate for _, rate in roofs)
    right = max(*(point.intensity for point in points), highest / peaks.bandwidth) * 3
    left = min(*(point.intensity for point in points), highest / peaks.bandwidth) / 8
    low = min(*(point.rate for point in points), left * peaks.bandwidth) / 2
    high = highest * 2

    def x(intensity: float) -> float:
        return LEFT + PLOT_WIDTH * math.log(intensity / left) / math.log(right / left)

    def y(rate: float) -> float:
        return BASE - PLOT_HEIGHT * math.log(rate / low) / math.log(high / low)

    parts = []
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        at = y(10.0**power)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="value" x="{LEFT - 6}" y="{at + 4:.1f}">{10.0 ** (power - 9):,g}</text>'
        )
    for power in range(math.ceil(math.log10(left)), math.floor(math.log10(right)) + 1):
        parts.append(tick(x(10.0**power), f"{10.0**power:,g}"))
    for name, rate in roofs:
        ridge = rate / peaks.bandwidth
        parts.append(
            f'<polyline class="roof" points="{x(left):.1f},{y(left * peaks.bandwidth):.1f} '
            f'{x(ridge):.1f},{y(rate):.1f} {x(right):.1f},{y(rate):.1f}"/>'
            f'<text class="value" x="{WIDTH - RIGHT}" y="{y(rate) - 6:.1f}">{name}</text>'
        )
    labels: list[tuple[float, float]] = []
    for point in points:
        at, up = x(point.intensity), y(point.rate)
        below = up + 18
        while any(abs(at - a) < PLOT_WIDTH / 2 and abs(below - b) < 13 for a, b in labels):
            below += 13
        labels.append((at, below))
        anchor = "end" if at > LEFT + PLOT_WIDTH / 2 else "start"
        shift = 4 if anchor == "end" else -4
        parts.append(
            f'<circle class="bar" cx="{at:.1f}" cy="{up:.1f}" r="4"/>'
            f'<text style="text-anchor:{anchor}" x="{at + shift:.1f}" y="{below:.1f}">'
            f"{point.name}</text>"
        )
    parts.append(axis_title("operations for each byte moved"))
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 10}">GFLOP/s</text>')
    return svg("Operations a second reached, under the processor's roofs", parts)
