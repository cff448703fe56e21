"""Places where a container's own structure is broken, which FFmpeg skips in silence.

Only headers are looked at: damage inside of a frame is the decoder's to find. Read once the frames
are there, so that no frame waits for it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from edge_restore.media import iso_structure
from edge_restore.media.iso_boxes import FIRST_BOXES

_BLOCK = 1 << 20


def damaged_places(path: Path, *, transport: tuple[int, int] | None = None) -> int:
    """How often a file's structure is broken, at least; 0 when it is sound or not known.

    Args:
        path: the file.
        transport: where FFmpeg reads it as a transport stream: the PID of the video, and how many
            pictures were found.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(2048)
        file.seek(0)
        if start.startswith(b"\x1aE\xdf\xa3"):
            return _matroska(file, size)
        if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
            return _avi(file, size)
        if start.startswith(_NUT):
            # Of files that were joined FFmpeg confuses the times.
            return int(_find(file, _NUT, len(_NUT)) is not None)
        if start.startswith(b"FLV"):
            return _flv(file, size)
        if start.startswith(b"OggS"):
            return _ogg(file, size)
        if start.startswith(b"\0\0\1\xba"):
            return _program_stream(file, size)
        if start[4:8] in FIRST_BOXES:
            return iso_structure.damaged_places(file, size)
        for length in (188, 192, 204):
            place = next((p for p in range(length) if _synchronous(start[p:], length)), None)
            if place is not None:
                return _transport_stream(file, place, length, transport)
        if transport is not None:  # FFmpeg found it, though its start is damaged
            return 1
    return 0


def _synchronous(data: bytes, length: int) -> bool:
    return all(data[k * length : k * length + 1] == b"G" for k in range(5))


def _transport_stream(
    file: BinaryIO, place: int, length: int, video: tuple[int, int] | None
) -> int:
    """Runs of packets that do not begin with 0x47 or say themselves to be wrong, and losses.

    Where there is none, pictures that begin and were not found.
    """
    file.seek(place)
    broken, was_broken = 0, False
    starts = _Starts()
    counters = _Continuity()
    while data := file.read(length * 5000):
        packets = np.frombuffer(data[: len(data) // length * length], np.uint8).reshape(-1, length)
        bad = (packets[:, 0] != 0x47) | (packets[:, 1] & 0x80 != 0)
        if not len(bad):
            break
        edges = np.concatenate(([was_broken], bad))
        broken += int((edges[1:] & ~edges[:-1]).sum())
        was_broken = bool(bad[-1])
        counters.look_at(packets[~bad])
        starts.look_at(packets[~bad])
        if was_broken and packets[-1, 0] != 0x47:
            # Joined parts may be cut inside of a packet: find the next.
            position = file.tell() - length
            file.seek(position)
            around = file.read(8 * length)
            found = next((p for p in range(length) if _synchronous(around[p:], length)), None)
            file.seek(position + (found if found is not None else length))
    broken = broken or counters.losses or starts.broken
    if not broken and video is not None:  # of video, each is a picture at least
        return max(0, starts.of(video[0]) - video[1])
    return broken


class _Starts:
    """Where PES packets begin, in the packets of each track, which say so.

    Attributes:
        broken: those that say so and do not begin with a start code.
    """

    def __init__(self) -> None:
        self.broken = 0
        self._found: dict[int, int] = {}

    def look_at(self, packets: npt.NDArray[np.uint8]) -> None:
        """Look at the packets that follow those before."""
        starts = packets[(packets[:, 1] & 0x40 != 0) & (packets[:, 3] & 0x10 != 0)]
        pids = (starts[:, 1].astype(np.int32) & 0x1F) << 8 | starts[:, 2]
        places = np.where(starts[:, 3] & 0x20 != 0, 5 + starts[:, 4].astype(np.int32), 4)
        places = np.minimum(places, starts.shape[1] - 3)
        rows = np.arange(len(starts))
        first, second, third = (starts[rows, places + i] for i in range(3))
        marked = (first == 0) & (second == 0) & (third == 1)
        for pid in np.unique(pids):
            found = int(marked[pids == pid].sum())
            self._found[int(pid)] = before = self._found.get(int(pid), 0) + found
            if before:  # tables begin otherwise
                self.broken += int((pids == pid).sum()) - found

    def of(self, pid: int) -> int:
        """How many there are of a track."""
        return self._found.get(pid, 0)


class _Continuity:
    """Packets of a transport stream that are missing, by the counter of each kind of packet.

    ISO/IEC 13818-1, section 2.4.3.3. Where recordings were joined all counters jump; a recording
    begins with its tables, so what jumps after a table did is none.
    """

    def __init__(self) -> None:
        self.losses = 0
        self._last: dict[int, int] = {}

    def look_at(self, packets: npt.NDArray[np.uint8]) -> None:
        """Look at the packets that follow those before."""
        pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
        counted = (packets[:, 3] & 0x10 != 0) & (pids != 0x1FFF)
        # A packet may announce that its counter jumps.
        announced = (packets[:, 3] & 0x20 != 0) & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 != 0)
        joins, jumps = [], []
        for pid in np.unique(pids[counted]):
            (places,) = np.nonzero(counted & (pids == pid))
            values = (packets[places, 3] & 0x0F).astype(np.int32)
            before = np.concatenate(([self._last.get(int(pid), values[0] - 1)], values[:-1]))
            step = (values - before) % 16  # 0 is a packet that was sent twice
            places_before = np.concatenate(([-1], places[:-1]))
            wrong = (step > 1) & ~announced[places]
            found = list(zip(places_before[wrong], places[wrong], strict=True))
            if _holds_tables(packets[places]):
                joins += [place for _, place in found]
            else:
                jumps += found
            self._last[int(pid)] = int(values[-1])
        self.losses += sum(not any(begin < join <= end for join in joins) for begin, end in jumps)


def _holds_tables(packets: npt.NDArray[np.uint8]) -> bool:
    """Whether packets of one kind hold the stream's own tables: PAT, PMT or SDT."""
    starts = packets[packets[:, 1] & 0x40 != 0]
    if not len(starts):
        return False
    first = starts[0]
    begin = 5 + int(first[4]) if first[3] & 0x20 else 4
    if begin + 1 >= len(first):
        return False
    table = begin + 1 + int(first[begin])
    return (
        table < len(first)
        and int(first[table]) in (0x00, 0x02, 0x42, 0x46)
        and (first[begin : begin + 3].tobytes() != b"\0\0\1")
    )


def _program_stream(file: BinaryIO, size: int) -> int:
    """Places where neither a pack nor a packet begins; packets state their size."""
    broken, position = 0, 0
    while position + 6 <= size:
        file.seek(position)
        header = file.read(14)
        if header[:3] != b"\0\0\1" or header[3] < 0xB9:
            following = _find(file, b"\0\0\1\xba", position + 1)
            if following is None:
                file.seek(position)
                padding = not file.read(_BLOCK).strip(b"\0")
                return broken + (not padding)
            broken += 1
            position = following
        elif header[3] == 0xB9:
            position += 4
        elif header[3] == 0xBA:
            mpeg2 = header[4] >> 6 == 1
            position += 14 + (header[13] & 7) if mpeg2 and len(header) == 14 else 12
        else:
            position += 6 + int.from_bytes(header[4:6], "big")
    return broken


def _find(file: BinaryIO, mark: bytes, position: int) -> int | None:
    """Where the mark is next, from `position` on."""
    while True:
        file.seek(position)
        data = file.read(_BLOCK)
        found = data.find(mark)
        if found >= 0:
            return position + found
        if len(data) < _BLOCK:
            return None
        position += _BLOCK - len(mark)


_MOST_CHECKED = 1 << 26
_TRACKS, _SIMPLE_BLOCK = 0x1654AE6B, 0xA3
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
    declared: set[int] = set()
    for identifier, begin, end in _elements(file, size):
        if not (identifier in _TOP or (in_cluster and identifier in _IN_CLUSTER)):
            return 1
        if identifier in _TOP - _ANYWHERE:
            in_cluster = identifier == _CLUSTER
            if begin < end <= size and not _has_right_element_checksum(file, begin, end):
                return 1
        if identifier == _TRACKS:
            file.seek(begin)
            declared |= _track_numbers(file.read(min(end - begin, _MOST_CHECKED)))
        elif identifier == _SIMPLE_BLOCK and declared:
            file.seek(begin)
            number = file.read(8)
            if number and _vint(number, 0)[0] not in declared:
                return 1
    return 0


def _track_numbers(content: bytes) -> set[int]:
    """The numbers of the tracks that a Tracks element describes."""
    found = set()
    for identifier, begin, end in _children(content, 0, len(content)):
        if identifier == 0xAE:
            found |= {int.from_bytes(content[b:e], "big")
                      for i, b, e in _children(content, begin, end) if i == 0xD7}  # fmt: skip
    return found


def _children(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    while begin < end and content[begin]:
        length = 9 - content[begin].bit_length()
        identifier = int.from_bytes(content[begin : begin + length], "big")
        if begin + length >= end or not content[begin + length]:
            return
        size, begin = _vint(content, begin + length)
        yield identifier, begin, min(begin + size, end)
        begin += size


def _vint(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length without its marker, and where it ends (RFC 8794)."""
    if not content[place]:
        return -1, place + 1
    length = 9 - content[place].bit_length()
    number = int.from_bytes(content[place : place + length], "big")
    return number & ((1 << 7 * length) - 1), place + length


def _has_right_element_checksum(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether the CRC-32 that an element may begin with is that of what follows (RFC 8794)."""
    file.seek(begin)
    content = file.read(min(end - begin, _MOST_CHECKED))
    if not content.startswith(b"\xbf\x84") or len(content) < end - begin:
        return True
    return zlib.crc32(content[6:]) == int.from_bytes(content[2:6], "little")


def _elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Identifier, begin and end of the content, of all elements of blocks and above.

    Of those that are looked into, Segment and Cluster, the end is not given.
    """
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(12)
        first = header[0]
        id_length = 9 - first.bit_length()
        if not first or id_length > 4 or len(header) <= id_length or not header[id_length]:
            if header.strip(b"\0") or position + 12 < size:
                yield 0, position, position
            return
        identifier = int.from_bytes(header[:id_length], "big")
        length_bytes = 9 - header[id_length].bit_length()
        number = header[id_length : id_length + length_bytes]
        limit = (1 << 7 * length_bytes) - 1
        length = int.from_bytes(number, "big") & limit
        begin = position + id_length + length_bytes
        inside = length == limit or identifier in (_SEGMENT, _CLUSTER)
        yield identifier, begin, begin if inside else begin + length
        position = begin if inside else begin + length


def _avi(file: BinaryIO, size: int) -> int:
    """Chunks of a name in letters and digits and a size, in lists."""
    position, riff_end = 0, 0
    chunks = indexed = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(12)
        name, length = struct.unpack_from("<4sI", header)
        if name == b"LIST" and header[8:] == b"hdrl":
            file.seek(position + 12)
            if not _describes_all_streams(file.read(min(length, _BLOCK))):
                return 1
        if name == b"LIST" and header[8:] in (b"movi", b"rec "):
            position += 12
            continue
        if name == b"RIFF":
            riff_end = position + 8 + length if length else size
            position += 12
            continue
        if position >= riff_end:  # what follows is no part of the video
            break
        if not name.strip(b" ").isalnum() or position + 8 + length > min(riff_end, size):
            return 1
        chunks += name[:2].isdigit()
        if name == b"idx1" and not indexed:
            file.seek(position + 8)
            index = file.read(min(length, _MOST_INDEX))
            indexed = sum(index[i : i + 2].isdigit() for i in range(0, len(index) - 15, 16))
            if chunks != indexed and length <= _MOST_INDEX:
                return 1  # a chunk whose size is wrong has others in it
        position += 8 + length + length % 2
    return 0


def _describes_all_streams(head: bytes) -> bool:
    """Whether an AVI's header has a sound list for each of the streams that it counts."""
    promised, found, place = None, 0, 0
    while place + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, place)
        content = head[place + 8 : place + 8 + length]
        if name == b"avih" and len(content) >= 28:
            promised = int.from_bytes(content[24:28], "little")
        if name == b"LIST" and content[:4] == b"strl":
            found += content[4:8] == b"strh" and content[12:16] in _AVI_STREAMS
        place += 8 + length + length % 2
    return promised is None or found == promised


_MOST_INDEX = 1 << 26
_AVI_STREAMS = {b"vids", b"auds", b"txts", b"mids", b"iavs"}


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


_NUT = b"nut/multimedia container\0"
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
    content = page[:22] + bytes(4) + page[26:]
    checksum = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{checksum:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")
