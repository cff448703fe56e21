"""The report's charts as inline SVG; their colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edge_restore.pipeline.latency import percentiles
from edge_restore.report import cells

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 38
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BASE = TOP + PLOT_HEIGHT
_BINS = 32
_COLUMNS = 120
_LINES = 4

TIMELINE_STAGES = ("decode", "queue", "restore", "encode")
"""A frame's way, in order; together they are its total."""


def histogram(samples_ms: Sequence[float], label: str) -> str:
    """How often each time occurred, with lines at p50, p90 and p99.

    Args:
        samples_ms: at least one time in milliseconds.
        label: what was timed; read out by screen readers.
    """
    low, high = min(samples_ms), max(samples_ms)
    if high - low < 0.05 * high or high == 0:  # all but equal: show them as the one peak they are
        low, high = 0.0, max(1.2 * high, 1e-3)
    width = (high - low) / _BINS
    counts = [0] * _BINS
    for sample in samples_ms:
        counts[min(int((sample - low) / width), _BINS - 1)] += 1

    def x(value: float) -> float:
        return LEFT + PLOT_WIDTH * (value - low) / (high - low)

    top = max(*counts, _LINES)  # grid lines at whole numbers
    parts = [grid(top)]
    bar = PLOT_WIDTH / _BINS
    for i, count in enumerate(counts):
        if count:
            height = PLOT_HEIGHT * count / rounded_up(top)
            parts.append(
                f'<rect class="bar" x="{LEFT + i * bar + 0.5:.1f}" y="{BASE - height:.1f}" '
                f'width="{bar - 1:.1f}" height="{height:.1f}"/>'
            )
    parts += [tick(x(value), f"{value:,.6g}") for value in round_values(low, high)]
    parts.append(axis_title("milliseconds"))
    p = percentiles(samples_ms)
    last = -math.inf
    for name, value in (("p50", p.p50), ("p90", p.p90), ("p99", p.p99)):
        at = x(value)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{BASE}"/>')
        if at - last > 28:  # labels must not overprint each other
            parts.append(f'<text class="mark" x="{at:.1f}" y="{TOP - 10}">{name}</text>')
            last = at
    return svg(f"Histogram of {label} times in milliseconds", parts)


def timeline(samples_ms: Mapping[str, Sequence[float]]) -> str:
    """Each frame's time in the order of the stream, its stages stacked.

    Of long streams a column is the mean of neighbouring frames.

    Args:
        samples_ms: times in milliseconds by stage, equally many for each of `TIMELINE_STAGES`.
    """
    frames = len(samples_ms[TIMELINE_STAGES[0]])
    group = max(1, -(-frames // _COLUMNS))
    columns = [
        [_mean(samples_ms[stage][i : i + group]) for stage in TIMELINE_STAGES]
        for i in range(0, frames, group)
    ]
    top = max(map(sum, columns))
    parts = [grid(top)]
    scale = PLOT_HEIGHT / (rounded_up(top) or 1)
    bar = PLOT_WIDTH / len(columns)
    for i, column in enumerate(columns):
        y = float(BASE)
        for stage, value in zip(TIMELINE_STAGES, column, strict=True):
            y -= value * scale
            parts.append(
                f'<rect class="{stage}" x="{LEFT + i * bar:.1f}" y="{y:.1f}" '
                f'width="{max(bar - 0.8, 0.8):.1f}" height="{value * scale:.1f}"/>'
            )
    for frame in round_values(0, frames - 1):
        if frame == int(frame):
            at = LEFT + (frame / group + 0.5) * bar
            parts.append(tick(at, cells.count(int(frame))))
    parts.append(axis_title("frame"))
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 10}">ms</text>')
    return svg("Time of each frame in milliseconds, by stage", parts)


def svg(title: str, parts: Sequence[str]) -> str:
    """A chart of these parts; the title is read out by screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
    )


def grid(top: float) -> str:
    """Horizontal lines with their values, from 0 to just above `top`."""
    ceiling = rounded_up(top)
    lines = []
    for value in round_values(0, ceiling, _LINES):
        y = BASE - PLOT_HEIGHT * value / ceiling
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="value" x="{LEFT - 6}" y="{y + 4:.1f}">{value:,.6g}</text>'
        )
    return "".join(lines)


def tick(x: float, text: str) -> str:
    """A label under the plot."""
    return f'<text class="tick" x="{x:.1f}" y="{BASE + 16}">{text}</text>'


def axis_title(text: str) -> str:
    """What the horizontal axis counts."""
    return f'<text class="tick" x="{LEFT + PLOT_WIDTH / 2}" y="{HEIGHT - 6}">{text}</text>'


def rounded_up(value: float) -> float:
    """The next value that a grid line can stand at."""
    step = _step(value, _LINES)
    return step * math.ceil(value / step - 1e-9)


def round_values(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers within [low, high], about `wanted` of them."""
    step = _step(high - low, wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _step(span: float, wanted: int) -> float:
    """1, 2 or 5 times a power of ten, so that about `wanted` steps make `span`."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    return next(m * power for m in (1, 2, 5, 10) if m * power * wanted >= span * (1 - 1e-9))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
