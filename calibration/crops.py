"""Pairs to try quantisation on: the middles of some pictures, held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_restore.errors import OptionError
from edge_restore.evaluation.pairs import find_pairs, spread
from edge_restore.evaluation.scoring import read_pair
from edge_restore.frames import Pixels
from edge_restore.media.metrics import finite_psnr


@dataclass(frozen=True)
class Crop:
    """The middle of a pair: two pictures of one size."""

    name: str
    blurred: Pixels
    sharp: Pixels


def read(folder: Path, images: int, side: int) -> list[Crop]:
    """The middles of `images` pairs, evenly spread over the folder's.

    Args:
        folder: of pairs, as `edge-restore evaluate` takes it.
        images: how many; all where there are fewer.
        side: height and width of a crop; smaller pictures are taken whole.

    Raises:
        DataError: there are no pairs, or one cannot be read.
        OptionError: less than one picture, or less than 64 pixels.
    """
    if images < 1 or side < 64:
        raise OptionError(
            f"{images} crops of {side} pixels",
            expected="1 or more, of 64 pixels or more",
            hint="leave --images and --crop away for 8 of 256",
        )
    crops = []
    for pair in spread(find_pairs(folder), images):
        blurred, sharp = read_pair(pair)
        height, width = (min(side, given) for given in blurred.shape[:2])
        top, left = (blurred.shape[0] - height) // 2, (blurred.shape[1] - width) // 2
        cut = slice(top, top + height), slice(left, left + width)
        crops.append(Crop(pair.name, blurred[cut], sharp[0][cut]))
    return crops


def mean_psnr(restored: Sequence[Pixels], crops: Sequence[Crop]) -> float:
    """In dB, over the crops; a crop that equals its truth counts as 100."""
    values = [
        finite_psnr(picture, crop.sharp) for picture, crop in zip(restored, crops, strict=True)
    ]
    return float(np.mean(values))
