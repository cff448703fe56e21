"""Pairs of a blurred and a sharp image on disk, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_restore.errors import DataError
from edge_restore.media.images import SUFFIXES, image_files, images_in
from edge_restore.storage.files import check_readable, reading
from edge_restore.storage.json_file import abridged, read_json
from edge_restore.storage.outputs import Input, InputFolder
from edge_restore.storage.plain_file import Kind

BLURRED_FOLDERS = ("blurred", "blur", "input")
SHARP_FOLDERS = ("sharp", "gt", "target")

DESCRIPTION = "pairs.json"
"""What `python -m train blur` writes beside the folders: how they were blurred."""


_KIND = Kind(
    "a description of pairs",
    "the file that `python -m train blur` wrote, with the severity in words",
    "remove the file, or write the pairs anew",
    DataError,
)
_MAX_SEVERITY = 200


@dataclass(frozen=True)
class Pair:
    """Files that show the same: one to restore, and the truth.

    Attributes:
        name: the blurred file's, after the subfolder's where there are several.
        blurred: an image.
        sharp: an image; or, where trajectories are looked for, a folder of images.
        severity: how strong the blur is, in the words of the folder; "" where it does not say.
    """

    name: str
    blurred: Path
    sharp: Path
    severity: str = ""

    def sharp_frames(self) -> list[Path]:
        """The truth's frames, sorted by name: one, unless `sharp` is a folder.

        Raises:
            DataError: the folder holds no image.
        """
        if self.sharp.is_dir():
            return sorted(images_in(self.sharp).values())
        return [self.sharp]


def find_pairs(folder: Path, *, trajectories: bool = False) -> list[Pair]:
    """The pairs in ``folder/blurred`` (or blur, input) and ``folder/sharp`` (or gt, target).

    Where the folder has neither, its subfolders are looked into: those that hold such folders are
    levels of severity, and the pairs are called ``LEVEL/NAME``. A file pairs.json that names a
    "severity" says what the level is called; else it is the subfolder's name.

    Args:
        folder: the pairs' folder.
        trajectories: whether the truth of an image may be a folder of frames, see `match_pairs`.

    Raises:
        DataError: the folder does not exist or has another layout, pairs.json is malformed, or as
            `match_pairs`.
    """
    check_readable(folder, "the pairs' folder")
    with reading("the pairs' folder", folder):
        return _found_pairs(folder, trajectories)


def match_pairs(blurred: Path, sharp: Path, *, trajectories: bool = False) -> list[Pair]:
    """The pairs of two files, or of two folders whose files have equal names, sorted by name.

    Args:
        blurred: an image, or a folder of images.
        sharp: likewise.
        trajectories: whether the truth of ``NAME.png`` may also be the images in the folder
            ``NAME``, and that of a single image a folder.

    Raises:
        DataError: a side is missing or empty, one is a file and the other a folder, or a name is
            on one side only.
    """
    for side in (blurred, sharp):
        check_readable(side, "the images")
    with reading("the images", blurred):
        return _matched(blurred, sharp, trajectories)


def _found_pairs(folder: Path, trajectories: bool) -> list[Pair]:
    if not folder.is_dir():
        raise DataError(
            f"'{folder}' {'is not a folder' if folder.exists() else 'does not exist'}",
            expected=_layout(),
            hint="check the path, or name both sides with --blurred and --sharp",
        )
    levels = [] if _has_sides(folder) else sorted(filter(_has_sides, folder.iterdir()))
    pairs = []
    for level in levels or [folder]:
        prefix, severity = (f"{level.name}/", level.name) if levels else ("", "")
        severity = _severity(level / DESCRIPTION) or severity
        blurred, sharp = _side(level, BLURRED_FOLDERS), _side(level, SHARP_FOLDERS)
        pairs += [
            Pair(f"{prefix}{pair.name}", pair.blurred, pair.sharp, severity)
            for pair in match_pairs(blurred, sharp, trajectories=trajectories)
        ]
    return pairs


def _matched(blurred: Path, sharp: Path, trajectories: bool) -> list[Pair]:
    for side in (blurred, sharp):
        if not side.exists():
            raise DataError(
                f"'{side}' does not exist", expected="an image or a folder", hint="check the path"
            )
    if blurred.is_file() and (sharp.is_file() or trajectories):
        pair = Pair(blurred.name, blurred, sharp)
        pair.sharp_frames()
        return [pair]
    if blurred.is_file() or sharp.is_file():
        raise DataError(
            f"one of '{blurred}' and '{sharp}' is a file and the other a folder",
            expected="two images or two folders",
            hint="name both sides alike",
        )
    left = images_in(blurred)
    folders = {file.name: file for file in sharp.iterdir() if trajectories and file.is_dir()}
    right = {} if folders and not image_files(sharp) else images_in(sharp)
    for name, file in left.items():
        if name not in right and file.stem in folders:
            right[name] = folders.pop(file.stem)
    if alone := [
        *(f"{name} (only in {blurred})" for name in sorted(left.keys() - right.keys())),
        *(f"{name} (only in {sharp})" for name in sorted(right.keys() - left.keys())),
        *(f"{name} (only in {sharp})" for name in sorted(folders)),
    ]:
        more = f"\n    and {len(alone) - 8} more" if len(alone) > 8 else ""
        raise DataError(
            "images without a partner:" + "".join(f"\n    {name}" for name in alone[:8]) + more,
            expected="equal file names on both sides"
            + (", or a folder of frames with the image's name" if trajectories else ""),
            hint="rename the files, or remove those without a partner",
        )
    return [Pair(name, left[name], right[name]) for name in sorted(left)]


def as_inputs(pairs: Sequence[Pair], *, folders: bool = True) -> list[Input]:
    """What reading the pairs reads, for `outputs.check_outputs`.

    Args:
        folders: whether the images were found in their folders, where a new one would be found too.
    """
    sides = [side for pair in pairs for side in (pair.blurred, pair.sharp)]
    whole = {side for side in sides if side.is_dir()}
    if folders:
        whole |= {side.parent for side in sides}
    descriptions = sorted({folder.parent / DESCRIPTION for folder in whole})
    return [
        *(("the pairs' images", side) for side in sides if side.is_file()),
        *(("the pairs' images", InputFolder(folder, SUFFIXES)) for folder in sorted(whole)),
        *(("the pairs' description", file) for file in descriptions),
    ]


def spread(pairs: Sequence[Pair], count: int | None) -> Sequence[Pair]:
    """`count` of the pairs, evenly spread from the first to the last; all for None, or too many."""
    if count is None or count >= len(pairs):
        return pairs
    step = (len(pairs) - 1) / max(count - 1, 1)
    return [pairs[round(i * step)] for i in range(count)]


def _severity(description: Path) -> str:
    """What the description calls the severity; "" where it or the file is missing."""
    if not description.is_file():
        return ""
    document = read_json(description, _KIND)
    if not isinstance(document, dict):
        raise _KIND.unusable(description, "it is no JSON object")
    severity = document.get("severity", "")
    if not isinstance(severity, str) or len(severity) > _MAX_SEVERITY:
        raise _KIND.unusable(description, f"it gives the severity {abridged(severity)}")
    return severity


def _has_sides(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in (*BLURRED_FOLDERS, *SHARP_FOLDERS))


def _side(folder: Path, names: Sequence[str]) -> Path:
    present = [folder / name for name in names if (folder / name).is_dir()]
    if len(present) != 1:
        found = "none of" if not present else "more than one of"
        raise DataError(
            f"'{folder}' has {found} the folders {', '.join(names)}",
            expected=_layout(),
            hint="name both sides with --blurred and --sharp",
        )
    return present[0]


def _layout() -> str:
    return f"a folder with {' or '.join(BLURRED_FOLDERS)} beside {' or '.join(SHARP_FOLDERS)} in it"
