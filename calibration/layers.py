"""The convolutions of an exported graph: what each costs, and which of them may become INT8.

The default policy takes interior convolutions alone. Kept in floating point are

- the first and the last convolution, which meet the picture itself;
- what predicts offsets and masks: convolutions all of whose results end in a deformable
  convolution's offset or mask input. An offset is a distance in pixels, a level of 255 too coarse;
- deformable and transposed convolutions, and products of activations: engines have no INT8 kernels
  that we know to be right for them;
- grouped convolutions, and those of a single pixel after a global reduction: nothing is gained;
- convolutions whose kernel is computed from parameters (ACFM of LMFN): three numbers gate all
  channels, and training with quantisation could not follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
import torch
from onnx import shape_inference

from edge_restore.errors import ModelError
from train import profiler

QUANTISING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_OFFSET_INPUTS = {"DeformConv": (2, 4)}
_SIZE = (360, 640)
"""(height, width) that shares of multiply-accumulates of a dynamic graph are counted at, or the
next multiple."""


@dataclass(frozen=True)
class Layer:
    """A convolution of any kind.

    Attributes:
        name: of its node.
        operator: "Conv", "ConvTranspose" or "DeformConv".
        tensor: the activation that it reads.
        macs: multiply-accumulates at the size counted, by `train.profiler`'s formulas.
        kept: why it stays in floating point; "" where it may become INT8.
    """

    name: str
    operator: str
    tensor: str
    macs: int
    kept: str


def layers(model: onnx.ModelProto, multiple: int) -> list[Layer]:
    """The convolutions in the graph's order.

    Args:
        model: a float32 graph as `python -m export` writes it, with DeformConv nodes if any.
        multiple: of the card, that height and width must be.

    Raises:
        ModelError: the graph is quantised already, or written for an engine.
    """
    check(model)
    walk = _Walk(model, multiple)
    return [walk.layer(node) for node in model.graph.node if node.op_type in _COUNTED]


def check(model: onnx.ModelProto) -> None:
    """Make sure that Q/DQ nodes can be placed in this graph; ModelError otherwise."""
    operators = {node.op_type for node in model.graph.node}
    if operators & set(QUANTISING):
        raise ModelError(
            "the graph is quantised already",
            expected="a floating-point graph",
            hint="quantise the graph that `python -m export` wrote",
        )
    foreign = sorted({n.op_type for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign or "GridSample" in operators:
        named = ", ".join(foreign) or "GridSample"
        raise ModelError(
            f"the graph has {named} nodes, which hide what is an offset",
            expected="a graph with standard DeformConv nodes, to choose layers and ranges by",
            hint="quantise the DeformConv form, then this one with the --scales of the first",
        )
    if any(a.type in (a.GRAPH, a.GRAPHS) for n in model.graph.node for a in n.attribute):
        raise ModelError(
            "the graph has subgraphs (If, Loop)",
            expected="a plain graph, as `python -m export` writes it",
            hint="export the network with this project",
        )
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
        raise ModelError(
            "the graph is typed FP16",
            expected="a float32 graph, to choose layers and ranges by",
            hint="quantise the FP32 graph, then this one with the --scales of the first",
        )


class _Walk:
    def __init__(self, model: onnx.ModelProto, multiple: int) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.constants = {t.name: t for t in graph.initializer}
        self.shapes = _shapes(model, multiple)
        self.takers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.nodes:
            for place, tensor in enumerate(node.input):
                self.takers.setdefault(tensor, []).append((node, place))
        self.makers = {t: node for node in self.nodes for t in node.output}
        self.ends: dict[str, set[str]] = {}

    def layer(self, node: onnx.NodeProto) -> Layer:
        return Layer(node.name, node.op_type, node.input[0], self._macs(node), self._kept(node))

    def _macs(self, node: onnx.NodeProto) -> int:
        weight = torch.empty(list(self.constants[node.input[1]].dims), device="meta")
        made, read = self.shapes[node.output[0]], self.shapes[node.input[0]]
        if node.op_type == "DeformConv":
            pixels = math.prod(made[2:])
            return profiler.deformable_convolution(weight, read[1], pixels)
        counted = read if node.op_type == "ConvTranspose" else made
        return profiler.convolution(weight, counted[0] * math.prod(counted[2:]))

    def _kept(self, node: onnx.NodeProto) -> str:
        if node.op_type != "Conv":
            return f"a {node.op_type} node"
        if any(a.name == "group" and a.i != 1 for a in node.attribute):
            return "a grouped convolution"
        if math.prod(self.shapes[node.output[0]][2:]) == 1:
            return "of a single pixel"
        if node.input[1] != f"{node.name.rpartition('/')[0]}.weight":
            return "its kernel is computed"
        if not self._convolves_before(node):
            return "the first convolution"
        ends = self._ends(node)
        if ends == {"offset"}:
            return "predicts offsets or masks"
        if "picture" in ends:
            return "the last convolution"
        return ""

    def _convolves_before(self, node: onnx.NodeProto) -> bool:
        todo, seen = [node.input[0]], set()
        while todo:
            maker = self.makers.get(todo.pop())
            if maker is None or maker.name in seen:
                continue
            if maker.op_type in _COUNTED:
                return True
            seen.add(maker.name)
            todo += maker.input
        return False

    def _ends(self, node: onnx.NodeProto) -> set[str]:
        """What takes the results: "offset", "picture" (the graph's output), "features".

        A convolution ends the search, unless it is one that predicts offsets itself.
        """
        if node.name in self.ends:
            return self.ends[node.name]
        ends: set[str] = set()
        seen: set[str] = set()
        todo = list(node.output)
        while todo:
            tensor = todo.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            takers = self.takers.get(tensor, [])
            if not takers:
                ends.add("picture")
            for taker, place in takers:
                if place in _OFFSET_INPUTS.get(taker.op_type, ()):
                    ends.add("offset")
                elif taker.op_type in _COUNTED:
                    onward = taker.op_type == "Conv" and self._ends(taker) == {"offset"}
                    ends.add("offset" if onward else "features")
                else:
                    todo += taker.output
        self.ends[node.name] = ends
        return ends


_COUNTED = ("Conv", "ConvTranspose", "DeformConv")


def _shapes(model: onnx.ModelProto, multiple: int) -> dict[str, list[int]]:
    """The shape of every tensor, dynamic sides at `_SIZE`."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for port in (*fixed.graph.input, *fixed.graph.output):
        dims = port.type.tensor_type.shape.dim
        first = 1 if dims[-1].dim_value == 3 and port.type.tensor_type.elem_type == 2 else 2
        for axis, side in zip((first, first + 1), _SIZE, strict=True):
            if not dims[axis].dim_value:
                dims[axis].dim_value = -(-side // multiple) * multiple
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    lacking = [
        t for n in model.graph.node if n.op_type in _COUNTED for t in (n.input[0], n.output[0])
        if not shapes.get(t) or 0 in shapes[t]
    ]  # fmt: skip
    if lacking:
        raise ModelError(
            f"the shape of '{lacking[0]}' cannot be inferred",
            expected="a graph as `python -m export` writes it",
            hint="export the network with this project",
        )
    return shapes
