"""Training curves: a run's log as a picture."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edge_restore.errors import DataError, shown
from edge_restore.frames import Pixels
from edge_restore.media.images import write_png
from edge_restore.report import drawing
from edge_restore.storage.files import check_writable
from edge_restore.storage.plain_file import Kind, read_plain

_NUMBER = r"([-+]?(?:nan|inf|[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[-+]?[0-9]{1,4})?))"
_LINE = re.compile(
    rf"\bstep\s+([0-9]{{1,15}})\s+{_NUMBER} min\s+loss {_NUMBER}\s+rate {_NUMBER}\s+"
    rf"PSNR {_NUMBER} dB \({_NUMBER}\)\s+SSIM {_NUMBER}"
)

COLOURS: tuple[drawing.Colour, ...] = (
    (15, 111, 120), (213, 130, 40), (120, 80, 170), (200, 60, 80), (70, 130, 50), (60, 100, 190),
)  # fmt: skip
"""One for each run; with more runs they begin anew."""

_MAX_BYTES = 16 << 20
_MAX_LINE = 1000
_GREATEST = 1e12
"""What is plotted goes no further; such a loss is as good as none."""

_KIND = Kind(
    "a log",
    "what `python -m train RECIPE` printed, kept in a file",
    "check the path; keep a run's output with: python -m train RECIPE ... | tee LOG",
)

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 40, 44


@dataclass(frozen=True)
class Log:
    """One run's validations, in the order of the steps.

    Attributes:
        name: for the legend.
        steps: each step once; of one that was validated again after a resume, the last loss that is
            a number.
        loss, psnr, ssim, rate: one value for each step; nan where the log has none. PSNR in dB.
        psnr_input: PSNR of the blurred input in dB.
    """

    name: str
    steps: list[int]
    loss: list[float]
    psnr: list[float]
    ssim: list[float]
    rate: list[float]
    psnr_input: float


def read(path: Path) -> Log:
    """The validations in a log, as `python -m train RECIPE` prints them; other lines are passed.

    How many lines begin as one and are none is said on standard error.

    Raises:
        DataError: there is no such file, it is no plain one or too large, or no line of a
            validation is in it.
    """
    found: dict[int, tuple[float, ...]] = {}
    unread = 0
    for text in read_plain(path, _KIND, _MAX_BYTES).decode("utf-8", "replace").splitlines():
        match = _LINE.search(text[:_MAX_LINE])
        if match is None:
            unread += text.lstrip().startswith("step ") and " PSNR " in text
            continue
        step, numbers = int(match[1]), tuple(map(_plottable, match.groups()[1:]))
        if step in found and math.isnan(numbers[1]):  # a resumed run begins without a loss
            numbers = (numbers[0], found[step][1], *numbers[2:])
        found[step] = numbers
    if not found:
        raise DataError(
            f"'{path}' has no line of a validation",
            expected="lines like: step 1000 3.2 min loss 0.1 rate 1e-03 PSNR 26.3 dB (+0.1) "
            "SSIM 0.71",
            hint="name the file that keeps what `python -m train RECIPE` printed",
        )
    if unread:
        print(
            f"train: warning: {unread} line(s) of '{shown(path)}' begin as a validation's and "
            "cannot be read; they are passed over",
            file=sys.stderr,
        )
    steps = sorted(found)
    _, loss, rate, psnr, gain, ssim = ([found[step][i] for step in steps] for i in range(6))
    name = path.parent.name if path.stem in ("log", "training", "train") else path.stem
    return Log(name, steps, loss, psnr, ssim, rate, psnr[0] - gain[0])


def _plottable(digits: str) -> float:
    value = float(digits)
    return value if abs(value) <= _GREATEST else math.nan


def write(paths: Sequence[Path], out: Path) -> None:
    """Draw the logs' curves into a PNG.

    Raises:
        DataError: as `read`. SinkError: `out` cannot be written.
    """
    check_writable(out)
    write_png(out, draw([read(path) for path in paths]))


def draw(logs: Sequence[Log]) -> Pixels:
    """PSNR, SSIM, loss and learning rate over the steps, a panel each, a colour for each run.

    The dashed line is the blurred input's PSNR. A curve is broken where the log has no number.
    """
    legend = drawing.LINE_HEIGHT * len(logs) + 16
    sheet = drawing.canvas(legend + 2 * _HEIGHT, 2 * _WIDTH)
    for i, log in enumerate(logs):
        y = 26 + i * drawing.LINE_HEIGHT
        drawing.line(sheet, _LEFT, y - 5, _LEFT + 30, y - 5, _colour(i), 3)
        best = max(log.psnr)
        text = f"{log.name}: best {best:.2f} dB at step {log.steps[log.psnr.index(best)]:,}"
        text = drawing.shortened(text, 2 * _WIDTH - _LEFT - 60)
        drawing.write(sheet, text, _LEFT + 40, y)
    panels: tuple[tuple[str, Callable[[Log], list[float]], bool], ...] = (
        ("PSNR, dB", lambda log: log.psnr, False),
        ("SSIM", lambda log: log.ssim, False),
        ("loss", lambda log: log.loss, False),
        ("learning rate", lambda log: log.rate, True),
    )
    for i, (title, values, logarithmic) in enumerate(panels):
        marks = {log.psnr_input for log in logs} if i == 0 else set()
        panel = _panel(title, logs, [values(log) for log in logs], marks, logarithmic)
        top, left = legend + i // 2 * _HEIGHT, i % 2 * _WIDTH
        sheet[top : top + _HEIGHT, left : left + _WIDTH] = panel
    return sheet


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between the two: 1, 2 or 5 times a power of ten apart."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(f for f in (5, 2, 1) if (high - low) / (step * f) >= 2.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(
    title: str, logs: Sequence[Log], series: Sequence[list[float]], marks: set[float],
    logarithmic: bool,
) -> Pixels:  # fmt: skip
    picture = drawing.canvas(_HEIGHT, _WIDTH)
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    drawing.write(picture, title, _LEFT, _TOP - 14)
    curves = [[_scaled(value, logarithmic) for value in values] for values in series]
    heights = [v for values in curves for v in values if math.isfinite(v)]
    heights += [mark for mark in marks if math.isfinite(mark)]
    if not heights:
        drawing.write(picture, "no numbers", (_LEFT + right) / 2, base - 90, drawing.SOFT, 1, 0.5)
        return picture
    low, high = min(heights), max(heights)
    margin = 0.06 * (high - low) or max(0.05 * abs(high), 1e-3)
    low, high = low - margin, high + margin
    longest = max(max(log.steps) for log in logs) or 1

    def x(step: float) -> float:
        return _LEFT + (right - _LEFT) * step / longest

    def y(value: float) -> float:
        return base - (base - _TOP) * (value - low) / (high - low)

    for tick in ticks(low, high):
        drawing.line(picture, _LEFT, y(tick), right, y(tick), drawing.LINE)
        text = f"{10**tick:.1e}" if logarithmic else f"{tick:.6g}"
        drawing.write(picture, text, _LEFT - 8, y(tick) + 5, drawing.SOFT, 0.8, 1.0)
    for tick in ticks(0, longest):
        drawing.line(picture, x(tick), base, x(tick), base + 4, drawing.SOFT)
        text = f"{tick / 1000:g}k" if longest >= 5000 and tick else f"{tick:g}"
        at = min(x(tick), right - drawing.text_width(text, 0.8) / 2)
        drawing.write(picture, text, at, base + 20, drawing.SOFT, 0.8, 0.5)
    drawing.write(picture, "step", right, base + 38, drawing.SOFT, 0.8, 1.0)
    for mark in marks:
        for left in range(_LEFT, math.ceil(right), 12):
            drawing.line(picture, left, y(mark), min(left + 6, right), y(mark), drawing.SOFT)
        above = y(mark) - 6 if y(mark) - 6 > _TOP + 12 else y(mark) + 18
        drawing.write(picture, "blurred input", right, above, drawing.SOFT, 0.75, 1.0)
    for i, (log, values) in enumerate(zip(logs, curves, strict=True)):
        points = [
            (x(s), y(v)) if math.isfinite(v) else None
            for s, v in zip(log.steps, values, strict=True)
        ]
        for before, after in pairwise(points):
            if before and after:
                drawing.line(picture, *before, *after, _colour(i), 2)
        for point in points:
            if point:
                drawing.dot(picture, *point, 2.2, _colour(i))
    return picture


def _scaled(value: float, logarithmic: bool) -> float:
    if not logarithmic:
        return value
    return math.log10(value) if value > 0 else math.nan


def _colour(index: int) -> drawing.Colour:
    return COLOURS[index % len(COLOURS)]
