"""The layout of a TIFF file: its directories, and where its pixels lie. TIFF 6.0 and BigTIFF."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MAX_DIRECTORIES = 1000
_MAX_ENTRIES = 4096
_MAX_CHANNELS = 16
_MAX_VALUES = 1 << 22

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _CHANNELS, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_SUBFILE = 254
_READ = {
    _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _CHANNELS, _ROWS,
    _STRIP_BYTES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SAMPLE_FORMAT,
}  # fmt: skip

_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""numpy's names of TIFF's unsigned types."""

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType: a thumbnail, a transparency mask."""

_CMYK_AND_LAB = (5, 8, 9, 10)


class BadTiff(ValueError):
    """Why the file is not read; the message follows its name."""


@dataclass(frozen=True)
class _Layout:
    order: str
    big: bool

    def number(self, kind: str, content: bytes, place: int) -> int:
        return int(struct.unpack_from(self.order + kind, content, place)[0])


def size(content: bytes, check_size: Callable[[int, int], None]) -> tuple[int, int]:
    """(width, height) of the one picture, whose strips or tiles lie within the file.

    Raises:
        BadTiff: they do not, there are several pages, or levels that 8 bits cannot stand for.
        struct.error: the file ends within a directory.
    """
    order = "<" if content[:1] == b"I" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    layout = _Layout(order, big)
    place = layout.number("Q" if big else "I", content, 8 if big else 4)
    seen: set[int] = set()
    pages: list[tuple[int, int]] = []
    while place:
        if place in seen or len(seen) >= _MAX_DIRECTORIES:
            raise BadTiff("is damaged: the TIFF's directories run in a circle")
        seen.add(place)
        tags, place = _directory(content, place, layout)
        extent = _picture(content, tags, check_size)
        if not _first(tags, _SUBFILE, 0) & (_REDUCED | _MASK):
            pages.append(extent)
    if not pages:
        raise BadTiff("is damaged: the TIFF has no picture")
    if len(pages) > 1:
        raise BadTiff(f"has {len(pages)} pages; a picture is a file of its own")
    return pages[0]


def _directory(content: bytes, place: int, layout: _Layout) -> tuple[dict[int, list[int]], int]:
    """The numbers of the directory's tags that are needed, and the next directory's place."""
    count = layout.number("Q" if layout.big else "H", content, place)
    place += 8 if layout.big else 2
    if count > _MAX_ENTRIES:
        raise BadTiff(f"is damaged: a directory of the TIFF has {count} entries")
    length, inline = (20, 8) if layout.big else (12, 4)
    tags: dict[int, list[int]] = {}
    for entry in range(place, place + count * length, length):
        tag, kind = struct.unpack_from(layout.order + "HH", content, entry)
        if tag not in _READ:
            continue
        if kind not in _TYPES or tag in tags:
            raise BadTiff(f"is damaged: the TIFF's tag {tag} is of an unknown type, or there twice")
        values = layout.number("Q" if layout.big else "I", content, entry + 4)
        if not 0 < values <= _MAX_VALUES:
            raise BadTiff(f"is damaged: an entry of the TIFF's directory has {values} values")
        dtype = np.dtype(layout.order + _TYPES[kind])
        at = entry + length - inline
        if values * dtype.itemsize > inline:
            at = layout.number("Q" if layout.big else "I", content, at)
        if at + values * dtype.itemsize > len(content):
            raise BadTiff("is cut off: the TIFF ends early, in a directory's values")
        tags[tag] = np.frombuffer(content, dtype, values, at).tolist()
    following = layout.number("Q" if layout.big else "I", content, place + count * length)
    return tags, following


def _picture(
    content: bytes, tags: dict[int, list[int]], check_size: Callable[[int, int], None]
) -> tuple[int, int]:
    width, height = _first(tags, _WIDTH, 0), _first(tags, _HEIGHT, 0)
    check_size(width, height)
    channels, bits = _first(tags, _CHANNELS, 1), max(tags.get(_BITS) or [1])
    if channels > _MAX_CHANNELS or bits > 64:
        raise BadTiff(f"says that it has {channels} channels of {bits} bits")
    if bits > 16 or any(form != 1 for form in tags.get(_SAMPLE_FORMAT, [1])):
        raise BadTiff(f"has levels that are no unsigned 8 or 16 bits ({bits} bits a sample)")
    if bits == 16 and _first(tags, _PHOTOMETRIC, 1) in _CMYK_AND_LAB:
        raise BadTiff("is CMYK or Lab of 16 bits, which is not read")
    tiled = _TILES in tags or _TILE_WIDTH in tags
    if tiled:
        block = _first(tags, _TILE_WIDTH, 0), _first(tags, _TILE_HEIGHT, 0)
        check_size(*block)
        rows = -(-height // block[1])
        needed = rows * -(-width // block[0])
        offsets, lengths = tags.get(_TILES, []), tags.get(_TILE_BYTES, [])
    else:
        block = width, min(height, _first(tags, _ROWS, height) or height)
        needed = -(-height // block[1])
        offsets, lengths = tags.get(_STRIPS, []), tags.get(_STRIP_BYTES, [])
    planes = channels if _first(tags, _PLANAR, 1) == 2 else 1
    if len(offsets) < needed * planes:
        raise BadTiff("is damaged: the TIFF has fewer strips or tiles than its size needs")
    if lengths and len(lengths) < needed * planes:
        raise BadTiff("is damaged: the TIFF does not say how long its strips or tiles are")
    if any(at + n > len(content) for at, n in zip(offsets, lengths or [0] * len(offsets))):  # noqa: B905
        raise BadTiff("is cut off: pixels of the TIFF lie behind the file's end")
    if _first(tags, _COMPRESSION, 1) == 1 and not _subsampled(tags):
        row = (block[0] * bits * (channels // planes) + 7) // 8
        whole = needed * block[1] if tiled else height
        least = row * whole * planes
        if lengths and sum(lengths[: needed * planes]) < least:
            raise BadTiff("is cut off: the TIFF has fewer pixels than its size needs")
        if max(offsets, default=0) + (0 if lengths else row) > len(content):
            raise BadTiff("is cut off: pixels of the TIFF lie behind the file's end")
    return width, height


def _subsampled(tags: dict[int, list[int]]) -> bool:
    return _first(tags, _PHOTOMETRIC, 1) == 6


def _first(tags: dict[int, list[int]], tag: int, otherwise: int) -> int:
    values = tags.get(tag)
    return values[0] if values else otherwise
