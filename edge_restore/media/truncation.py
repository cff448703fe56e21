"""Whether a video file was cut off, by what its container promises of its own size.

Raw streams (H.264, MPEG-2, ...) promise nothing; neither does a file that was cut off exactly
between two parts of a stream that has no end. Sizes that a writer to a pipe could not know are no
promise.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edge_restore.media import iso_boxes

_TAIL = 1 << 18


def truncation(path: Path) -> str | None:
    """How a video file was cut off, in words; None when it was not or when that is not known."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(1024)
        for is_format, check in _CHECKS:
            if is_format(start):
                file.seek(0)
                return check(file, size)
    return iso_boxes.truncation(path)


def _missing(lost: int, what: str) -> str | None:
    return f"the file ends {lost} bytes before {what} does" if lost > 0 else None


def _matroska(file: BinaryIO, size: int) -> str | None:
    """RFC 8794 (EBML) and RFC 9559: every element states its size, or that it is not known."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(12)
        if not header.strip(b"\0"):
            return None
        identifier, id_length = _ebml_number(header, keep_marker=True)
        length, length_bytes = _ebml_number(header[id_length:], keep_marker=False)
        if not id_length or not length_bytes:
            return "its last element is incomplete" if position + 12 > size else None
        position += id_length + length_bytes
        unknown = length == (1 << 7 * length_bytes) - 1
        if unknown or (identifier in _EBML_FOLDERS and identifier != _SEGMENT):
            continue  # look at what is inside
        if position + length > size:
            return _missing(position + length - size, "its last element")
        position += length
    return None


_SEGMENT = 0x18538067
_EBML_FOLDERS = {_SEGMENT, 0x1F43B675}  # Segment, Cluster


def _ebml_number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length and its length in bytes, 0 where there is none."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    number = int.from_bytes(data[:length], "big")
    return (number if keep_marker else number & ((1 << 7 * length) - 1)), length


def _riff(file: BinaryIO, size: int) -> str | None:
    """AVI: one RIFF chunk of at most 2 GiB, and more of them after it (OpenDML)."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            return None
        if position + 8 + length > size:
            return _missing(position + 8 + length - size, "its RIFF chunk")
        position += 8 + length + length % 2
    return None


def _asf(file: BinaryIO, size: int) -> str | None:
    """Every object has 16 bytes of its kind and 8 of its size; an index may follow the data."""
    position = 0
    while position + 24 <= size:
        file.seek(position)
        _, length = struct.unpack("<16sQ", file.read(24))
        if position == 0:
            header = file.read(min(max(length - 24, 0), 1 << 20))
            place = header.find(_ASF_FILE_PROPERTIES)
            if place >= 0 and len(header) >= place + 92:
                (promised,) = struct.unpack_from("<Q", header, place + 40)
                (flags,) = struct.unpack_from("<I", header, place + 88)
                if flags & 1:  # a broadcast: sizes are not valid
                    return None
                if promised > size:
                    return _missing(promised - size, "the size in its header")
        if length < 24:
            return None
        if position + length > size:
            return _missing(position + length - size, "its last object")
        position += length
    return None if position >= size else "its last object is incomplete"


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _flv(file: BinaryIO, size: int) -> str | None:
    head = file.read(1 << 14)
    stated = head.find(b"filesize\0")
    if stated >= 0 and len(head) >= stated + 17:
        (promised,) = struct.unpack_from(">d", head, stated + 9)
        if promised > 0:
            return _missing(int(promised) - size, "the size in its header")
    position = int.from_bytes(head[5:9], "big") + 4
    while position < size:
        file.seek(position)
        tag = file.read(11)
        if len(tag) == 11 and tag[0] & 0x1F not in (8, 9, 18):
            return None  # damaged: nothing can be said
        end = position + 11 + int.from_bytes(tag[1:4], "big") + 4
        if len(tag) < 11 or end > size:
            return _missing(max(end, position + 15) - size, "its last tag")
        position = end
    return None


def _transport_stream(file: BinaryIO, size: int) -> str | None:
    """Packets of 188 bytes; 192 with a time before each (M2TS), 204 with a checksum after it."""
    start = file.read(5 * 204)
    for length, before in ((188, 0), (192, 4), (204, 0)):
        for place in range(before, length + before):
            if all(start[place + k * length : place + k * length + 1] == b"G" for k in range(4)):
                left = (size - place + before) % length
                if not left:
                    return _unfinished_frame(file, size, length, before)
                file.seek(size - left + before)
                is_packet = left <= before or file.read(1) == b"G"
                return _missing(length - left, "its last packet") if is_packet else None
    return None


def _unfinished_frame(file: BinaryIO, size: int, length: int, before: int) -> str | None:
    """Of a stream cut between two packets: whether the last PES packet of a track is incomplete.

    One of a stated length must have come to it. One of no stated length, as video has, is filled up
    to a whole number of packets by an adaptation field in the last.
    """
    begin = max(0, size - _TAIL // length * length)
    file.seek(begin)
    tail = file.read()
    lacking: dict[int, int] = {}  # by track: bytes that are still to come; -1 when not stated
    filled: dict[int, bool] = {}
    for place in range(before, len(tail) - 187, length):
        packet = tail[place : place + 188]
        track = int.from_bytes(packet[1:3], "big") & 0x1FFF
        start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        payload = packet[start:] if packet[3] & 0x10 else b""
        if packet[1] & 0x40:
            lacking.pop(track, None)
            if payload[:3] == b"\0\0\1":
                stated = int.from_bytes(payload[4:6], "big")
                lacking[track] = stated + 6 if stated else -1
        if track not in lacking or not payload:
            continue
        filled[track] = start > 12  # a clock alone takes eight bytes
        if lacking[track] > 0:
            lacking[track] = max(0, lacking[track] - len(payload))
    for track, missing in lacking.items():
        if missing > 0 or (missing < 0 and not filled[track]):
            return "its last frame is incomplete"
    return None


def _program_stream(file: BinaryIO, size: int) -> str | None:
    """MPEG-1 and MPEG-2 packs; packets state their size. The last ones tell."""
    begin = max(0, size - _TAIL)
    file.seek(begin)
    tail = file.read()
    position = tail.find(b"\0\0\1\xba")
    while 0 <= position < len(tail):
        code = tail[position : position + 4]
        if len(code) < 4:
            return "its last packet is incomplete" if code.strip(b"\0") else None
        if code[:3] != b"\0\0\1" or code[3] < 0xB9:
            position = tail.find(b"\0\0\1\xba", position + 1)  # damaged: go on after it
            continue
        if code[3] == 0xB9:
            return None
        if code[3] == 0xBA:
            header = tail[position + 4 : position + 14]
            if len(header) < 8:
                return "its last pack is incomplete"
            length = 12
            if header[0] >> 6 == 1:  # MPEG-2
                length = 14 + (header[9] & 7 if len(header) > 9 else 0)
        else:
            length = 6 + int.from_bytes(tail[position + 4 : position + 6].ljust(2, b"\0"), "big")
        position += length
        if position > len(tail):
            return _missing(position - len(tail), "its last packet")
    return None


def _ogg(file: BinaryIO, size: int) -> str | None:
    """RFC 3533: the last page of a stream says that it is the last."""
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0:
        return None
    header = tail[page : page + 27]
    if len(header) < 27:
        return "its last page is incomplete"
    table = tail[page + 27 : page + 27 + header[26]]
    lost = page + 27 + header[26] + sum(table) - len(tail)
    if lost > 0:
        return _missing(lost, "its last page")
    return None if header[5] & 4 else "no page says that it is the last"


def _ivf(file: BinaryIO, size: int) -> str | None:
    header = file.read(32)
    position = int.from_bytes(header[6:8], "little")
    while position < size:
        file.seek(position)
        frame = file.read(12)
        end = position + 12 + int.from_bytes(frame[:4], "little")
        if len(frame) < 12 or end > size:
            return _missing(max(end, position + 12) - size, "its last frame")
        position = end
    return None


def _yuv4mpeg(file: BinaryIO, size: int) -> str | None:
    line = file.readline(1024)
    words = {word[:1]: word[1:].decode("ascii", "replace") for word in line.split()[1:]}
    if not (words.get(b"W", "").isdigit() and words.get(b"H", "").isdigit()):
        return None
    width, height, chroma = int(words[b"W"]), int(words[b"H"]), words.get(b"C", "420")
    across = {"420": 2, "411": 4, "422": 2}.get(chroma[:3], 1)
    down = 2 if chroma.startswith("420") else 1
    planes = 0 if chroma.startswith("mono") else 2
    samples = width * height + planes * -(-width // across) * -(-height // down)
    samples += width * height if chroma.startswith("444alpha") else 0
    depth = re.search(r"(?:p|mono)(\d+)$", chroma)
    frame = samples * (2 if depth and int(depth[1]) > 8 else 1)
    position = len(line)
    while position < size:
        file.seek(position)
        header = file.readline(256)
        if not header.startswith(b"FRAME") and not b"FRAME\n".startswith(header):
            return None
        position += max(len(header), 6) + frame
    return _missing(position - size, "its last frame")


def _mxf(file: BinaryIO, size: int) -> str | None:
    """SMPTE ST 377-1: the first partition says where the footer lies, once the file is closed."""
    header = file.read(80)
    length = 1 + (header[16] & 0x7F if header[16] & 0x80 else 0)
    (footer,) = struct.unpack_from(">Q", header, 16 + length + 24)
    if footer >= size:
        return _missing(footer + 1 - size, "its footer")
    file.seek(max(0, size - 4))
    (index_length,) = struct.unpack(">I", file.read(4))
    if not footer or not 0 < index_length <= size:
        return None if not footer else "it has no index at its end"
    file.seek(size - index_length)
    return None if file.read(4) == header[:4] else "it has no index at its end"


def _nut(file: BinaryIO, size: int) -> str | None:
    file.seek(max(0, size - 12))
    index_length = int.from_bytes(file.read(8), "big")
    if index_length <= size:
        file.seek(size - index_length)
        if file.read(2) == b"NX":
            return None
    return "it has no index at its end"


def _ends_with(mark: bytes, name: str) -> Callable[[BinaryIO, int], str | None]:
    def check(file: BinaryIO, size: int) -> str | None:
        file.seek(max(0, size - 4096))
        return None if file.read().rstrip(b"\0").endswith(mark) else f"it has no {name} at its end"

    return check


def _starts_with(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(marks)


def _is_transport_stream(start: bytes) -> bool:
    return any(
        all(start[place + k * length : place + k * length + 1] == b"G" for k in range(4))
        for length in (188, 192, 204)
        for place in range(length + 4)
    )


_CHECKS: list[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], str | None]]] = [
    (_starts_with(b"\x1aE\xdf\xa3"), _matroska),
    (_starts_with(b"RIFF"), _riff),
    (_starts_with(_ASF_HEADER), _asf),
    (_starts_with(b"FLV"), _flv),
    (_starts_with(b"OggS"), _ogg),
    (_starts_with(b"DKIF"), _ivf),
    (_starts_with(b"YUV4MPEG2"), _yuv4mpeg),
    (_starts_with(b"\0\0\1\xba"), _program_stream),
    (_starts_with(b"\x06\x0e\x2b\x34\x02\x05\x01\x01"), _mxf),
    (_starts_with(b"nut/multimedia container\0"), _nut),
    (_starts_with(b"GIF8"), _ends_with(b"\x3b", "trailer")),
    (_starts_with(b"\x89PNG"), _ends_with(b"IEND\xaeB\x60\x82", "end chunk")),
    (_starts_with(b"\xff\xd8\xff"), _ends_with(b"\xff\xd9", "end of its last picture")),
    (_is_transport_stream, _transport_stream),
]
