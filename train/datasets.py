"""Readers of published data sets of degraded/sharp pairs, in the layouts in which they come.

``gopro``, ``gopro_gamma`` (Nah et al., CVPR 2017; seungjunnah.github.io/Datasets/gopro)::

    GOPRO_Large/{train,test}/GOPR0372_07_00/{blur,blur_gamma,sharp}/000047.png

    A folder of train or test is a clip. Its numbers are consecutive exposures without a gap; the
    sharp picture is the frame in the middle of the 7 to 13 that were averaged. ``blur`` is the
    average of the code values, ``blur_gamma`` that with a gamma of 2.2 undone before and put back
    after. Papers use either: say which.

``hide`` (Shen et al., ICCV 2019; github.com/joanshen0508/HA_deblur)::

    HIDE_dataset/{train,test/test-close-ups,test/test-long-shot}/1fromGOPR0950.png   blurred
    HIDE_dataset/GT/1fromGOPR0950.png                                               sharp

``realblur_j``, ``realblur_r`` (Rim et al., ECCV 2020; github.com/rimchang/RealBlur)::

    RealBlur_J_{train,test}_list.txt     lines "SHARP BLURRED", paths relative to the list's folder
    RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene001/{gt/gt_1.png,blur/blur_1.png}

    R has RealBlur_R_*_list.txt and RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref. A scene's
    pictures were taken one by one: they are no consecutive frames.

``sidd`` (Abdelhamed et al., CVPR 2018), sRGB of the Small or the Medium set::

    SIDD_Medium_Srgb/Data/0001_001_S6_00100_00060_3200_L/0001_{GT,NOISY}_SRGB_010.PNG
    SIDD_Small_sRGB_Only/Data/0001_001_S6_00100_00060_3200_L/{GT,NOISY}_SRGB_010.PNG

    All of it is for training; the validation and benchmark blocks are MATLAB files, which are not
    read here.

``rain13k`` (Jiang et al., CVPR 2020, in the folders of github.com/swz30/MPRNet)::

    train/Rain13K/{input,target}/1.jpg
    test/{Test100,Rain100H,Rain100L,Test2800,Test1200}/{input,target}/1.png

``pairs``: any two folders beside each other called as in `COUPLES`, searched recursively, with
pictures of the same names (suffixes may differ), either in the root (split "train") or in folders
train, val, validation and test below it; as many published repackagings have it.

Everything is sorted, numbers by value. Names without a counterpart are one error that names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_restore.errors import DataError
from edge_restore.frames import Pixels
from edge_restore.media.images import SUFFIXES, ImageError, read_image
from edge_restore.storage.plain_file import Kind, read_plain

COUPLES = (
    ("blurred", "sharp"), ("blur", "sharp"), ("blur", "gt"), ("input", "target"), ("lq", "gt"),
)  # fmt: skip
"""Names of the folders of a `pairs` data set: degraded, sharp."""

_SHOWN = 8

_LIST = Kind(
    "RealBlur's list",
    'UTF-8 text with lines "SHARP BLURRED"',
    "unpack the data set anew",
)
_MAX_LIST_BYTES = 16 << 20
_MAX_PATH = 4096


@dataclass(frozen=True)
class Pair:
    """A degraded picture and its truth.

    Attributes:
        name: unique in its data set, such as "GOPR0372_07_00/000047".
        degraded, sharp: the two files.
        split: "train", "validation" or "test".
        sequence: the clip, scene or subset that it belongs to; "" for none.
        number: its place in a clip; None where the set has no consecutive frames.
        previous, next: the sharp frames one number before and after it, where there are such.
    """

    name: str
    degraded: Path
    sharp: Path
    split: str
    sequence: str = ""
    number: int | None = None
    previous: Path | None = None
    next: Path | None = None


def _natural(text: str) -> list[tuple[int, str]]:
    """A sorting key by which "2" comes before "10"."""
    parts = re.split(r"(\d{1,400})", text)  # Python reads no number of more than 4300 digits
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by relative path without suffix; empty when it is missing.

    Raises:
        DataError: two pictures differ in their suffixes alone.
    """
    found = (p for p in folder.rglob("[!.]*") if p.suffix.lower() in SUFFIXES)
    pictures: dict[str, Path] = {}
    for path in sorted(found):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in pictures:
            raise DataError(
                f"'{pictures[name]}' and '{path}' have one name but for their suffixes",
                expected="one picture of each name on each side",
                hint="rename one of them, or move it away",
            )
        pictures[name] = path
    return pictures


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@dataclass
class _Found:
    """What a reader has found so far."""

    pairs: list[Pair] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    """Files without a counterpart, as the error will name them."""

    def match(
        self, degraded: Mapping[str, Path], sharp: Mapping[str, Path], split: str,
        sequence: str = "", *, consecutive: bool = False, spare_sharp: bool = False,
    ) -> None:  # fmt: skip
        """Pair what has the same name; `spare_sharp` may be without a degraded picture."""
        where = f"{sequence}/" if sequence else ""
        by_number = {int(name): path for name, path in sharp.items() if consecutive}
        for name in sorted(degraded, key=_natural):
            if name not in sharp:
                self.alone.append(str(degraded[name]))
                continue
            place: tuple[int | None, Path | None, Path | None] = (None, None, None)
            if consecutive:
                number = int(name)
                place = number, by_number.get(number - 1), by_number.get(number + 1)
            pair = Pair(where + name, degraded[name], sharp[name], split, sequence, *place)
            self.pairs.append(pair)
        if not spare_sharp:
            self.alone += [
                str(sharp[name]) for name in sorted(sharp, key=_natural) if name not in degraded
            ]


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in root.glob("*") if p.is_dir()), key=lambda p: _natural(p.name))


def _gopro(root: Path, found: _Found, blurred: str = "blur") -> None:
    for split in ("train", "test"):
        for clip in _folders(root / split):
            degraded, sharp = _pictures(clip / blurred), _pictures(clip / "sharp")
            odd = [str(p) for n, p in (*degraded.items(), *sharp.items()) if not n.isdecimal()]
            if odd:
                raise DataError(
                    f"{len(odd)} frame(s) without a number: {_some(odd)}",
                    expected="frames called by their numbers, such as 000047.png",
                    hint="unpack GOPRO_Large.zip anew, or read these folders with --dataset pairs",
                )
            found.match(degraded, sharp, split, clip.name, consecutive=True)


def _hide(root: Path, found: _Found) -> None:
    sharp = _pictures(root / "GT")
    used: set[str] = set()
    for split, folder in (
        ("train", "train"), ("test", "test/test-close-ups"), ("test", "test/test-long-shot"),
    ):  # fmt: skip
        degraded = _pictures(root / folder)
        sequence = Path(folder).name if split == "test" else ""
        found.match(degraded, sharp, split, sequence, spare_sharp=True)
        used |= degraded.keys()
    if found.pairs:
        found.alone += [str(sharp[name]) for name in sharp if name not in used]


def _realblur(root: Path, found: _Found, kind: str = "J") -> None:
    for split in ("train", "test"):
        listing = root / f"RealBlur_{kind}_{split}_list.txt"
        if not listing.exists():
            continue
        try:
            lines = read_plain(listing, _LIST, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise _LIST.unusable(
                listing, f"it is not UTF-8 text ({error.reason} at byte {error.start})"
            ) from None
        for line in sorted(lines, key=_natural):
            if not line.strip():
                continue
            # The lists of some mirrors have a third column.
            sharp, degraded = (root / part for part in (*line.split(), "")[:2])
            missing = [str(path)[:_MAX_PATH] for path in (degraded, sharp) if not _is_file(path)]
            found.alone += missing
            if not missing:
                scene = degraded.parent.parent.name
                name = f"{scene}/{degraded.stem}"
                found.pairs.append(Pair(name, degraded, sharp, split, scene))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def _sidd(root: Path, found: _Found) -> None:
    folder = root / "Data" if (root / "Data").is_dir() else root
    for scene in _folders(folder):
        files = _pictures(scene)
        sides = {
            mark: {n.replace(mark, ""): p for n, p in files.items() if mark in n}
            for mark in ("NOISY_SRGB_", "GT_SRGB_")
        }
        found.match(sides["NOISY_SRGB_"], sides["GT_SRGB_"], "train", scene.name)


def _rain13k(root: Path, found: _Found) -> None:
    for split in ("train", "test"):
        for subset in _folders(root / split):
            sides = _pictures(subset / "input"), _pictures(subset / "target")
            found.match(*sides, split, subset.name)


def _plain(root: Path, found: _Found) -> None:
    for split in ("", "train", "val", "validation", "test"):
        folder = root / split
        couples = [c for c in COUPLES if all((folder / side).is_dir() for side in c)]
        if len(couples) > 1:
            raise DataError(
                f"{folder} has more than one couple of folders: "
                + "; ".join(" and ".join(couple) for couple in couples),
                expected="one of them",
                hint="move the other one away",
            )
        for degraded, sharp in couples:
            name = {"": "train", "val": "validation"}.get(split, split)
            found.match(_pictures(folder / degraded), _pictures(folder / sharp), name)


_READERS: dict[str, tuple[Callable[[Path, _Found], None], str]] = {
    "gopro": (_gopro, "{train,test}/CLIP/{blur,sharp}/000047.png"),
    "gopro_gamma": (
        lambda root, found: _gopro(root, found, "blur_gamma"),
        "{train,test}/CLIP/{blur_gamma,sharp}/000047.png",
    ),
    "hide": (_hide, "train, test/test-close-ups, test/test-long-shot and GT with pictures"),
    "realblur_j": (
        lambda root, found: _realblur(root, found, "J"),
        "RealBlur_J_train_list.txt or RealBlur_J_test_list.txt with the pictures that it names",
    ),
    "realblur_r": (
        lambda root, found: _realblur(root, found, "R"),
        "RealBlur_R_train_list.txt or RealBlur_R_test_list.txt with the pictures that it names",
    ),
    "sidd": (_sidd, "Data/SCENE/*NOISY_SRGB_010.PNG and *GT_SRGB_010.PNG"),
    "rain13k": (_rain13k, "{train,test}/SUBSET/{input,target}/1.jpg"),
    "pairs": (_plain, "two folders: " + " or ".join("/".join(couple) for couple in COUPLES)),
}

DATASETS = tuple(_READERS)
"""The names that `read` knows."""


def read(dataset: str, root: Path) -> list[Pair]:
    """All pairs of a data set, sorted by split, sequence and name.

    The pictures themselves are not opened; `PairImages` does that.

    Args:
        dataset: one of `DATASETS`.
        root: the folder that the layout in this module's docstring begins with.

    Raises:
        DataError: no such data set, no pair in its layout, or pictures without a counterpart.
    """
    if dataset not in _READERS:
        raise DataError(
            f"no data set is called '{dataset}'",
            expected="one of: " + ", ".join(DATASETS),
            hint="choose one of these names; 'pairs' reads any two folders with equal names",
        )
    reader, layout = _READERS[dataset]
    found = _Found()
    reader(root, found)
    if found.alone:
        raise DataError(
            f"{len(found.alone)} picture(s) of {root} have no counterpart: {_some(found.alone)}",
            expected="the same names on the degraded and on the sharp side, and all listed files",
            hint="complete the data set (unpack it anew), or remove the pictures named above",
        )
    if not found.pairs:
        raise DataError(
            f"{root} has no pair of {dataset}",
            expected=f"{layout} in it",
            hint="name the folder that holds these, or read the layout in train/datasets.py",
        )
    return found.pairs


class PairImages:
    """Opens pairs one by one: iterate for (pair, degraded, sharp), RGB uint8 of equal sizes.

    A picture that cannot be read, or that is small, leaves its pair out: see `skipped`.

    Raises:
        DataError: at the end of the iteration, when sizes differ within pairs; it names them all.
    """

    def __init__(self, pairs: list[Pair], *, smallest: int = 192) -> None:
        self._pairs, self._smallest = pairs, smallest
        self.skipped: list[str] = []
        """Names of the pairs left out so far, each with the reason."""

    def __iter__(self) -> Iterator[tuple[Pair, Pixels, Pixels]]:
        unequal = []
        for pair in self._pairs:
            try:
                degraded, sharp = read_image(pair.degraded), read_image(pair.sharp)
            except ImageError as error:
                self.skipped.append(f"{pair.name} ({error.problem})")
                continue
            if degraded.shape != sharp.shape:
                sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (degraded, sharp))
                unequal.append(f"{pair.name} ({sizes})")
                continue
            if min(sharp.shape[:2]) < self._smallest:
                self.skipped.append(f"{pair.name} (smaller than {self._smallest} pixels)")
                continue
            yield pair, degraded, sharp
        if unequal:
            raise DataError(
                f"{len(unequal)} pair(s) of unequal sizes: {_some(unequal)}",
                expected="degraded and sharp picture of one size",
                hint="remove or replace the pairs named above",
            )
