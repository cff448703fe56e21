"""Reading tensors from a .safetensors file with numpy alone.

The format (https://huggingface.co/docs/safetensors): eight bytes, little-endian, give the length of
a JSON header; it maps each tensor's name to its dtype, shape and place in the bytes that follow.
The file comes from outside: every figure in it is checked before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edge_restore.errors import ModelError
from edge_restore.storage.json_file import abridged, decode
from edge_restore.storage.plain_file import Kind, open_plain

KIND = Kind(
    "weights",
    "a safetensors file",
    "fetch or write the file again; pickles (.pth, .pt) are not opened",
    ModelError,
)
_MAX_HEADER = 16 << 20
_MAX_DIMENSIONS = 8
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: its dtype as the format writes it, and its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, size: int) -> dict[str, TensorEntry]:
    """The tensors in an open file of `size` bytes, by name; nothing else is read.

    Raises:
        ValueError: it is not safetensors, or a figure in its header does not fit; says which.
    """
    file.seek(0)
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
        if first[:2] == b"PK" or first[:1] == b"\x80":
            raise ValueError("it is a pickle, which can run code when it is opened")
        raise ValueError("it has no header of safetensors")
    header = decode(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    start = 8 + length
    found = {name: _entry(name, entry, start) for name, entry in header.items()}
    position = start
    for name, entry in sorted(found.items(), key=lambda one: (one[1].begin, one[1].end)):
        if entry.begin != position:
            raise ValueError(f"its tensor {abridged(name)} overlaps another, or leaves a gap")
        position = entry.end
    if position != size:
        raise ValueError(f"its tensors take {position} bytes, and the file has {size}")
    return found


def read_floats(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
    """The named tensors as float32; those that the file does not have are left out.

    Raises:
        ModelError: no such file, not safetensors, or a tensor that is not of finite real numbers.
    """
    if not path.exists():
        raise ModelError(
            f"there is no weights file '{path}'",
            expected="a .safetensors file",
            hint="check the path",
        )
    with open_plain(path, KIND) as (file, size):
        try:
            entries = read_header(file, size)
            wanted = {name: entries[name] for name in names if name in entries}
            return {name: _read(file, name, entry) for name, entry in wanted.items()}
        except (ValueError, MemoryError) as error:
            raise KIND.unusable(path, str(error) or "there is not enough memory") from None


def _read(file: BinaryIO, name: str, entry: TensorEntry) -> npt.NDArray[np.float32]:
    if entry.dtype not in _FLOATS:
        raise ValueError(f"its tensor {abridged(name)} is {entry.dtype}, not F16, F32 or F64")
    file.seek(entry.begin)
    content = file.read(entry.end - entry.begin)
    if len(content) != entry.end - entry.begin:
        raise ValueError("it was cut off while it was read")
    values = np.frombuffer(content, _FLOATS[entry.dtype]).reshape(entry.shape)
    with np.errstate(over="ignore"):
        tensor = values.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise ValueError(f"its tensor {abridged(name)} holds numbers that are not finite")
    return tensor


def _entry(name: str, entry: Any, start: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        bits = math.prod(shape) * _BITS[dtype] if whole and len(shape) <= _MAX_DIMENSIONS else -1
    except (KeyError, TypeError, ValueError):
        found = f"it describes its tensor {abridged(name)} as {abridged(entry)}"
        raise ValueError(found) from None
    if bits < 0 or 8 * (end - begin) != bits:
        found = f"it describes its tensor {abridged(name)} by sizes that do not fit together"
        raise ValueError(found)
    return TensorEntry(dtype, tuple(shape), start + begin, start + end)
