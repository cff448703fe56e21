"""Blurred/sharp pairs on disk, for evaluation and for looking at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from edge_restore.errors import DataError, DependencyError
from edge_restore.files import atomic_path
from edge_restore.progress import Progress
from train.blur import BlurModel, expose
from train.pack import PHOTOS
from train.patches import MARGIN


def make(folder: Path, out: Path, *, severity: str, seed: int, count: int | None = None) -> int:
    """Blur every picture of `folder` into out/blurred and out/sharp, as PNG.

    The pairs are `MARGIN` pixels smaller on each side, where the blur would show a mirrored edge.

    The blur of a picture depends on the seed and on its place in the sorted folder alone, so that
    the same command gives the same pairs; they are described in out/pairs.json.

    Returns:
        How many pairs were written.

    Raises:
        DataError: no readable picture in the folder. OptionError: no such severity.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError("opencv-python", needed_for="reading pictures", extra="") from error
    model = BlurModel.of(severity)
    names = sorted(p for p in folder.glob("*") if p.suffix.lower() in PHOTOS)[:count]
    if not names:
        raise DataError(
            f"there is no picture in {folder}",
            expected=f"files ending in {', '.join(sorted(PHOTOS))}",
            mend="name a folder with photos",
        )
    for part in ("blurred", "sharp"):
        (out / part).mkdir(parents=True, exist_ok=True)
    written = 0
    with Progress(len(names), f"blurring ({severity})", unit="picture") as progress:
        for index, path in enumerate(names):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                progress.advance(1, f"{path.name} cannot be read: skipped")
                continue
            rgb = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1]))
            generator = torch.Generator().manual_seed(seed * 100_003 + index)
            sharp = rgb.permute(2, 0, 1)[None].float() / 255
            pair = expose(sharp, model, generator, margin=MARGIN)
            for part, image in (("blurred", pair.blurred), ("sharp", pair.sharp)):
                pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
                with atomic_path(out / part / f"{path.stem}.png") as temporary:
                    cv2.imwrite(str(temporary), pixels[..., ::-1])
            written += 1
            progress.advance()
    document = {"severity": severity, "seed": seed, "pictures": written, "blur": vars(model)}
    with atomic_path(out / "pairs.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{written} pairs in {out}")
    return written
