"""PSNR and SSIM of restored images over pairs of a blurred and a sharp one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from edge_restore.backends.restorer import Restorer
from edge_restore.errors import DataError, InternalError
from edge_restore.frames import Frame, Pixels
from edge_restore.images import SUFFIXES, read_image, write_png
from edge_restore.metrics import SSIM_WINDOW, psnr, ssim
from edge_restore.report import cells

BLURRED_FOLDERS = ("blurred", "blur", "input")
SHARP_FOLDERS = ("sharp", "gt", "target")

_COLUMNS = ("name", "width", "height", "psnr_input", "ssim_input", "psnr", "ssim")


@dataclass(frozen=True)
class Pair:
    """Two files that show the same: one to restore, and the truth."""

    name: str
    blurred: Path
    sharp: Path


@dataclass(frozen=True)
class ImageScore:
    """One image's quality before (`_input`) and after, in RGB on 8 bits; PSNR in dB.

    PSNR is infinite where the two images are equal.
    """

    name: str
    width: int
    height: int
    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class MeanScore:
    """The means of the images' values; each image counts once, whatever its size."""

    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float


def find_pairs(folder: Path) -> list[Pair]:
    """The pairs in ``folder/blurred`` (or blur, input) and ``folder/sharp`` (or gt, target).

    Raises:
        DataError: the folder does not exist or has another layout, or as `match_pairs`.
    """
    if not folder.is_dir():
        raise DataError(
            f"'{folder}' {'is not a folder' if folder.exists() else 'does not exist'}",
            expected=_layout(),
            mend="check the path, or name both sides with --blurred and --sharp",
        )
    return match_pairs(_side(folder, BLURRED_FOLDERS), _side(folder, SHARP_FOLDERS))


def match_pairs(blurred: Path, sharp: Path) -> list[Pair]:
    """The pairs of two files, or of two folders whose files have equal names, sorted by name.

    Raises:
        DataError: a side is missing or empty, one is a file and the other a folder, or a name is
            on one side only.
    """
    for side in (blurred, sharp):
        if not side.exists():
            raise DataError(
                f"'{side}' does not exist", expected="an image or a folder", mend="check the path"
            )
    if blurred.is_file() and sharp.is_file():
        return [Pair(blurred.name, blurred, sharp)]
    if blurred.is_file() or sharp.is_file():
        raise DataError(
            f"one of '{blurred}' and '{sharp}' is a file and the other a folder",
            expected="two images or two folders",
            mend="name both sides alike",
        )
    left, right = _images(blurred), _images(sharp)
    if alone := [
        *(f"{name} (only in {blurred})" for name in sorted(left.keys() - right.keys())),
        *(f"{name} (only in {sharp})" for name in sorted(right.keys() - left.keys())),
    ]:
        more = f"\n    and {len(alone) - 8} more" if len(alone) > 8 else ""
        raise DataError(
            "images without a partner:" + "".join(f"\n    {name}" for name in alone[:8]) + more,
            expected="equal file names on both sides",
            mend="rename the files, or remove those without a partner",
        )
    return [Pair(name, left[name], right[name]) for name in sorted(left)]


def evaluate(
    pairs: Sequence[Pair], restorer: Restorer, save: Path | None = None
) -> Iterator[ImageScore]:
    """Restore each pair's blurred image and compare it with the sharp one.

    Args:
        pairs: of images that have one size within a pair; pairs may differ.
        restorer: opened for each new size; the caller closes it.
        save: an existing folder for the restored images, as PNG.

    Raises:
        DataError: an image cannot be read or is too small, or a pair's sizes differ.
    """
    opened: tuple[int, int] | None = None
    for pair in pairs:
        blurred, sharp = read_image(pair.blurred), read_image(pair.sharp)
        _check_sizes(pair, blurred, sharp)
        height, width = blurred.shape[:2]
        if opened != (height, width):
            restorer.open(height, width)
            opened = height, width
        restored = _restored(restorer, blurred)
        if save is not None:
            write_png(save / f"{Path(pair.name).stem}.png", restored)
        yield ImageScore(
            name=pair.name,
            width=width,
            height=height,
            psnr_input=psnr(blurred, sharp),
            ssim_input=ssim(blurred, sharp),
            psnr=psnr(restored, sharp),
            ssim=ssim(restored, sharp),
        )


def mean(scores: Sequence[ImageScore]) -> MeanScore:
    """The means over at least one image."""
    return MeanScore(
        *(
            math.fsum(getattr(score, column) for score in scores) / len(scores)
            for column in _COLUMNS[3:]
        )
    )


def as_csv(scores: Sequence[ImageScore]) -> str:
    """One line per image under a header, full precision; the means are left to the reader."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(score, column) for column in _COLUMNS] for score in scores)
    return text.getvalue()


def as_table(scores: Sequence[ImageScore]) -> str:
    """One line per image and a last one with the means, for the terminal."""
    header = ["image", "size", "PSNR in", "PSNR out", "gain dB", "SSIM in", "SSIM out"]
    rows = [[score.name, f"{score.width}x{score.height}", *_cells(score)] for score in scores]
    return cells.text_table(header, [*rows, ["mean", "", *_cells(mean(scores))]])


def _cells(score: ImageScore | MeanScore) -> list[str]:
    return [
        cells.decibels(score.psnr_input),
        cells.decibels(score.psnr),
        cells.gain(score.psnr - score.psnr_input),
        cells.similarity(score.ssim_input),
        cells.similarity(score.ssim),
    ]


def _restored(restorer: Restorer, pixels: Pixels) -> Pixels:
    restorer.submit(Frame(pixels, index=0, pts=0, time_base=Fraction(1)))
    frame = restorer.collect()
    frames = [frame] if frame is not None else restorer.flush()
    if len(frames) != 1:
        raise InternalError(f"{restorer.name} gave {len(frames)} frames for one")
    return frames[0].pixels


def _check_sizes(pair: Pair, blurred: Pixels, sharp: Pixels) -> None:
    (height, width), (sharp_height, sharp_width) = blurred.shape[:2], sharp.shape[:2]
    if (height, width) != (sharp_height, sharp_width):
        raise DataError(
            f"'{pair.blurred}' is {width}x{height}, '{pair.sharp}' is {sharp_width}x{sharp_height}",
            expected="both images of a pair of one size",
            mend="crop or scale one of them, or remove the pair",
        )
    if min(height, width) < SSIM_WINDOW:
        raise DataError(
            f"'{pair.blurred}' is {width}x{height}",
            expected=f"at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, the window of SSIM",
            mend="remove the pair",
        )


def _side(folder: Path, names: Sequence[str]) -> Path:
    present = [folder / name for name in names if (folder / name).is_dir()]
    if len(present) != 1:
        found = "none of" if not present else "more than one of"
        raise DataError(
            f"'{folder}' has {found} the folders {', '.join(names)}",
            expected=_layout(),
            mend="name both sides with --blurred and --sharp",
        )
    return present[0]


def _layout() -> str:
    return f"a folder with {' or '.join(BLURRED_FOLDERS)} beside {' or '.join(SHARP_FOLDERS)} in it"


def _images(folder: Path) -> dict[str, Path]:
    images = {
        file.name: file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    }
    if not images:
        raise DataError(
            f"there is no image in '{folder}'",
            expected=f"files that end in {', '.join(SUFFIXES)}",
            mend="check the path",
        )
    return images
