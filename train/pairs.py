"""Degraded/sharp pairs on disk, for evaluation and for looking at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from edge_restore.errors import DataError
from edge_restore.evaluation.pairs import DESCRIPTION
from edge_restore.frames import Pixels
from edge_restore.media.images import ImageError, output_names, read_image, write_png
from edge_restore.progress import Progress
from edge_restore.storage.files import make_folder, write_text
from edge_restore.storage.json_file import encode
from edge_restore.storage.outputs import InputFolder, check_outputs
from train.pack import PHOTOS
from train.packing import reduce
from train.simulator.compression import h264
from train.simulator.degradation import Degradation

_FOLDERS = {"deblur": "blurred", "denoise": "input", "derain": "input"}
_SHOWN = 8
_TRUTH = {"deblur": "sharp", "denoise": "target", "derain": "target"}


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """How pictures are degraded.

    Attributes:
        severity: "light", "medium" or "heavy".
        seed: of the simulator.
        task: "deblur", "denoise" or "derain".
        trajectory: of the blur (train/simulator/trajectories.py).
        jpeg: compress the degraded side at the same severity.
        crf: pass each degraded picture through H.264 of this rate factor.
        longest: reduce larger pictures to this many pixels on their longer side first.
    """

    severity: str
    seed: int
    task: str = "deblur"
    trajectory: str = "walk"
    jpeg: bool = False
    crf: int | None = None
    longest: int | None = None


def make(folder: Path, out: Path, options: PairOptions, *, count: int | None = None) -> int:
    """Blur every picture of `folder` into out/blurred and out/sharp, as PNG.

    For the tasks "denoise" and "derain" the folders are out/input and out/target. Blurred pairs are
    `train.blur.MARGIN` pixels smaller on each side, where the blur would show a mirrored edge.

    The degradation of a picture depends on the seed and on its place in the sorted folder alone, so
    that the same command gives the same pairs; they are described in out/pairs.json.

    Args:
        folder: of sharp pictures.
        out: folder to write to.
        options: how they are degraded.
        count: the first so many pictures.

    Returns:
        How many pairs were written.

    Raises:
        DataError: no picture in the folder, or two that would be written to one name; and at the
            end, when the others are written, pictures that cannot be read.
        OptionError: no such severity, task or trajectory, or an impossible rate factor.
    """
    degradation = Degradation.of(
        options.task, options.severity, trajectory=options.trajectory, jpeg=options.jpeg
    )
    names = sorted(p for p in folder.glob("*") if p.suffix.lower() in PHOTOS)[:count]
    if not names:
        raise DataError(
            f"there is no picture in {folder}",
            expected=f"files ending in {', '.join(sorted(PHOTOS))}",
            hint="name a folder with photos",
        )
    made = output_names(path.name for path in names)
    parts = _FOLDERS[options.task], _TRUTH[options.task]
    check_outputs(
        [
            ("--out:", out / DESCRIPTION),
            *(("--out:", out / part / name) for part in parts for name in made.values()),
        ],
        [("FOLDER", InputFolder(folder, PHOTOS))],
        folders=[("--out", out)],
    )
    for part in parts:
        make_folder(out / part)
    written, unread = 0, []
    with Progress(len(names), f"{options.task} ({options.severity})", unit="picture") as progress:
        for index, path in enumerate(names):
            try:
                picture = read_image(path)
            except ImageError as error:
                unread.append(f"'{path.name}' {error.problem}")
                progress.advance()
                continue
            degraded, truth = _degraded(picture, degradation, options, index)
            for part, pixels in zip(parts, (degraded, truth), strict=True):
                write_png(out / part / made[path.name], pixels)
            written += 1
            progress.advance()
    document = {
        "severity": options.severity, "seed": options.seed, "pictures": written,
        "h264_crf": options.crf, "longest": options.longest,
        **dataclasses.asdict(degradation),
    }  # fmt: skip
    write_text(out / DESCRIPTION, encode(document, indent=1) + "\n")
    print(f"{written} pairs in {out}")
    if unread:
        more = f"\n    and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
        raise DataError(
            f"{len(unread)} of {len(names)} pictures were left out:"
            + "".join(f"\n    {line}" for line in unread[:_SHOWN])
            + more,
            expected="pictures that can be read, whole",
            hint="save them anew with an image program, or move them away; the others are written",
        )
    return written


def _degraded(
    picture: Pixels, degradation: Degradation, options: PairOptions, index: int
) -> tuple[Pixels, Pixels]:
    """The picture degraded, and the truth; `index` is its place in the folder."""
    if options.longest is not None:
        picture = reduce(picture, options.longest)
    rgb = torch.from_numpy(np.ascontiguousarray(picture))
    generator = torch.Generator().manual_seed(options.seed * 100_003 + index)
    sharp = rgb.permute(2, 0, 1)[None].float() / 255
    pair = degradation.apply(sharp, generator)
    degraded, truth = (
        (image[0] * 255).round().byte().permute(1, 2, 0).numpy() for image in pair[:2]
    )
    if options.crf is not None:
        (degraded,) = h264([degraded], options.crf)
    return degraded, truth
