"""What an image file says of itself, read before any decoder sees it.

Decoders allocate what a header asks for, and many give a picture for half a file. So the size and
the completeness of PNG, JPEG, BMP, TIFF and WebP are read here, from their published layouts; a
file of another kind is refused. Nothing is decoded and no memory is taken but the file's own.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from edge_restore.media import tiff_file

MAX_PIXELS = 200_000_000
"""Pixels of an image that is read: the largest cameras' pictures, 0.6 GB once they are decoded."""

MAX_FILE_BYTES = 16 * MAX_PIXELS
"""Of a file that is read: four channels of 32 bits for each pixel."""

KINDS = "PNG, JPEG, BMP, TIFF or WebP"

_MAX_CHUNKS = 1_000_000
_MAX_SCANS = 200
"""Of a JPEG. Each takes a pass over the whole picture, however few bytes it has."""


class UnusableImage(ValueError):
    """Why a file's picture is not read; the message follows the file's name."""


@dataclass(frozen=True)
class ImageHeader:
    """An image file that is complete as far as its layout tells.

    Attributes:
        kind: "PNG", "JPEG", "BMP", "TIFF" or "WebP".
        width, height: in pixels, as stored; a JPEG's orientation may exchange them.
    """

    kind: str
    width: int
    height: int


def examine(content: bytes) -> ImageHeader:
    """The header of an image file, which is complete and not too large.

    Raises:
        UnusableImage: it is of another kind, too large, cut off, damaged, or has several pictures.
    """
    for magic, kind, read in _KINDS:
        if re.match(magic, content, re.DOTALL):
            try:
                width, height = read(content)
            except (struct.error, IndexError):
                raise _cut_off(kind) from None
            except tiff_file.BadTiff as problem:
                raise UnusableImage(str(problem)) from None
            except OverflowError:  # a 64-bit offset of a BigTIFF
                raise _cut_off(kind, ", before a place that it names") from None
            check_size(width, height)
            return ImageHeader(kind, width, height)
    raise UnusableImage("cannot be read as an image" + (": it is empty" if not content else ""))


def is_known(start: bytes) -> bool:
    """Whether a file that starts so is of a kind that is read."""
    return any(re.match(magic, start, re.DOTALL) for magic, _, _ in _KINDS)


def check_size(width: int, height: int) -> None:
    """UnusableImage where a picture would be empty or too large."""
    if width < 1 or height < 1:
        raise UnusableImage(f"says that it has {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise UnusableImage(
            f"says that it has {width}x{height} pixels; at most {MAX_PIXELS // 10**6} million "
            "are read"
        )


def _cut_off(kind: str, what: str = "") -> UnusableImage:
    return UnusableImage(f"is cut off: the {kind} ends early{what}")


def _png(content: bytes) -> tuple[int, int]:
    """Every chunk's length and check sum, from IHDR to IEND."""
    place, number, size, seen = 8, 0, (0, 0), set()
    while True:
        if place + 12 > len(content):
            raise _cut_off("PNG", ", before its chunk IEND")
        length, name = struct.unpack_from(">I4s", content, place)
        shown = name.decode("ascii", "replace")
        if number == 0:
            if (length, name) != (13, b"IHDR"):
                raise UnusableImage("is damaged: the PNG does not begin with a chunk IHDR")
            size = struct.unpack_from(">II", content, place + 8)
            check_size(*size)
        end = place + 8 + length
        if end + 4 > len(content):
            raise _cut_off("PNG", f", in a chunk {shown}" if shown.isalpha() else "")
        found = zlib.crc32(memoryview(content)[place + 4 : end])
        if found != struct.unpack_from(">I", content, end)[0]:
            raise UnusableImage(f"is damaged: a chunk {shown!r} of the PNG has another check sum")
        if name == b"acTL" and length >= 4 and struct.unpack_from(">I", content, place + 8)[0] > 1:
            raise UnusableImage("is an animation: it has several pictures")
        seen.add(name)
        place, number = end + 4, number + 1
        if name == b"IEND":
            break
        if number > _MAX_CHUNKS:
            raise UnusableImage(f"has more than {_MAX_CHUNKS} chunks")
    if b"IDAT" not in seen:
        raise UnusableImage("is damaged: the PNG has no chunk IDAT, which holds the pixels")
    return size


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)


def _jpeg(content: bytes) -> tuple[int, int]:
    """Markers from SOI to EOI; every component has its scans, a progressive one all of its bits."""
    place, size, frame, scans = 2, (0, 0), 0, 0
    missing: dict[int, list[int]] = {}  # of each component, by coefficient: bits yet to come
    while True:
        found = _JPEG_MARKER.search(content, place)
        if not found:
            raise _cut_off("JPEG", ", before its end marker")
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", content, place)
        if place + length > len(content) or length < 2:
            raise _cut_off("JPEG", ", in its headers")
        segment = content[place + 2 : place + length]
        place += length
        if marker in _FRAMES:
            if frame:
                raise UnusableImage("is damaged: the JPEG has two frame headers")
            frame = marker
            _, height, width, components = struct.unpack_from(">BHHB", segment)
            size = width, height
            check_size(*size)
            missing = {segment[6 + 3 * i]: [99] * 64 for i in range(components)}
        elif marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                raise UnusableImage(f"has more than {_MAX_SCANS} scans")
            _count_scan(segment, missing, progressive=frame in _PROGRESSIVE)
    if not frame:
        raise UnusableImage("is damaged: the JPEG has no frame header")
    if any(any(bits) for bits in missing.values()):
        raise _cut_off("JPEG", ", before the last of its scans")
    return size


def _count_scan(segment: bytes, missing: dict[int, list[int]], *, progressive: bool) -> None:
    count = segment[0]
    if len(segment) != 4 + 2 * count:
        raise UnusableImage("is damaged: a scan header of the JPEG has another length than it says")
    first, last, bits = segment[1 + 2 * count :]
    if not progressive:
        first, last, bits = 0, 63, 0
    for i in range(count):
        component = missing.get(segment[1 + 2 * i])
        if component is None or not first <= last <= 63:
            raise UnusableImage("is damaged: a scan of the JPEG does not fit its frame header")
        component[first : last + 1] = [bits & 15] * (last + 1 - first)


def _bmp(content: bytes) -> tuple[int, int]:
    """Uncompressed rows lie within the file; compressed ones as far as their header tells."""
    pixels, header = struct.unpack_from("<II", content, 10)
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", content, 18)
        compression = stored = 0
    elif header >= 40:
        width, height, _, depth, compression, stored = struct.unpack_from("<iiHHII", content, 18)
    else:
        raise UnusableImage("is damaged: its BMP header has an unknown length")
    height = abs(height)
    check_size(width, height)
    compressed = compression not in (0, 3, 6)
    needed = stored if compressed else (width * depth + 31) // 32 * 4 * height
    if pixels + needed > len(content):
        raise _cut_off("BMP", ", before its last row")
    return width, height


def _webp(content: bytes) -> tuple[int, int]:
    """Chunks within the RIFF file, and the size of the canvas and of the picture."""
    (size,) = struct.unpack_from("<I", content, 4)
    end = size + 8
    if end > len(content):
        raise _cut_off("WebP")
    place, sizes, pictures = 12, [], 0
    while place + 8 <= end:
        name, length = struct.unpack_from("<4sI", content, place)
        start = place + 8
        if start + length > end:
            raise _cut_off("WebP")
        if name in (b"ANIM", b"ANMF"):
            raise UnusableImage("is an animation: it has several pictures")
        if name == b"VP8X":
            extent = content[start + 4 : start + 10]
            sizes.append(
                (1 + int.from_bytes(extent[:3], "little"), 1 + int.from_bytes(extent[3:], "little"))
            )
        elif name == b"VP8 ":
            width, height = struct.unpack_from("<HH", content, start + 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
            pictures += 1
        elif name == b"VP8L":
            (packed,) = struct.unpack_from("<I", content, start + 1)
            sizes.append((1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)))
            pictures += 1
        for extents in sizes[-1:]:
            check_size(*extents)
        place = start + length + length % 2
    if pictures != 1:
        raise UnusableImage("is damaged: the WebP has no picture")
    return sizes[-1]


def _tiff(content: bytes) -> tuple[int, int]:
    width, height = tiff_file.size(content, check_size)
    return width, height


_KINDS: tuple[tuple[bytes, str, Callable[[bytes], tuple[int, int]]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG", _png),
    (rb"\xff\xd8\xff", "JPEG", _jpeg),
    (rb"BM", "BMP", _bmp),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF", _tiff),
    (rb"RIFF....WEBP", "WebP", _webp),
)
