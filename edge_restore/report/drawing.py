"""Drawing text and marks into pictures with OpenCV, in one hand for every picture we make."""

from __future__ import annotations

import math
import unicodedata
from types import ModuleType

import numpy as np

from edge_restore.errors import shown
from edge_restore.frames import Pixels
from edge_restore.machine import optional

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

PAPER: Colour = (251, 250, 248)
INK: Colour = (29, 35, 39)
SOFT: Colour = (98, 108, 115)
LINE: Colour = (214, 211, 204)
WHITE: Colour = (255, 255, 255)

LINE_HEIGHT = 24
"""From one line of text to the next at size 1, in pixels."""

_SCALE = 0.55


def opencv() -> ModuleType:
    """The module cv2; DependencyError when OpenCV is not installed."""
    return optional.require("cv2", needed_for="drawing")


def canvas(height: int, width: int) -> Pixels:
    """An empty sheet of paper, RGB uint8 (height, width, 3)."""
    return np.full((height, width, 3), PAPER, np.uint8)


def text_width(text: str, size: float = 1.0) -> int:
    """How many pixels wide `write` makes the text."""
    cv2 = opencv()
    (width, _), _ = cv2.getTextSize(_plain(text), cv2.FONT_HERSHEY_DUPLEX, _SCALE * size, 1)
    return int(width)


def write(
    picture: Pixels, text: str, x: float, y: float, colour: Colour = INK, size: float = 1.0,
    align: float = 0.0,
) -> None:  # fmt: skip
    """Write one line into the picture, its baseline at `y`.

    Args:
        picture: RGB uint8, written to.
        text: letters with accents lose them, others than Latin become question marks: OpenCV's
            fonts have no more.
        x: of the left end for `align` 0, of the middle for 0.5, of the right end for 1.
        y: of the baseline.
        colour: RGB.
        size: 1 is a cap height of about 12 pixels.
        align: see `x`.
    """
    cv2 = opencv()
    left = round(x - align * text_width(text, size))
    font, scale = cv2.FONT_HERSHEY_DUPLEX, _SCALE * size
    cv2.putText(picture, _plain(text), (left, round(y)), font, scale, colour, 1, cv2.LINE_AA)


def shortened(text: str, width: int, size: float = 1.0) -> str:
    """The text, its middle replaced by dots where it would be wider than `width` pixels."""
    kept = len(text)
    short = text
    while text_width(short, size) > width and kept > 2:
        kept -= 1
        short = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return short


def dot(picture: Pixels, x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled disc at sub-pixel coordinates; (0, 0) is the middle of the first pixel.

    OpenCV draws discs of a pixel or two as diamonds. Here each pixel gets the share of the colour
    that the disc covers of it, so that small ones keep their area.
    """
    reach = radius + 1
    top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach) + 1, picture.shape[0])
    left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach) + 1, picture.shape[1])
    if top >= bottom or left >= right:
        return
    distance = np.hypot(
        np.arange(top, bottom, dtype=np.float32)[:, None] - y,
        np.arange(left, right, dtype=np.float32) - x,
    )
    share = (np.clip(radius + 0.5 - distance, 0, 1) * min(1.0, 2 * radius))[..., None]
    patch = picture[top:bottom, left:right]
    patch[:] = np.rint(patch * (1 - share) + np.array(colour) * share).astype(np.uint8)


def line(
    picture: Pixels, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: int = 1
) -> None:
    """A straight line between two points."""
    cv2 = opencv()
    ends = (round(x0), round(y0)), (round(x1), round(y1))
    cv2.line(picture, *ends, colour, width, cv2.LINE_AA)


def _plain(text: str) -> str:
    # OpenCV crashes on what cannot be encoded, such as some names of files.
    decomposed = unicodedata.normalize("NFKD", shown(text))
    return "".join(c for c in decomposed if not unicodedata.combining(c))
