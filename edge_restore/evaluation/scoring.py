"""Quality of restored images over pairs of a blurred and a sharp one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_restore.backends.restorer import Restorer, restore_one
from edge_restore.errors import BackendError, DataError, ModelError, SinkError, shown
from edge_restore.evaluation.lpips import SMALLEST as LPIPS_SMALLEST
from edge_restore.evaluation.lpips import Lpips
from edge_restore.evaluation.pairs import Pair
from edge_restore.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from edge_restore.frames import Pixels
from edge_restore.media.images import read_image, write_png
from edge_restore.media.metrics import SSIM_WINDOW, Image
from edge_restore.report import cells
from edge_restore.storage.files import make_folder

_MEASURES = ("psnr_input", "ssim_input", "psnr", "ssim", "lpips_input", "lpips")
_COLUMNS = (
    "kind", "name", "severity", "width", "height", "psnr_input", "ssim_input", "psnr", "ssim",
    "gain", "lpips_input", "lpips", "remark",
)  # fmt: skip

DEFAULT = PROTOCOLS["mprnet"]


class _Measures:
    psnr_input: float
    psnr: float

    @property
    def gain(self) -> float:
        """What restoration added to PSNR, in dB; nan where both are infinite."""
        return self.psnr - self.psnr_input


@dataclass(frozen=True)
class ImageScore(_Measures):
    """One image's quality before (`_input`) and after, by a protocol; PSNR in dB, size in pixels.

    PSNR is infinite where the two images are equal. LPIPS (lower is nearer) is None where it was
    not asked for. `remark` is what the protocol has to say of the restored image.
    """

    name: str
    width: int
    height: int
    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float
    lpips_input: float | None = None
    lpips: float | None = None
    severity: str = ""
    remark: str = ""


@dataclass(frozen=True)
class MeanScore(_Measures):
    """The means of the images' values; each image counts once, whatever its size."""

    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float
    lpips_input: float | None
    lpips: float | None
    images: int


@dataclass
class Shortfall:
    """What an evaluation did not measure, and why.

    Attributes:
        images: how many it was to measure.
        left_out: name and reason of each image whose files cannot be used.
        stopped: why it did not come to the others; "" where it did.
    """

    images: int
    left_out: list[tuple[str, str]] = field(default_factory=list)
    stopped: str = ""

    def __bool__(self) -> bool:
        return bool(self.left_out or self.stopped)

    def line(self, measured: int) -> str:
        """In words: "incomplete: 37 of 50 images (1 left out; stopped: interrupted)"."""
        why = [f"{len(self.left_out)} left out"] if self.left_out else []
        why += [f"stopped: {self.stopped}"] if self.stopped else []
        return f"incomplete: {measured} of {self.images} images ({'; '.join(why)})"


def evaluate(
    pairs: Sequence[Pair],
    restorer: Restorer,
    save: Path | None = None,
    *,
    protocol: EvaluationProtocol = DEFAULT,
    lpips: Lpips | None = None,
    on_left_out: Callable[[Pair, DataError], None] | None = None,
    on_unsaved: Callable[[SinkError], None] | None = None,
) -> Iterator[ImageScore]:
    """Restore each pair's blurred image and compare it with the sharp one.

    Args:
        pairs: of images that have one size within a pair; pairs may differ.
        restorer: opened for each new size; the caller closes it.
        save: an existing folder for the restored images, as PNG.
        protocol: how to compare.
        lpips: also measured when given, on the pictures as the protocol sees them.
        on_left_out: called with a pair that cannot be used, and why, in place of raising; the
            other pairs are still measured.
        on_unsaved: called, in place of raising, when a restored image cannot be written; no
            further one is.

    Raises:
        DataError: an image cannot be read or is too small, or a pair's sizes differ.
        SinkError: a restored image cannot be written.
        BackendError, ModelError: the protocol needs unrounded pixels, which the restorer or its
            model does not give.
    """
    if protocol.unrounded:
        _check_unrounded(restorer, protocol)
    opened: tuple[int, int] | None = None
    for pair in pairs:
        try:
            blurred, sharp = read_pair(pair)
            if lpips:
                _check_lpips(pair, blurred)
        except DataError as error:
            if on_left_out is None:
                raise
            on_left_out(pair, error)
            continue
        height, width = blurred.shape[:2]
        if opened != (height, width):
            restorer.open(height, width)
            opened = height, width
        picture = restored(restorer, blurred, protocol)
        if save is not None:
            try:
                path = (save / pair.name).with_suffix(".png")
                write_png(make_folder(path.parent) / path.name, to_levels(picture))
            except SinkError as failure:
                if on_unsaved is None:
                    raise
                on_unsaved(failure)
                save = None
        before, after = protocol.measure(blurred, sharp), protocol.measure(picture, sharp)
        lpips_input = lpips_after = None
        if lpips:
            lpips_input, lpips_after = lpips.distances(sharp[0], (blurred, picture))
        yield ImageScore(
            pair.name, width, height, before.psnr, before.ssim, after.psnr, after.ssim,
            lpips_input, lpips_after, pair.severity, after.remark,
        )  # fmt: skip


def _check_lpips(pair: Pair, blurred: Pixels) -> None:
    height, width = blurred.shape[:2]
    if min(height, width) < LPIPS_SMALLEST:
        raise DataError(
            f"'{pair.blurred}' is {width}x{height}",
            expected=f"at least {LPIPS_SMALLEST}x{LPIPS_SMALLEST} pixels for LPIPS",
            hint="remove the pair, or leave --lpips out",
        )


def read_pair(pair: Pair) -> tuple[Pixels, list[Pixels]]:
    """The blurred image and its sharp frames.

    Raises:
        DataError: an image cannot be read or is too small, or the sizes differ.
    """
    blurred, sharp = read_image(pair.blurred), []
    for path in pair.sharp_frames():
        sharp.append(read_image(path))
        _check_sizes(pair.blurred, path, blurred, sharp[-1])
    return blurred, sharp


def restored(restorer: Restorer, blurred: Pixels, protocol: EvaluationProtocol = DEFAULT) -> Image:
    """The image restored: uint8, or float32 in [0, 1] where the protocol wants it unrounded.

    The restorer is open for the image's size.
    """
    if protocol.unrounded:
        return restorer.restore_unrounded(blurred)  # type: ignore[attr-defined, no-any-return]
    return restore_one(restorer, blurred)


def to_levels(picture: Image) -> Pixels:
    """The picture as uint8: float in [0, 1] is rounded to 255ths."""
    return picture if picture.dtype == np.uint8 else np.rint(picture * 255).astype(np.uint8)


def mean(scores: Sequence[ImageScore]) -> MeanScore:
    """The means over at least one image."""

    def over(measure: str) -> Any:
        values = [getattr(score, measure) for score in scores]
        return None if None in values else math.fsum(values) / len(values)

    means = {measure: over(measure) for measure in _MEASURES}
    return MeanScore(**means, images=len(scores))


def by_severity(scores: Sequence[ImageScore]) -> dict[str, MeanScore]:
    """The means of each level of severity, the lightest first: the one whose inputs are nearest to
    the truth. Empty where no level is known.
    """
    levels: dict[str, list[ImageScore]] = {}
    for score in scores:
        levels.setdefault(score.severity, []).append(score)
    means = {level: mean(its) for level, its in levels.items() if level}
    return dict(sorted(means.items(), key=lambda item: -item[1].psnr_input))


def below_input(scores: Sequence[ImageScore]) -> list[str]:
    """The names of the images whose PSNR restoration made smaller."""
    return [score.name for score in scores if score.psnr < score.psnr_input]


def as_csv(scores: Sequence[ImageScore], shortfall: Shortfall | None = None) -> str:
    """One line per image under a header, full precision; then one per severity, if any is known.

    The column `kind` tells them apart: "image", or "mean" of a severity's images. The mean of all
    is left to the reader. Where not all was measured, a line "left out" for each image that cannot
    be used and a last one, "incomplete", say so in the column `remark`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    means = [("mean", {"severity": k}, mean) for k, mean in by_severity(scores).items()]
    for kind, extra, row in [*(("image", {}, score) for score in scores), *means]:
        known = {column: getattr(row, column) for column in _COLUMNS if hasattr(row, column)}
        named = {**known, **extra}
        # UTF-8 has no place for the bytes of some file names, nor a line for their line breaks.
        named |= {k: shown(named[k]) for k in ("name", "severity", "remark") if k in named}
        writer.writerow({"kind": kind, **named})
    if shortfall:
        for name, reason in shortfall.left_out:
            writer.writerow({"kind": "left out", "name": shown(name), "remark": shown(reason)})
        writer.writerow({"kind": "incomplete", "remark": shown(shortfall.line(len(scores)))})
    return text.getvalue()


def as_table(scores: Sequence[ImageScore]) -> str:
    """One line per image, one per severity where it is known, and a last one with the means."""
    lpips, remarks = scores[0].lpips is not None, any(score.remark for score in scores)
    header = ["image", "size", "PSNR in", "PSNR out", "gain dB", "SSIM in", "SSIM out"]
    header += ["LPIPS in", "LPIPS out"] * lpips + ["  remark"] * remarks
    rows = [
        [shown(score.name), f"{score.width}x{score.height}", *_cells(score)]
        + [f"  {score.remark}"] * remarks
        for score in scores
    ]
    means = {f"mean of {shown(level)}": its for level, its in by_severity(scores).items()}
    for name, its in {**means, "mean": mean(scores)}.items():
        count = f"{its.images} images" if means else ""
        rows.append([name, count, *_cells(its)] + [""] * remarks)
    return cells.text_table(header, rows)


def below_input_line(scores: Sequence[ImageScore], greatest: int = 8) -> str:
    """How many images came out below their input, and which: the first `greatest` of them."""
    names = below_input(scores)
    if not names:
        return f"below the input: none of {len(scores)}"
    more = f" and {len(names) - greatest} more" if len(names) > greatest else ""
    first = ", ".join(shown(name) for name in names[:greatest])
    return f"below the input: {len(names)} of {len(scores)}: {first}{more}"


def _cells(score: ImageScore | MeanScore) -> list[str]:
    columns = [
        cells.decibels(score.psnr_input),
        cells.decibels(score.psnr),
        cells.gain(score.gain),
        cells.similarity(score.ssim_input),
        cells.similarity(score.ssim),
    ]
    if score.lpips is not None:
        columns += [cells.similarity(score.lpips_input), cells.similarity(score.lpips)]
    return columns


def _check_unrounded(restorer: Restorer, protocol: EvaluationProtocol) -> None:
    if not hasattr(restorer, "restore_unrounded"):
        raise BackendError(
            f"the backend {restorer.name} rounds to 8 bits; the protocol '{protocol.name}' "
            "measures before that",
            expected="a backend that gives unrounded pixels",
            hint="add --backend onnxruntime",
        )
    if restorer.card.form != "float":
        raise ModelError(
            f"the model '{restorer.card.name}' is of the form '{restorer.card.form}', whose graph "
            f"rounds to 8 bits; the protocol '{protocol.name}' measures before that",
            expected="a model of the form 'float'",
            hint=f"python -m export {restorer.card.network} --form float --weights W.safetensors "
            "--out M.onnx, then give --model M.onnx",
        )


def _check_sizes(blurred_path: Path, sharp_path: Path, blurred: Pixels, sharp: Pixels) -> None:
    (height, width), (sharp_height, sharp_width) = blurred.shape[:2], sharp.shape[:2]
    if (height, width) != (sharp_height, sharp_width):
        raise DataError(
            f"'{blurred_path}' is {width}x{height}, '{sharp_path}' is {sharp_width}x{sharp_height}",
            expected="both images of a pair of one size",
            hint="crop or scale one of them, or remove the pair",
        )
    if min(height, width) < SSIM_WINDOW:
        raise DataError(
            f"'{blurred_path}' is {width}x{height}",
            expected=f"at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, the window of SSIM",
            hint="remove the pair",
        )
