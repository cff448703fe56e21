"""A training pack: sharp pictures from photos and clips, decoded once into one .npz file.

A pack is made on a workstation with OpenCV and read with numpy alone, so a training machine needs
no decoder. Photos and clip frames are reduced by area averaging, which makes every pixel sharp.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_restore.errors import DataError, DependencyError
from edge_restore.files import atomic_path, sha256

SCHEMA = "edge_restore.training_pack/1"
PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
CLIPS = {".mp4", ".mov", ".mkv", ".avi", ".webm"}

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pack:
    """Sharp pictures by split.

    Attributes:
        train, validation: RGB uint8 arrays (H, W, 3).
        files: where they came from, by split.
        sha256: of the pack's file.
    """

    train: list[Picture]
    validation: list[Picture]
    files: dict[str, list[str]]
    sha256: str


def _reduce(picture: Picture, longest: int) -> Picture:
    import cv2

    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _frames(path: Path, count: int) -> Iterable[Picture]:
    """`count` frames evenly spread over a clip, RGB; the sharpest of five neighbours each."""
    import cv2

    clip = cv2.VideoCapture(str(path))
    total = int(clip.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {round((i + 0.5) * total / count) for i in range(count)}
    best: dict[int, tuple[float, Picture]] = {}
    for index in range(total):
        ok, picture = clip.read()
        if not ok:
            break
        near = min(wanted, key=lambda w: abs(w - index))
        if abs(near - index) <= 2:
            grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            score = float(cv2.Laplacian(grey, cv2.CV_32F).var())
            if near not in best or score > best[near][0]:
                best[near] = (score, np.asarray(picture[..., ::-1], dtype=np.uint8))
    clip.release()
    return [best[index][1] for index in sorted(best)]


def make(
    folders: list[Path], out: Path, *, exclude: set[str], validation: set[str],
    longest: int = 1600, longest_clip: int = 960, frames: int = 6, smallest: int = 192,
) -> dict[str, list[str]]:  # fmt: skip
    """Pack every photo and clip below `folders` into `out`.

    Args:
        folders: searched recursively.
        out: the .npz file to write.
        exclude, validation: file names to leave out, or to keep for validation.
        longest, longest_clip: longest side after reduction, in pixels, of photos and clip frames.
        frames: taken from each clip.
        smallest: pictures with a shorter side below this, after reduction, are skipped.

    Returns:
        File names by split: train, validation, and what was skipped (with the reason).

    Raises:
        DataError: nothing usable, or a name to exclude or validate on that is not there.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError("opencv-python", needed_for="packing photos", extra="") from error
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.is_file())
    paths = [p for p in paths if p.suffix.lower() in PHOTOS | CLIPS]
    missing = (exclude | validation) - {p.name for p in paths}
    if missing:
        raise DataError(
            f"no file is called {', '.join(sorted(missing))} below {', '.join(map(str, folders))}",
            expected="--exclude and --validation to name files that are there",
            mend="give the names with their suffixes, without folders",
        )
    arrays: dict[str, Picture] = {}
    files: dict[str, list[str]] = {"train": [], "validation": [], "skipped": []}
    for path in paths:
        if path.name in exclude:
            files["skipped"].append(f"{path.name} (excluded)")
            continue
        if path.suffix.lower() in CLIPS:
            pictures = [_reduce(frame, longest_clip) for frame in _frames(path, frames)]
        else:
            read = cv2.imread(str(path), cv2.IMREAD_COLOR)
            rgb = None if read is None else np.asarray(read[..., ::-1], dtype=np.uint8)
            pictures = [] if rgb is None else [_reduce(rgb, longest)]
        if not pictures:
            files["skipped"].append(f"{path.name} (cannot be read)")
            continue
        pictures = [p for p in pictures if min(p.shape[:2]) >= smallest]
        if not pictures:
            files["skipped"].append(f"{path.name} (smaller than {smallest} pixels)")
            continue
        split = "validation" if path.name in validation else "train"
        files[split].append(path.name)
        for picture in pictures:
            arrays[f"{split}_{len(arrays):05d}"] = np.ascontiguousarray(picture)
    if not files["train"]:
        raise DataError(
            f"no usable photo or clip below {', '.join(map(str, folders))}",
            expected=f"pictures of {smallest} pixels or more, {', '.join(sorted(PHOTOS | CLIPS))}",
            mend="name a folder that holds some",
        )
    header = json.dumps({"schema": SCHEMA, "files": files})
    with atomic_path(out) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, header=np.frombuffer(header.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return files


def load(path: Path) -> Pack:
    """Read a pack into memory.

    Raises:
        DataError: missing, or not a pack.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(bytes(archive["header"]))
            if header["schema"] != SCHEMA:
                raise ValueError(f"schema is {header['schema']}")
            split = {
                name: [archive[key] for key in archive.files if key.startswith(name)]
                for name in ("train", "validation")
            }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a training pack ({error})",
            expected="a file written by 'python -m train pack'",
            mend=f"python -m train pack PHOTOS --out {path}",
        ) from error
    return Pack(split["train"], split["validation"], header["files"], sha256(path))
