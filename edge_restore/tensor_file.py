"""Reading tensors from a .safetensors file with numpy alone.

The format (https://huggingface.co/docs/safetensors): eight bytes, little-endian, give the length of
a JSON header; it maps each tensor's name to its dtype, shape and place in the bytes that follow.
The file comes from outside: every figure in it is checked before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_restore.errors import ModelError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_LONGEST_HEADER = 100_000_000


def read_floats(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
    """The named tensors as float32; those that the file does not have are left out.

    Raises:
        ModelError: no such file, not safetensors, or a tensor that is not of real numbers.
    """
    if not path.is_file():
        raise ModelError(
            f"there is no weights file '{path}'",
            expected="a .safetensors file",
            mend="check the path",
        )
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise _broken(path, "has no header")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise _broken(path, "has a header that is not JSON") from None
        if not isinstance(header, dict):
            raise _broken(path, "has a header that is not a JSON object")
        tensors = {}
        for name in names:
            if name in header:
                tensors[name] = _read(path, file, 8 + length, size, name, header[name])
    return tensors


def _read(
    path: Path, file: Any, start: int, size: int, name: str, entry: Any
) -> npt.NDArray[np.float32]:
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        dtype = np.dtype(_DTYPES[kind])
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        raise _broken(path, f"describes its tensor '{name}' as {entry!r:.80}") from None
    if not whole or end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
        raise _broken(path, f"describes its tensor '{name}' by sizes that do not fit together")
    file.seek(start + begin)
    return np.frombuffer(file.read(end - begin), dtype).reshape(shape).astype(np.float32)


def _broken(path: Path, problem: str) -> ModelError:
    return ModelError(
        f"'{path}' {problem}",
        expected="a safetensors file with tensors of F16, F32 or F64",
        mend="fetch or write the file again; pickles (.pth, .pt) are not opened",
    )
