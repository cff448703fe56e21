"""How a number is written in a table, on the terminal and in HTML alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from edge_restore.errors import shown


def milliseconds(value: float) -> str:
    """Three significant digits: "0.41", "12.3", "842"."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def decibels(value: float | None) -> str:
    """PSNR: "24.05"; "inf" for equal images, "-" for a value that is not there."""
    if value is None:
        return "-"
    return f"{value:.2f}" if math.isfinite(value) else "inf"


def gain(value: float) -> str:
    """A difference of two PSNRs with its sign: "+1.73"."""
    return f"{value:+.2f}" if math.isfinite(value) else "-"


def similarity(value: float | None) -> str:
    """SSIM: "0.8126"; "-" for a value that is not there."""
    return "-" if value is None else f"{value:.4f}"


def count(value: int) -> str:
    """A whole number with its thousands apart: "808,532"."""
    return f"{value:,}"


def rate(value: float) -> str:
    """Frames per second: "3.42", "61.5"."""
    return milliseconds(value)


def size(byte_count: int) -> str:
    """A file's size: "3.2 MB"."""
    if byte_count < 1_000_000:
        return f"{byte_count / 1000:.1f} kB"
    return f"{byte_count / 1_000_000:.1f} MB"


def escaped(text: str) -> str:
    """Text from anywhere as HTML."""
    return escape(shown(text))


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under `header`; the first `left` are flush left, the others flush right."""
    lines = [[shown(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
