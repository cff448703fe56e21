"""The boxes (atoms) of an MP4 or QuickTime file: ISO/IEC 14496-12, section 4.2."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}


@dataclass(frozen=True)
class Box:
    """One box: its four-letter kind, and the bytes of the file where its content lies."""

    kind: bytes
    begin: int
    end: int


def boxes(file: BinaryIO, begin: int, end: int) -> Iterator[Box]:
    """The boxes one after the other in the bytes [begin, end) of `file`.

    A box may claim to reach beyond `end`; it is then the last. Stops at bytes that are no box.
    """
    while begin + 8 <= end:
        file.seek(begin)
        size, kind = struct.unpack(">I4s", file.read(8))
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
    if not found or found[0].kind not in _FIRST_BOXES:
        return None
    if found[-1].end > size:
        lost = found[-1].end - size
        what = found[-1].kind.decode("latin-1")
        return f"the file ends {lost} bytes before its last box ('{what}') does"
    if not any(box.kind == b"moov" for box in found):
        return "the file has no index ('moov' box)"
    return None
