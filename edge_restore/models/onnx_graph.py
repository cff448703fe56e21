"""What an ONNX file holds, read with numpy alone, before a library gets to see it.

An ONNX file is one message of protocol buffers (https://protobuf.dev/programming-guides/encoding,
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Only the fields that are asked about are
decoded; every length is checked against what is there before it is followed. As protocol buffers
have it, a message that stands there in pieces is the pieces together, which `extended` makes use
of: nodes and outputs are added to a graph by appending to its bytes.

Weights that lie in a file of their own ("external data") are refused, wherever in the file they
are announced: the model's hash does not cover them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_restore.errors import ModelError

FLOAT, UINT8, INT8, HALF, DOUBLE, BFLOAT16 = 1, 2, 3, 10, 11, 16
"""Element types of tensors (TensorProto.DataType)."""

_FLOATING: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f4"), HALF: np.dtype("<f2"), DOUBLE: np.dtype("<f8"),
}  # fmt: skip
_SIZES = {FLOAT: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, HALF: 2, DOUBLE: 8, 12: 4, 13: 8,
          BFLOAT16: 2}  # fmt: skip
"""Bytes of a value, by element type."""

_MAX_DEPTH = 32
"""Of graphs within nodes within graphs; ours have none."""

_Buffer = memoryview
_Value = int | _Buffer


class _Malformed(Exception):
    """Not a message of protocol buffers."""


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph.

    Attributes:
        name: of the tensor; empty within an attribute.
        type: of its elements, e.g. `FLOAT`.
        dims: its shape.
        pieces: the encoded message.
    """

    name: str
    type: int
    dims: tuple[int, ...]
    pieces: tuple[_Buffer, ...] = field(repr=False)

    @property
    def raw(self) -> tuple[memoryview, ...]:
        """The values' bytes, where they are written so."""
        return _buffers(self.pieces, 9)

    def floats(self) -> np.ndarray[Any, np.dtype[Any]] | None:
        """The values, flat; None when they are not floating point."""
        raw = b"".join(self.raw)
        if self.type == BFLOAT16:
            words = np.frombuffer(raw, "<u2") if len(raw) % 2 == 0 else np.zeros(0, "<u2")
            return (words.astype(np.uint32) << 16).view(np.float32)
        dtype = _FLOATING.get(self.type)
        if dtype is None:
            return None
        if raw:
            return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
        if self.type == FLOAT:
            return np.frombuffer(_packed(self.pieces, 4, 4), "<f4")
        if self.type == DOUBLE:
            return np.frombuffer(_packed(self.pieces, 10, 8), "<f8")
        return np.array(_integers(self.pieces, 5), np.uint16).view(np.float16)  # bits, as int32

    def count(self) -> int | None:
        """How many values it holds; None for types that this package does not read."""
        size = _SIZES.get(self.type)
        if size is None:
            return None
        if raw := self.raw:
            length = sum(len(piece) for piece in raw)
            return length // size if length % size == 0 else -1
        if self.type == FLOAT:
            return len(_packed(self.pieces, 4, 4)) // 4
        if self.type == DOUBLE:
            return len(_packed(self.pieces, 10, 8)) // 8
        return len(_integers(self.pieces, {7: 7, 12: 11, 13: 11}.get(self.type, 5)))

    def integers(self) -> tuple[int, ...]:
        """The values of a tensor of int64 or int32."""
        raw = b"".join(self.raw)
        if raw:
            values = np.frombuffer(raw, "<i8") if self.type == 7 else np.frombuffer(raw, "<i4")
            return tuple(values.tolist())
        return _integers(self.pieces, 7 if self.type == 7 else 5)


@dataclass(frozen=True)
class Node:
    """An operator of the graph; `attributes` are int, float, str, Tensor, or tuples of these."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """What messages call it: its name, else its output's."""
        return self.name or next(iter(self.outputs), "")


@dataclass(frozen=True)
class Port:
    """An input or output: an int in `shape` is fixed, None dynamic; None without a shape."""

    name: str
    type: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class OnnxGraph:
    """The top graph of a file, constants by name, and its opset (0 where it names none)."""

    nodes: tuple[Node, ...]
    constants: dict[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int


def read(content: bytes, what: str) -> OnnxGraph:
    """The graph in the bytes of a file.

    Args:
        content: the whole file.
        what: what messages call it, e.g. "'svdn.onnx'".

    Raises:
        ModelError: it is not ONNX, or keeps tensors in other files.
    """
    try:
        view = memoryview(content)
        if (name := next(_external((view,), _MODEL, 0), None)) is not None:
            raise ModelError(
                f"{what} keeps the tensor '{name}' in another file",
                expected="a model in one file, all of which its hash covers",
                hint="save it with its weights inside (onnx.save without external data)",
            )
        graphs = _buffers((view,), 7)
        opsets = [_message_opset(entry) for entry in _buffers((view,), 8)]
        nodes = tuple(_node(piece) for piece in _buffers(graphs, 1))
        tensors = [_tensor((piece,)) for piece in _buffers(graphs, 5)]
        inputs, outputs = (tuple(_port(p) for p in _buffers(graphs, n)) for n in (11, 12))
        if not nodes or not outputs:
            raise _Malformed
    except (_Malformed, ValueError, struct.error, OverflowError):
        raise ModelError(
            f"{what} is not an ONNX file",
            expected="an ONNX file that `python -m export` wrote",
            hint="copy it again from where it was made, or export it anew",
        ) from None
    constants = {tensor.name: tensor for tensor in tensors}
    taken = tuple(port for port in inputs if port.name not in constants)
    opset = next((version for domain, version in opsets if domain in ("", "ai.onnx")), 0)
    return OnnxGraph(nodes, constants, taken, outputs, opset)


def check_constants(graph: OnnxGraph, what: str) -> None:
    """Make sure that every constant is as large as its shape says, and of finite numbers.

    Raises:
        ModelError: one is not; names it.
    """
    held = [
        (node.label, value)
        for node in graph.nodes
        for value in node.attributes.values()
        if isinstance(value, Tensor)
    ]
    for name, tensor in [*graph.constants.items(), *held]:
        count = tensor.count()
        if count is not None and count != math.prod(tensor.dims):
            raise ModelError(
                f"{what} is damaged: '{name}' holds {count} values, its shape is "
                f"{list(tensor.dims)}",
                expected="as many values as the shape says",
                hint="export the model again",
            )
        values = tensor.floats()
        if values is None:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            bad = ~np.isfinite(values)
        if count := int(bad.sum()):
            raise ModelError(
                f"{what} has weights that are not finite: {count} of {values.size} values "
                f"of '{name}'",
                expected="finite numbers",
                hint="train again or take an earlier checkpoint, and export that",
            )


def extended(
    content: bytes, nodes: Iterable[tuple[str, Sequence[str], str, dict[str, int]]],
    outputs: Iterable[tuple[str, int]],
) -> bytes:  # fmt: skip
    """A file's bytes with nodes after its own, and with further outputs.

    Args:
        nodes: of one output: operator, inputs, output, attributes of integers.
        outputs: name and type; of any shape.
    """
    added = bytearray()
    for operator, inputs, output, attributes in nodes:
        node = b"".join(_text(1, name) for name in inputs) + _text(2, output)
        node += _text(3, output) + _text(4, operator)
        for name, value in attributes.items():
            node += _chunk(5, _text(1, name) + _number(3, value) + _number(20, 2))
        added += _chunk(1, node)
    for name, kind in outputs:
        added += _chunk(12, _text(1, name) + _chunk(2, _chunk(1, _number(1, kind))))
    return content + _chunk(7, bytes(added))


def _fields(message: _Buffer) -> Iterator[tuple[int, int, _Value]]:
    """Field number, wire type and value of each field of a message, in order."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if not number:
            raise _Malformed
        if kind == 0:
            value, place = _varint(message, place)
            yield number, kind, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _Malformed  # groups, which ONNX has none of
        if size > end - place:
            raise _Malformed
        yield number, kind, message[place : place + size]
        place += size


def _varint(message: _Buffer, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _Malformed
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise _Malformed


def _buffers(pieces: Iterable[_Buffer], number: int) -> tuple[_Buffer, ...]:
    """The values of one field of strings, bytes or messages."""
    return tuple(
        value
        for piece in pieces
        for found, kind, value in _fields(piece)
        if found == number and kind == 2 and isinstance(value, memoryview)
    )


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _integers(pieces: Iterable[_Buffer], number: int) -> tuple[int, ...]:
    """The values of one field of integers, packed or not."""
    found = []
    for piece in pieces:
        for field_number, _, value in _fields(piece):
            if field_number != number:
                continue
            if isinstance(value, int):
                found.append(_signed(value))
                continue
            place = 0
            while place < len(value):
                one, place = _varint(value, place)
                found.append(_signed(one))
    return tuple(found)


def _packed(pieces: Iterable[_Buffer], number: int, size: int) -> bytes:
    """The bytes of one field of floats or doubles, packed or not."""
    parts = [
        bytes(value)
        for piece in pieces
        for found, kind, value in _fields(piece)
        if found == number and kind in (1, 2, 5) and isinstance(value, memoryview)
    ]
    content = b"".join(parts)
    if len(content) % size:
        raise _Malformed
    return content


def _string(pieces: Iterable[_Buffer], number: int) -> str:
    values = _buffers(pieces, number)
    return str(bytes(values[-1]), "utf-8") if values else ""


def _integer(pieces: Iterable[_Buffer], number: int, default: int = 0) -> int:
    values = _integers(pieces, number)
    return values[-1] if values else default


def _message_opset(entry: _Buffer) -> tuple[str, int]:
    return _string((entry,), 1), _integer((entry,), 2)


def _tensor(pieces: tuple[_Buffer, ...]) -> Tensor:
    return Tensor(_string(pieces, 8), _integer(pieces, 2), _integers(pieces, 1), pieces)


def _node(piece: _Buffer) -> Node:
    one = (piece,)
    inputs, outputs = (tuple(str(bytes(v), "utf-8") for v in _buffers(one, n)) for n in (1, 2))
    attributes = dict(_attribute(a) for a in _buffers(one, 5))
    return Node(_string(one, 3), _string(one, 4), _string(one, 7), inputs, outputs, attributes)


def _attribute(piece: _Buffer) -> tuple[str, Any]:
    one = (piece,)
    name, kind = _string(one, 1), _integer(one, 20)
    value: Any = None
    if kind == 1:
        value = struct.unpack("<f", _packed(one, 2, 4)[-4:] or bytes(4))[0]
    elif kind == 2:
        value = _integer(one, 3)
    elif kind == 3:
        value = _string(one, 4)
    elif kind == 4:
        value = _tensor(_buffers(one, 5))
    elif kind == 6:
        value = tuple(np.frombuffer(_packed(one, 7, 4), "<f4").tolist())
    elif kind == 7:
        value = _integers(one, 8)
    elif kind == 8:
        value = tuple(str(bytes(v), "utf-8") for v in _buffers(one, 9))
    return name, value


def _port(piece: _Buffer) -> Port:
    kind = _buffers(_buffers((piece,), 2), 1)  # TypeProto.tensor_type
    shapes = _buffers(kind, 2)
    dims = tuple(_dimension(dim) for dim in _buffers(shapes, 1))
    return Port(_string((piece,), 1), _integer(kind, 1), dims if shapes else None)


def _dimension(piece: _Buffer) -> int | None:
    size = _integer((piece,), 1, -1)
    return size if size >= 0 else None


# The fields of each kind of message that hold tensors somewhere below: number -> kind.
_TENSOR: dict[int, Any] = {}
_SPARSE = {1: _TENSOR, 2: _TENSOR}
_GRAPH: dict[int, Any] = {5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE: dict[int, Any] = {
    5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE,
}  # fmt: skip
_NODE = {5: _ATTRIBUTE}
_GRAPH[1] = _NODE
_FUNCTION = {7: _NODE, 11: _ATTRIBUTE}
_TRAINING = {1: _GRAPH, 2: _GRAPH}
_MODEL = {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION}


def _external(pieces: tuple[_Buffer, ...], kind: dict[int, Any], depth: int) -> Iterator[str]:
    """The names of tensors, in messages of a kind, whose values lie in other files."""
    if depth > _MAX_DEPTH:
        raise _Malformed
    for piece in pieces:
        if kind is _TENSOR:
            one = (piece,)
            # 13 is where the data lies, 14 says that it does not lie here
            if _buffers(one, 13) or any(_integers(one, 14)):
                yield _string(one, 8) or "(without a name)"
            continue
        for number, wire, value in _fields(piece):
            if number in kind and wire == 2 and isinstance(value, memoryview):
                yield from _external((value,), kind[number], depth + 1)


def _number(field_number: int, value: int) -> bytes:
    return _encoded(field_number << 3) + _encoded(value & 0xFFFFFFFFFFFFFFFF)


def _chunk(field_number: int, content: bytes) -> bytes:
    return _encoded(field_number << 3 | 2) + _encoded(len(content)) + content


def _text(field_number: int, value: str) -> bytes:
    return _chunk(field_number, value.encode())


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
