"""Before/after sheet of an evaluation: the worst, the median and the best image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_restore.evaluation.scoring import ImageScore
from edge_restore.frames import Pixels
from edge_restore.media.metrics import Image
from edge_restore.report import cells, drawing

CELL_WIDTH, CELL_HEIGHT = 420, 315
"""A shown crop's greatest size on the sheet, in pixels."""

SHOWN_WIDTH, SHOWN_HEIGHT = 210, 158
"""The crop's greatest size in the image: it is enlarged twice."""

_GAP = 12
_CAPTION = 58
_TITLE = 72


@dataclass(frozen=True)
class SheetRow:
    """One image of the sheet: what it is an example of, its score, its three pictures.

    The pictures are RGB uint8 of one size.
    """

    rank: str
    score: ImageScore
    blurred: Pixels
    restored: Pixels
    sharp: Pixels


def choose(scores: Sequence[ImageScore]) -> dict[str, ImageScore]:
    """The images with the smallest, the middle and the greatest gain, by rank; at most three.

    Of an even count the lower one of the middle two. Images that are equal to their truth before
    and after, whose gain is no number, are chosen only where there are no others.
    """
    numbers = [score for score in scores if not math.isnan(score.gain)] or list(scores)
    ordered = sorted(numbers, key=lambda score: score.gain)
    middle = (len(ordered) - 1) // 2
    if len(ordered) == 1:
        return {"the only image": ordered[0]}
    chosen = {"worst": ordered[0], "median": ordered[middle], "best": ordered[-1]}
    return chosen if len(ordered) > 2 else {"worst": ordered[0], "best": ordered[1]}


def draw(rows: Sequence[SheetRow], title: str) -> Pixels:
    """The sheet: a row for each image, with a crop of the blurred, restored and sharp picture.

    The crop is where the blurred picture differs most from the sharp one. The PSNR and SSIM under
    it are the whole image's, as the evaluation's protocol measured them.

    Args:
        rows: at least one.
        title: one line above the columns: model, protocol, number of images.
    """
    crops = [[_enlarged(picture) for picture in _crops(row)] for row in rows]
    width = 3 * CELL_WIDTH + 4 * _GAP
    heights = [triple[0].shape[0] + _CAPTION for triple in crops]
    sheet = drawing.canvas(_TITLE + sum(heights) + _GAP, width)
    drawing.write(sheet, drawing.shortened(title, width - 2 * _GAP), _GAP, 28)
    for i, name in enumerate(("blurred", "restored", "sharp (truth)")):
        x = _GAP + i * (CELL_WIDTH + _GAP)
        drawing.write(sheet, name, x, _TITLE - 12, drawing.SOFT)
    top = _TITLE
    for row, triple, height in zip(rows, crops, heights, strict=True):
        for i, (crop, lines) in enumerate(zip(triple, _captions(row), strict=True)):
            x = _GAP + i * (CELL_WIDTH + _GAP)
            sheet[top : top + crop.shape[0], x : x + crop.shape[1]] = crop
            for j, (text, colour) in enumerate(lines):
                y = top + crop.shape[0] + 20 + j * drawing.LINE_HEIGHT
                drawing.write(sheet, drawing.shortened(text, CELL_WIDTH), x, y, colour)
        top += height
    return sheet


def most_blurred(blurred: Image, sharp: Image, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of the window where the two differ most: the greatest squared error.

    Args:
        blurred: (image height, image width, channels); `sharp`: likewise.
        height: of the window, at most the image's; `width`: likewise.
    """
    error = np.square(blurred.astype(np.float64) - sharp.astype(np.float64)).sum(axis=2)
    total = np.zeros((error.shape[0] + 1, error.shape[1] + 1))
    total[1:, 1:] = error.cumsum(axis=0).cumsum(axis=1)
    inside: npt.NDArray[np.float64] = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width]
        + total[:-height, :-width]
    )  # fmt: skip
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _crops(row: SheetRow) -> list[Pixels]:
    height = min(SHOWN_HEIGHT, row.sharp.shape[0])
    width = min(SHOWN_WIDTH, row.sharp.shape[1])
    window = most_blurred(row.blurred, row.sharp, height, width)
    return [picture[window] for picture in (row.blurred, row.restored, row.sharp)]


def _enlarged(crop: Pixels) -> Pixels:
    """As large as a cell holds: twice, or more for a tiny image."""
    cv2 = drawing.opencv()
    scale = min(CELL_WIDTH / crop.shape[1], CELL_HEIGHT / crop.shape[0])
    size = int(crop.shape[1] * scale), int(crop.shape[0] * scale)
    enlarged: Pixels = cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)
    return enlarged


def _captions(row: SheetRow) -> list[list[tuple[str, drawing.Colour]]]:
    score = row.score
    before = f"{cells.decibels(score.psnr_input)} dB   SSIM {cells.similarity(score.ssim_input)}"
    after = f"{cells.decibels(score.psnr)} dB   SSIM {cells.similarity(score.ssim)}"
    return [
        [(before, drawing.INK)],
        [(after, drawing.INK), (f"gain {cells.gain(score.gain)} dB", drawing.SOFT)],
        [(f"{row.rank}: {score.name}", drawing.INK), (score.severity, drawing.SOFT)],
    ]
