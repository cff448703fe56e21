"""Reading the uint8 arrays of an uncompressed .npz file: mapped, and checked to the last byte.

An .npz is a zip file of .npy files (numpy.lib.format). Ours hold one kind of array, uint8 in C's
order, stored as it is; anything else is refused before memory is taken for it. The zip's checksum
of every member is compared before its array is given.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_restore.storage.plain_file import Kind, open_plain

Array = npt.NDArray[np.uint8]

_LOCAL = struct.Struct("<4s22xHH")
_HEAD = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,15}, ){0,7}(?:\d{1,15},?)?)\), \} *\n"
)
_BLOCK = 1 << 24
_COMMENT = 0xFFFF
_MOST_DIRECTORY = 1 << 25


def read_arrays(path: str | Path, kind: Kind) -> dict[str, Array]:
    """The arrays by their names, read-only; their pages are read from the disk when used.

    Raises:
        kind.error: no such file, not such a file, or not as it was written.
    """
    with open_plain(path, kind) as (file, size):
        if not size:
            raise kind.unusable(path, "it is empty")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if _directory_size(content) > _MOST_DIRECTORY:
            raise kind.unusable(path, f"its directory is larger than {_MOST_DIRECTORY >> 20} MiB")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except Exception as error:  # BadZipFile, and what damage makes of its own arithmetic
            raise kind.unusable(path, f"it is not an .npz file ({error})") from error
    arrays: dict[str, Array] = {}
    free = 0  # no byte belongs to two members, whose checksums could take for ever
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        try:
            name = _name(entry, arrays)
            if entry.header_offset < free:
                raise ValueError("lies in the one before")
            arrays[name] = _array(content, entry)
            free = entry.header_offset + entry.file_size
        except ValueError as error:
            shown = entry.filename[:60].encode("unicode_escape").decode()
            raise kind.unusable(path, f"its member '{shown}' {error}") from None
    return arrays


def _directory_size(content: mmap.mmap) -> int:
    """The bytes of the archive's directory, of which zipfile makes objects; 0 when not found.

    APPNOTE.TXT of PKWARE, sections 4.3.14 and 4.3.16.
    """
    tail = content[max(0, len(content) - (_COMMENT + 22 + 20 + 56)) :]
    sizes = [0]
    for mark, begin, end in ((b"PK\5\6", 12, 16), (b"PK\6\6", 40, 48)):
        place = tail.rfind(mark)
        if place >= 0:
            sizes.append(int.from_bytes(tail[place + begin : place + end], "little"))
    # All bits are set where the size is given in the wide form.
    return max(size for size in sizes if size != 0xFFFFFFFF)


def _name(entry: zipfile.ZipInfo, taken: dict[str, Array]) -> str:
    name = entry.filename.removesuffix(".npy")
    if name == entry.filename or not re.fullmatch(r"\w{1,200}", name, re.ASCII):
        raise ValueError("has no name of an array")
    if name in taken:
        raise ValueError("is there twice")
    return name


def _array(content: mmap.mmap, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError("is compressed or encrypted")
    begin = entry.header_offset
    head = content[begin : begin + _LOCAL.size] if begin >= 0 else b""
    if len(head) < _LOCAL.size:
        raise ValueError("lies beyond the end of the file")
    mark, name_length, extra_length = _LOCAL.unpack(head)
    begin += _LOCAL.size + name_length + extra_length
    end = begin + entry.file_size
    if mark != b"PK\3\4" or entry.compress_size != entry.file_size or end > len(content):
        raise ValueError("lies beyond the end of the file")
    checksum = 0
    for at in range(begin, end, _BLOCK):
        checksum = zlib.crc32(content[at : min(at + _BLOCK, end)], checksum)
    if checksum != entry.CRC:
        raise ValueError("is not as it was written: its checksum is wrong")
    start = content[begin : min(begin + 10, end)]
    if start[:8] != b"\x93NUMPY\x01\x00" or len(start) < 10:
        raise ValueError("is no array of numpy's format 1.0")
    data = begin + 10 + int.from_bytes(start[8:], "little")
    if data > end:
        raise ValueError("is no array of numpy's format 1.0")
    match = _HEAD.fullmatch(content[begin + 10 : data])
    if match is None:
        raise ValueError("is not an array of uint8 in C's order")
    shape = tuple(int(side) for side in match[1].split(b",") if side.strip())
    if math.prod(shape) != end - data:
        raise ValueError(f"says that it is {shape}, and has {end - data} bytes")
    found: Array = np.frombuffer(content, np.uint8, end - data, data)
    return found.reshape(shape)
