"""Making a pack: photos and clips reduced to sharp pixels, data sets of pairs as they are.

Photos and clip frames are reduced by area averaging, which makes every pixel sharp. Pairs keep
their size: reducing them would change their degradation.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from edge_restore.errors import DataError, SourceError
from edge_restore.frames import Pixels
from edge_restore.media.images import ImageError, read_image
from edge_restore.progress import Progress
from edge_restore.storage.files import atomic_path, check_writable
from train import datasets
from train.pack import CLIPS, PHOTOS, Picture, Place, Writer
from train.simulator.compression import h264

Files = dict[str, list[str]]

_SHOWN = 8


@dataclass(frozen=True)
class Names:
    """Which files, pairs or sequences are left out, and which are kept for validation.

    Without any for validation, a data set's own validation split is, or its last sequences, a
    fiftieth of it.
    """

    exclude: Set[str] = frozenset()
    validation: Set[str] = frozenset()


@dataclass(frozen=True)
class Reduction:
    """What becomes of photos and clips.

    Attributes:
        longest: longest side of a photo after reduction, in pixels.
        longest_clip: the same of a clip's frames.
        frames: taken from each clip.
        neighbours: take the frames right before and after each of these, too.
        smallest: pictures, also those of a data set, with a shorter side below this are skipped.
    """

    longest: int = 1600
    longest_clip: int = 960
    frames: int = 6
    neighbours: bool = False
    smallest: int = 192


@dataclass(frozen=True)
class DataSet:
    """A data set of pairs.

    Attributes:
        name: one of `train.datasets.DATASETS`.
        split: "train", "validation", "test" or "all".
        photos: folders of photos and clips to pack beside the pairs, for training.
        crf: the degraded pictures pass H.264 of this constant rate factor.
    """

    name: str
    split: str = "train"
    photos: Sequence[Path] = ()
    crf: int | None = None


def reduce(picture: Picture, longest: int) -> Picture:
    """The picture with no side longer than `longest` pixels, by area averaging."""
    import cv2

    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _frames(path: Path, count: int, neighbours: bool) -> tuple[list[tuple[int, Picture]], str]:
    """`count` frames evenly spread over a clip, by number; the sharpest of five neighbours each.

    With `neighbours` the frames right before and after each come, too. Also what is wrong with the
    clip; empty when nothing is.
    """
    import cv2

    from edge_restore.sources import open_source

    best: dict[int, tuple[float, int]] = {}
    kept: dict[int, Picture] = {}
    try:
        with open_source(path) as source:
            total = source.info.frames or sum(1 for _ in source)
            wanted = {round((i + 0.5) * total / count) for i in range(count)}
            for frame in source:
                near = min(wanted, key=lambda w: abs(w - frame.index))
                distance = abs(near - frame.index)
                if distance > 2 + neighbours:
                    continue
                kept[frame.index] = frame.pixels
                if distance <= 2:
                    grey = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
                    score = float(cv2.Laplacian(grey, cv2.CV_32F).var())
                    if near not in best or score > best[near][0]:
                        best[near] = (score, frame.index)
            wrong = "; ".join(source.warnings)
    except SourceError as error:
        wrong = error.found
    chosen = {index for _, index in best.values()}
    if neighbours:
        chosen |= {index + step for index in chosen for step in (-1, 1)}
    return [(index, kept[index]) for index in sorted(chosen & kept.keys())], wrong


@dataclass(frozen=True)
class _Packing:
    """A pack that is being written."""

    writer: Writer
    files: Files
    splits: _Splits


def _photos(packing: _Packing, folders: Sequence[Path], names: Names, reduction: Reduction) -> None:
    files = packing.files
    # A dangling link and a folder with the name of a picture are taken, too: they are named among
    # what was skipped.
    paths = sorted(p for folder in folders for p in folder.rglob("*"))
    paths = [p for p in paths if p.suffix.lower() in PHOTOS | CLIPS]
    missing = (names.exclude | names.validation) - {p.name for p in paths}
    if missing:
        raise DataError(
            f"no file is called {', '.join(sorted(missing))} below {', '.join(map(str, folders))}",
            expected="--exclude and --validation to name files that are there",
            hint="give the names with their suffixes, without folders",
        )
    for number, path in enumerate(paths):
        if path.name in names.exclude:
            files["skipped"].append(f"{path.name} (excluded)")
            continue
        if path.suffix.lower() in CLIPS and not path.is_file():
            files["skipped"].append(f"{path.name} (no plain file)")
            continue
        pictures: list[tuple[Picture, Place | None]]
        if path.suffix.lower() in CLIPS and path.is_file():
            clip = f"{number} {path.name}"
            shots, wrong = _frames(path, reduction.frames, reduction.neighbours)
            pictures = [
                (reduce(shot, reduction.longest_clip), Place(clip, index)) for index, shot in shots
            ]
            if wrong:
                files["skipped"].append(f"{path.name} ({'in part: ' * bool(pictures)}{wrong})")
                if not pictures:
                    continue
        else:
            try:
                pictures = [(reduce(read_image(path), reduction.longest), None)]
            except ImageError as error:
                files["skipped"].append(f"{path.name} ({error.problem})")
                continue
        if not pictures:
            files["skipped"].append(f"{path.name} (cannot be read)")
            continue
        pictures = [entry for entry in pictures if min(entry[0].shape[:2]) >= reduction.smallest]
        if not pictures:
            files["skipped"].append(f"{path.name} (smaller than {reduction.smallest} pixels)")
            continue
        split = "validation" if path.name in names.validation else "train"
        files[split].append(path.name)
        for picture, place in pictures:
            packing.writer.picture(split, picture, place)
            packing.splits.add(split, path.name, picture)
    if not files["train"]:
        raise DataError(
            f"no usable photo or clip below {', '.join(map(str, folders))}",
            expected=f"pictures of {reduction.smallest} pixels or more, "
            + ", ".join(sorted(PHOTOS | CLIPS)),
            hint="name a folder that holds some",
        )


class _Splits:
    """Which sharp pictures went into which split, by their pixels."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}
        self.shared: list[str] = []
        """Pictures that are in both splits, as "this and that"."""

    def add(self, split: str, name: str, sharp: Pixels) -> None:
        digest = hashlib.sha256(repr(sharp.shape).encode() + sharp.tobytes()).digest()
        other, first = self._first.setdefault(digest, (split, name))
        if other != split:
            self.shared.append(f"{first} and {name}")

    def warn(self) -> None:
        if self.shared:
            more = f" and {len(self.shared) - _SHOWN} more" if len(self.shared) > _SHOWN else ""
            print(
                "train: warning: the same picture is trained on and validated on, so that the "
                f"validation says too much: {'; '.join(self.shared[:_SHOWN])}{more}",
                file=sys.stderr,
            )


def _selected(
    dataset: DataSet, roots: Sequence[Path], named: Names
) -> tuple[list[datasets.Pair], set[str], list[str]]:
    """The pairs to pack, the names of those to validate on, and what is left out and why."""
    pairs = [pair for root in roots for pair in datasets.read(dataset.name, root)]
    chosen = [pair for pair in pairs if dataset.split in ("all", pair.split)]
    if not chosen:
        splits = ", ".join(sorted({pair.split for pair in pairs}))
        raise DataError(
            f"the data set has no split '{dataset.split}'",
            expected=f"one of: {splits}, all",
            hint=f"add --split with one of these, for its {len(pairs)} pairs",
        )
    names = {n for pair in chosen for n in (pair.name, pair.sequence)} - {""}
    missing = (named.exclude | named.validation) - names
    if missing:
        raise DataError(
            f"no pair or sequence is called {', '.join(sorted(missing))}",
            expected=f"names such as {chosen[0].name} or {chosen[0].sequence or chosen[-1].name}",
            hint="correct --exclude or --validation",
        )
    out = [p for p in chosen if {p.name, p.sequence} & named.exclude]
    chosen = [p for p in chosen if not {p.name, p.sequence} & named.exclude]
    kept = {p.name for p in chosen if {p.name, p.sequence} & named.validation}
    if not named.validation:
        own = {p.name for p in chosen if p.split == "validation"}
        # Frames of one clip are alike: the last whole sequences, a fiftieth of the pairs or more.
        last: set[str] = set()
        if not own and len(chosen) > 1:
            several = len({p.sequence for p in chosen}) > 1
            units: dict[str, set[str]] = {}
            for p in chosen:
                units.setdefault(p.sequence if several and p.sequence else p.name, set()).add(
                    p.name
                )
            for unit in list(units)[:0:-1]:
                last |= units[unit]
                if len(last) * 50 >= len(chosen):
                    break
        kept = own or last
    return chosen, kept, [f"{p.name} (excluded)" for p in out]


def _compressed(
    images: Iterator[tuple[datasets.Pair, Pixels, Pixels]], crf: int
) -> Iterator[tuple[datasets.Pair, Pixels, Pixels]]:
    """Degraded pictures after H.264: those of one sequence and size as one clip, in their order."""
    clips = groupby(
        images, key=lambda i: (i[0].sequence if i[0].number is not None else i[0].name, i[1].shape)
    )
    for _, members in clips:
        clip = list(members)
        coded = h264((degraded for _, degraded, _ in clip), crf)
        for (pair, _, sharp), degraded in zip(clip, coded, strict=True):
            yield pair, degraded, sharp


def _pairs(
    packing: _Packing, dataset: DataSet, roots: Sequence[Path], names: Names, smallest: int
) -> None:
    files = packing.files
    chosen, kept, skipped = _selected(dataset, roots, names)
    files["skipped"] += skipped
    opened = datasets.PairImages(chosen, smallest=smallest)
    images = iter(opened) if dataset.crf is None else _compressed(iter(opened), dataset.crf)
    with Progress(len(chosen), f"packing {dataset.name}", unit="pair") as progress:
        for pair, degraded, sharp in images:
            part = "validation" if pair.name in kept else "train"
            place = None if pair.number is None else Place(pair.sequence, pair.number)
            packing.writer.pair(part, degraded, sharp, place)
            packing.splits.add(part, pair.name, sharp)
            files[part].append(pair.name)
            progress.advance()
    files["skipped"] += opened.skipped
    if not files["train"]:
        raise DataError(
            f"no usable pair in {', '.join(map(str, roots))}: {len(opened.skipped)} skipped, "
            f"{len(kept)} for validation",
            expected=f"pairs of {smallest} pixels or more to train on",
            hint="see train/datasets.py for the layout, or name fewer for --validation",
        )


def make(
    folders: Sequence[Path],
    out: Path,
    names: Names = Names(),
    *,
    reduction: Reduction = Reduction(),
    dataset: DataSet | None = None,
) -> dict[str, list[str]]:
    """Pack every photo and clip below `folders`, or the pairs of a data set in them, into `out`.

    Args:
        folders: searched recursively; with `dataset`, its root folders.
        out: the .npz file to write.
        names: file names; with `dataset` names of pairs or sequences.
        reduction: of photos and clips.
        dataset: None for photos and clips.

    Returns:
        File names by split: train, validation, and what was skipped (with the reason).

    Raises:
        DataError: nothing usable, a name to exclude or validate on that is not there, or pairs
            with unequal names or sizes.
    """
    check_writable(out, DataError)
    files: Files = {"train": [], "validation": [], "skipped": []}
    with (
        atomic_path(out) as temporary,
        open(temporary, "wb") as stream,
        Writer(stream) as writer,
    ):
        packing = _Packing(writer, files, _Splits())
        if dataset is None:
            _photos(packing, folders, names, reduction)
        else:
            _pairs(packing, dataset, folders, names, reduction.smallest)
            if dataset.photos:
                _photos(packing, dataset.photos, Names(), reduction)
        writer.finish(files)
    packing.splits.warn()
    return files
