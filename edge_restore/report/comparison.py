"""Pictures that show restored frames beside what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_restore.frames import Pixels
from edge_restore.media.metrics import psnr
from edge_restore.report.drawing import opencv

DIVIDER = 4
"""Width of the line between two pictures, in pixels."""

_PAPER, _INK = 250, 40
_ZOOM = 2
_GAP = 8
_HEADER = 44


@dataclass(frozen=True)
class Example:
    """One frame three times, RGB uint8 of one size, what to call it, and where to look.

    `subject` is the (x, y) in pixels that is shown enlarged.
    """

    blurred: Pixels
    restored: Pixels
    sharp: Pixels
    label: str
    subject: tuple[float, float]


def side_by_side(blurred: Pixels, restored: Pixels) -> Pixels:
    """Both pictures with a thin divider between them and their names in them."""
    height = blurred.shape[0]
    divider = np.full((height, DIVIDER, 3), 255, np.uint8)
    return np.hstack([_tagged(blurred, "blurred"), divider, _tagged(restored, "restored")])


def contact_sheet(examples: Sequence[Example]) -> Pixels:
    """One row per example: blurred, restored, sharp.

    Each is the part around the subject, half as wide and high as the frame, enlarged twice. The
    PSNR on a picture is the whole frame's against the sharp one.
    """
    rows = [_header(examples[0].sharp.shape[1])]
    for example in examples:
        window = _window(example.sharp, example.subject)
        cells = [
            _tagged(_enlarged(example.blurred[window]), _score(example.blurred, example.sharp)),
            _tagged(_enlarged(example.restored[window]), _score(example.restored, example.sharp)),
            _tagged(_enlarged(example.sharp[window]), example.label),
        ]
        rows.append(_row(cells))
    width = min(row.shape[1] for row in rows)
    return np.vstack([row[:, :width] for row in rows])


def _score(picture: Pixels, sharp: Pixels) -> str:
    return f"{psnr(picture, sharp):.2f} dB"


def _row(cells: Sequence[Pixels]) -> Pixels:
    height, width = cells[0].shape[:2]
    row = np.full((height + _GAP, len(cells) * (width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for i, cell in enumerate(cells):
        left = _GAP + i * (width + _GAP)
        row[:height, left : left + width] = cell
    return row


def _header(frame_width: int) -> Pixels:
    cv2 = opencv()
    cell = frame_width // 2 * _ZOOM
    row = np.full((_HEADER, 3 * (cell + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for i, name in enumerate(("blurred", "restored", "sharp (ground truth)")):
        at = (_GAP + i * (cell + _GAP), _HEADER - 15)
        cv2.putText(row, name, at, cv2.FONT_HERSHEY_DUPLEX, 0.8, (_INK,) * 3, 1, cv2.LINE_AA)
    return row


def _tagged(picture: Pixels, text: str) -> Pixels:
    """The picture with `text` in white on a dark strip in its lower left corner."""
    cv2 = opencv()
    font, scale = cv2.FONT_HERSHEY_DUPLEX, 0.6
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    tagged: Pixels = picture.copy()
    top = tagged.shape[0] - height - below - 12
    strip = tagged[max(top, 0) :, : width + 16]
    strip[:] = strip // 4
    at = (8, tagged.shape[0] - below - 5)
    cv2.putText(tagged, text, at, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return tagged


def _enlarged(crop: Pixels) -> npt.NDArray[np.uint8]:
    cv2 = opencv()
    enlarged = cv2.resize(crop, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged, np.uint8)


def _window(picture: Pixels, subject: tuple[float, float]) -> tuple[slice, slice]:
    """The rows and columns around `subject`, half of the picture's, inside the picture."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    left = min(max(round(subject[0] - width / 2), 0), picture.shape[1] - width)
    top = min(max(round(subject[1] - height / 2), 0), picture.shape[0] - height)
    return slice(top, top + height), slice(left, left + width)
