"""Places where a container's own structure is broken, which FFmpeg skips in silence.

Only headers are looked at: damage inside of a frame is the decoder's to find. Read once the frames
are there, so that no frame waits for it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_BLOCK = 1 << 20


def damaged_places(path: Path) -> int:
    """How often a file's structure is broken, at least; 0 when it is sound or not known."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(2048)
        file.seek(0)
        if start.startswith(b"\x1aE\xdf\xa3"):
            return _matroska(file, size)
        if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
            return _avi(file, size)
        if start.startswith(b"FLV"):
            return _flv(file, size)
        if start.startswith(b"OggS"):
            return _ogg(file, size)
        for length in (188, 192, 204):
            place = next((p for p in range(length) if _synchronous(start[p:], length)), None)
            if place is not None:
                return _transport_stream(file, place, length)
    return 0


def _synchronous(data: bytes, length: int) -> bool:
    return all(data[k * length : k * length + 1] == b"G" for k in range(5))


def _transport_stream(file: BinaryIO, place: int, length: int) -> int:
    """Runs of packets that do not begin with the byte 0x47 or that say themselves to be wrong."""
    file.seek(place)
    broken, was_broken = 0, False
    while data := file.read(length * 5000):
        packets = np.frombuffer(data[: len(data) // length * length], np.uint8).reshape(-1, length)
        bad = (packets[:, 0] != 0x47) | (packets[:, 1] & 0x80 != 0)
        if not len(bad):
            break
        edges = np.concatenate(([was_broken], bad))
        broken += int((edges[1:] & ~edges[:-1]).sum())
        was_broken = bool(bad[-1])
        if was_broken and packets[-1, 0] != 0x47:
            # Joined parts may be cut inside of a packet: find the next.
            position = file.tell() - length
            file.seek(position)
            around = file.read(8 * length)
            found = next((p for p in range(length) if _synchronous(around[p:], length)), None)
            file.seek(position + (found if found is not None else length))
    return broken


_CLUSTER, _SEGMENT, _EBML = 0x1F43B675, 0x18538067, 0x1A45DFA3
_TOP = {
    _EBML,
    _SEGMENT,
    _CLUSTER,
    0x114D9B74,  # SeekHead
    0x1549A966,  # Info
    0x1654AE6B,  # Tracks
    0x1C53BB6B,  # Cues
    0x1941A469,  # Attachments
    0x1043A770,  # Chapters
    0x1254C367,  # Tags
    0xEC,  # Void
    0xBF,  # CRC-32
}
_ANYWHERE = {0xEC, 0xBF}
# Timestamp, SimpleBlock, BlockGroup, PrevSize, Position, SilentTracks, EncryptedBlock
_IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF}


def _matroska(file: BinaryIO, size: int) -> int:
    in_cluster = False
    for identifier in _elements(file, size):
        if not (identifier in _TOP or (in_cluster and identifier in _IN_CLUSTER)):
            return 1
        if identifier in _TOP - _ANYWHERE:
            in_cluster = identifier == _CLUSTER
    return 0


def _elements(file: BinaryIO, size: int) -> Iterator[int]:
    """The identifiers of all elements on the level of blocks and above."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(12)
        first = header[0]
        id_length = 9 - first.bit_length()
        if not first or id_length > 4 or len(header) <= id_length or not header[id_length]:
            if header.strip(b"\0") or position + 12 < size:
                yield 0
            return
        identifier = int.from_bytes(header[:id_length], "big")
        length_bytes = 9 - header[id_length].bit_length()
        number = header[id_length : id_length + length_bytes]
        limit = (1 << 7 * length_bytes) - 1
        length = int.from_bytes(number, "big") & limit
        begin = position + id_length + length_bytes
        inside = length == limit or identifier in (_SEGMENT, _CLUSTER)
        yield identifier
        position = begin if inside else begin + length


def _avi(file: BinaryIO, size: int) -> int:
    """Chunks of a name in letters and digits and a size, in lists."""
    position, riff_end = 0, 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(12)
        name, length = struct.unpack_from("<4sI", header)
        if name == b"LIST" and header[8:] in (b"movi", b"rec "):
            position += 12
            continue
        if name == b"RIFF":
            riff_end = position + 8 + length if length else size
            position += 12
            continue
        if position >= riff_end:  # what follows is no part of the video
            return 0
        if not name.strip(b" ").isalnum():
            return 1
        position += 8 + length + length % 2
    return 0


def _flv(file: BinaryIO, size: int) -> int:
    """Tags, each followed by its size."""
    header = file.read(13)
    position = int.from_bytes(header[5:9], "big") + 4
    while position + 15 <= size:
        file.seek(position)
        tag = file.read(11)
        if tag[:3] == b"FLV":  # another file, joined to the one before
            position += int.from_bytes(tag[5:9], "big") + 4
            continue
        length = int.from_bytes(tag[1:4], "big")
        if tag[0] & 0x1F not in (8, 9, 18):
            return 1
        end = position + 11 + length
        if end + 4 > size:
            return 0
        file.seek(end)
        stated = int.from_bytes(file.read(4), "big")
        if stated not in (length + 11, length, 0):
            return 1
        position = end + 4
    return 0


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(file: BinaryIO, size: int) -> int:
    """Pages whose checksum is wrong, and places where no page begins."""
    broken, position = 0, 0
    while position + 27 <= size:
        file.seek(position)
        header = file.read(27 + 255)
        if header[:4] != b"OggS":
            file.seek(position)
            ahead = file.read(_BLOCK)
            following = ahead.find(b"OggS", 1)
            broken += 1
            if following < 0:
                return broken
            position += following
            continue
        table = header[27 : 27 + header[26]]
        length = 27 + len(table) + sum(table)
        if position + length > size:
            return broken
        file.seek(position)
        broken += not _has_right_checksum(file.read(length))
        position += length
    return broken


def _has_right_checksum(page: bytes) -> bool:
    """CRC-32 as in RFC 3533: the polynomial of zlib's, the bits in the other order."""
    import zlib

    content = page[:22] + bytes(4) + page[26:]
    checksum = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{checksum:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")
