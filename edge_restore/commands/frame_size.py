"""Sizes as commands take them: HxW, height first, as arrays have it."""

from __future__ import annotations

import re

from edge_restore.errors import OptionError


def parse(text: str, *, least: int = 1, example: str = "720x1280") -> tuple[int, int]:
    """(height, width) in "HxW".

    Args:
        least: a smaller side is refused.
        example: for the message.

    Raises:
        OptionError: it is no size.
    """
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    size = (int(sides[1]), int(sides[2])) if sides else (-1, -1)
    if min(size) < least:
        raise OptionError(
            f"'{text}' is not a size",
            expected="height x width in pixels",
            hint=f"write it like --size {example}",
        )
    return size
