"""A model: its path, its card, and the bytes that were compared with the card.

The file is read once. What a backend runs, a builder parses and a quantiser rewrites is `content`,
never the file again, so that a file which is replaced in the meantime changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_restore.errors import ModelError
from edge_restore.models import onnx_graph
from edge_restore.models.cards import (
    ModelCard,
    TensorPort,
    check_digest,
    read_described,
    verified_model,
)
from edge_restore.models.onnx_graph import OnnxGraph

_CHANNELS = 3
_TYPES = {onnx_graph.UINT8: "uint8", onnx_graph.FLOAT: "float32"}


@dataclass(frozen=True)
class Model:
    """An ONNX file that is what its card says.

    Attributes:
        path: where it was read, for messages.
        card: its card.
        content: the whole file; all weights are in it, and they are finite.
    """

    path: Path
    card: ModelCard
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Model:
        """The model in the file `path`, with the card beside it.

        Raises:
            ModelError: there is no such file or card, or it is not a model of ours: not ONNX, its
                weights elsewhere or not finite, its input or output not RGB or not as the card
                says.
            CardError: the card is malformed, or the file has another hash.
        """
        card, content = verified_model(path)
        return cls._checked(path, card, content)

    @classmethod
    def of_card(cls, path: Path, card: ModelCard) -> Model:
        """The model in the file `path`, which must be the one of a card that was read before.

        Raises:
            ModelError, CardError: as `read`.
        """
        content = read_described(path)
        check_digest(path, content, card.onnx.sha256)
        return cls._checked(path, card, content)

    @classmethod
    def _checked(cls, path: Path, card: ModelCard, content: bytes) -> Model:
        graph = onnx_graph.read(content, f"'{path}'")
        onnx_graph.check_constants(graph, f"'{path}'")
        _check_port(path, "takes", graph.inputs, card.input)
        _check_port(path, "gives", graph.outputs, card.output)
        _check_one_size(path, card)
        return cls(path, card, content)

    @property
    def graph(self) -> OnnxGraph:
        """Its nodes, constants and ports, decoded anew."""
        return onnx_graph.read(self.content, f"'{self.path}'")


def _check_port(
    path: Path, verb: str, found: tuple[onnx_graph.Port, ...], port: TensorPort
) -> None:
    """Make sure that the graph has the one port that the card describes, for RGB.

    A dimension that the graph leaves open may be fixed in the card; not the other way round.
    """
    if port.shape[port.layout.index("C")] != _CHANNELS or port.shape[0] not in (1, None):
        raise ModelError(
            f"'{path}' {verb} {_described(port.shape, port.layout)}, as its card says",
            expected=f"one image of {_CHANNELS} channels (RGB)",
            hint="export a network of RGB images",
        )
    if len(found) != 1 or found[0].name != port.name:
        names = ", ".join(f"'{each.name}'" for each in found) or "nothing"
        raise ModelError(
            f"'{path}' {verb} {names}",
            expected=f"'{port.name}' alone, as its card says",
            hint="export the model again, so that card and graph agree",
        )
    shape, kind = found[0].shape, _TYPES.get(found[0].type, "another type")
    agree = shape is None or (
        len(shape) == len(port.shape)
        and all(a in (None, b) for a, b in zip(shape, port.shape, strict=True))
    )
    if not agree or kind != port.dtype:
        raise ModelError(
            f"'{path}' {verb} '{port.name}' of {kind}, {_sides(shape or ())}",
            expected=f"{port.dtype}, {_sides(port.shape)} ({port.layout}), as its card says",
            hint="export the model again, so that card and graph agree",
        )


def _check_one_size(path: Path, card: ModelCard) -> None:
    """Make sure that a graph of a fixed size gives frames of the size that it takes."""
    sides = [
        tuple(port.shape[port.layout.index(axis)] for axis in "HW")
        for port in (card.input, card.output)
    ]
    if any(None not in pair and pair[0] != pair[1] for pair in zip(*sides, strict=True)):
        taken, given = (f"{width or '?'}x{height or '?'}" for height, width in sides)
        raise ModelError(
            f"'{path}' takes frames of {taken} and gives frames of {given}",
            expected="frames of the same size, restored",
            hint="use a model that restores; one that enlarges is not run here",
        )


def _described(shape: tuple[int | None, ...], layout: str) -> str:
    sizes = dict(zip(layout, shape, strict=True))
    return f"{sizes['N'] or 'any number of'} image(s) of {sizes['C'] or 'any number of'} channel(s)"


def _sides(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
