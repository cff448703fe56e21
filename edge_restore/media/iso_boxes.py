"""The boxes (atoms) of an MP4 or QuickTime file: ISO/IEC 14496-12, section 4.2."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
"""With one of these such a file begins."""


@dataclass(frozen=True)
class Box:
    """One box: its four-letter kind, and the bytes of the file where its content lies."""

    kind: bytes
    begin: int
    end: int


def boxes(file: BinaryIO, begin: int, end: int) -> Iterator[Box]:
    """The boxes one after the other in the bytes [begin, end) of `file`.

    A box may claim to reach beyond `end`; it is then the last. Stops at bytes that are no box, and
    where the file ends before a box around these bytes does.
    """
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(8)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head)
        header = 8
        if size == 1:  # the size did not fit into 32 bits
            large = file.read(8)
            if len(large) < 8:
                return
            (size,) = struct.unpack(">Q", large)
            header = 16
        elif size == 0:  # to the end of the file
            size = end - begin
        if size < header:
            return
        yield Box(kind, begin + header, begin + size)
        begin += size


def truncation(path: Path) -> str | None:
    """How an MP4 or QuickTime file was cut off, in words; None when it was not, or is none.

    Recorders write the index ("moov") last or first: a recording that was cut off lacks it, a
    copy that was cut off lacks the end of the pictures.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        found = list(boxes(file, 0, size))
    if not found or found[0].kind not in FIRST_BOXES:
        return None
    if found[-1].end > size:
        lost = found[-1].end - size
        what = found[-1].kind.decode("latin-1")
        return f"the file ends {lost} bytes before its last box ('{what}') does"
    if not any(box.kind == b"moov" for box in found):
        return "the file has no index ('moov' box)"
    return None


def has_delayed_track(path: Path) -> bool:
    """Whether the edit list of a track says that it starts later than the file does."""
    with open(path, "rb") as file:
        size = os.path.getsize(path)
        first = next(boxes(file, 0, size), None)
        if first is None or first.kind not in FIRST_BOXES:
            return False
        return any(
            _starts_empty(file, edits)
            for movie in _inside(file, Box(b"file", 0, size), b"moov")
            for track in _inside(file, movie, b"trak")
            for edit in _inside(file, track, b"edts")
            for edits in _inside(file, edit, b"elst")
        )


def _inside(file: BinaryIO, box: Box, kind: bytes) -> Iterator[Box]:
    return (found for found in boxes(file, box.begin, box.end) if found.kind == kind)


def _starts_empty(file: BinaryIO, edits: Box) -> bool:
    file.seek(edits.begin)
    version, count = struct.unpack(">B3xI", file.read(8).ljust(8, b"\0"))
    if not count:
        return False
    duration_and_time = ">Qq" if version == 1 else ">Ii"
    first = file.read(struct.calcsize(duration_and_time))
    if len(first) < struct.calcsize(duration_and_time):
        return False
    duration, media_time = struct.unpack(duration_and_time, first)
    return bool(media_time == -1 and duration > 0)
