"""A training pack: sharp pictures and real pairs, decoded once into one .npz file.

A pack is made on a workstation with OpenCV (train/packing.py) and read with numpy alone, so a
training machine needs no decoder.

The file holds one uint8 array (H, W, 3) for each picture, stored without compression: `train_00000`
and `validation_00000` for sharp pictures; `pair_train_00000_degraded` and `pair_train_00000_sharp`
for a pair; numbers count through the file in the order of packing, which for a clip is that of its
frames. `header` is JSON: `schema`, `files` (names by split) and `places` (of arrays that are frames
of a clip, without `_degraded` or `_sharp`: clip and number). Schema 1 had neither pairs nor places.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_restore.storage.files import sha256
from edge_restore.storage.json_fields import JsonFields, is_integer
from edge_restore.storage.json_file import decode
from edge_restore.storage.npz_file import read_arrays
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.training_pack/2"
_READABLE = (SCHEMA, "edge_restore.training_pack/1")
_KIND = Kind(
    "a training pack",
    "a file written by 'python -m train pack'",
    "copy the file again, or pack the pictures anew",
)
PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
CLIPS = {".mp4", ".mov", ".mkv", ".avi", ".webm"}

Picture = npt.NDArray[np.uint8]


class Place(NamedTuple):
    """A frame's place: the clip's name, unique in the pack, and the frame's number in it."""

    clip: str
    number: int


@dataclass(frozen=True)
class Pack:
    """Pictures by split.

    Attributes:
        train, validation: sharp pictures, RGB uint8 arrays (H, W, 3), read from the file on use.
        files: where everything came from, by split.
        sha256: of the pack's file.
        train_pairs, validation_pairs: real pairs (degraded, sharp) of one size.
        places: for each of these four lists by its name, one entry per picture or pair: where it is
            in its clip, or None for a photo.
    """

    train: list[Picture]
    validation: list[Picture]
    files: dict[str, list[str]]
    sha256: str
    train_pairs: list[tuple[Picture, Picture]] = field(default_factory=list)
    validation_pairs: list[tuple[Picture, Picture]] = field(default_factory=list)
    places: dict[str, list[Place | None]] = field(default_factory=dict)

    def neighbours(self, part: str, index: int) -> tuple[int | None, int | None]:
        """The frames right before and after one, as indices into the same list.

        For example `previous, following = pack.neighbours("train_pairs", 7)`, and the sharp frame
        before is `pack.train_pairs[previous][1]`. Of a pack made from clips this takes
        `python -m train pack --neighbours`; GoPro's clips have neighbours without it.

        Args:
            part: "train", "validation", "train_pairs" or "validation_pairs".
            index: into the list of that name.

        Returns:
            (previous, next), None where the pack does not have it.
        """
        places = self.places.get(part, [])
        place = places[index] if index < len(places) else None
        if place is None:
            return None, None
        wanted = (Place(place.clip, place.number + step) for step in (-1, 1))
        before, after = (places.index(p) if p in places else None for p in wanted)
        return before, after


class Writer:
    """Writes a pack picture by picture, so that one larger than the memory can be made.

    To be used as a context; `finish` comes last.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._places: dict[str, Place] = {}
        self._count = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._archive.close()

    def picture(self, split: str, sharp: Picture, place: Place | None = None) -> None:
        """Add a sharp picture to "train" or "validation"."""
        self._add(f"{split}_{self._count:05d}", place, {"": sharp})

    def pair(
        self, split: str, degraded: Picture, sharp: Picture, place: Place | None = None
    ) -> None:
        """Add a pair to "train" or "validation"."""
        key = f"pair_{split}_{self._count:05d}"
        self._add(key, place, {"_degraded": degraded, "_sharp": sharp})

    def _add(self, key: str, place: Place | None, views: dict[str, Picture]) -> None:
        for suffix, picture in views.items():
            self._array(key + suffix, np.ascontiguousarray(picture, dtype=np.uint8))
        if place is not None:
            self._places[key] = place
        self._count += 1

    def _array(self, key: str, array: Picture) -> None:
        # The date is fixed: the same pictures make the same file.
        with self._archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)

    def finish(self, files: dict[str, list[str]]) -> None:
        """Write the header."""
        header = json.dumps({"schema": SCHEMA, "files": files, "places": self._places})
        self._array("header", np.frombuffer(header.encode(), np.uint8))


def load(path: Path) -> Pack:
    """Open a pack; its pictures are read from the disk when they are used.

    Raises:
        DataError: missing, or not a pack.
    """
    arrays: dict[str, Picture] = dict(read_arrays(path, _KIND))
    try:
        header = JsonFields(decode(bytes(arrays.pop("header"))))
        header.choice("schema", _READABLE)
        files = header.child("files")
        named = {split: files.items(split, _is_text, "file names") for split in files.document}
        given = header.child("places").document if "places" in header.document else {}
        located = {key: _place(value) for key, value in given.items()}
        if header.errors:
            raise ValueError(f"its header is malformed:{header.listing()}")
        if missing := {"train", "validation"} - named.keys():
            raise ValueError(f"its header lists no {' and '.join(sorted(missing))} files")
        pictures: dict[str, list[Picture]] = {"train": [], "validation": []}
        pairs: dict[str, list[tuple[Picture, Picture]]] = {"train": [], "validation": []}
        places: dict[str, list[Place | None]] = {
            name: [] for name in ("train", "validation", "train_pairs", "validation_pairs")
        }
        for key, array in arrays.items():
            if array.ndim != 3 or array.shape[2] != 3 or not array.size:
                raise ValueError(f"{key} has the shape {array.shape}")
            split = next(name for name in pictures if name in key)
            if not key.startswith("pair_"):
                pictures[split].append(array)
                places[split].append(located.get(key))
            elif key.endswith("_sharp"):
                degraded = arrays[key.removesuffix("_sharp") + "_degraded"]
                if degraded.shape != array.shape:
                    raise ValueError(f"{key} differs in size from its degraded picture")
                pairs[split].append((degraded, array))
                places[f"{split}_pairs"].append(located.get(key.removesuffix("_sharp")))
    except (KeyError, ValueError, StopIteration) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise _KIND.unusable(path, problem or "a picture of no split") from None
    return Pack(
        pictures["train"], pictures["validation"], named, sha256(path),
        pairs["train"], pairs["validation"], places,
    )  # fmt: skip


def _place(value: object) -> Place:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("a place in its header is no clip and number")
    clip, number = value
    if not isinstance(clip, str) or not is_integer(number) or number < 0:
        raise ValueError("a place in its header is no clip and number")
    return Place(clip, number)


def _is_text(value: object) -> bool:
    """Whether a decoded value is a text."""
    return isinstance(value, str)
