"""FP16 typing of a graph, with named islands that stay in FP32.

Strongly typed engines compute in the types that the graph states, so the choice is made here and
not by a builder. Every node becomes FP16 except the islands:

- the camera form's conversions and the addition of the input image, because a level of 1/255 is
  only eight steps of FP16 near white;
- global reductions (means and sums over a picture) and the arithmetic around them, because a sum
  over 10^5 pixels overflows, and its rounding error reaches every pixel;
- products that a softmax takes (attention, LMFN's ALFM): where each sum runs over a picture, an
  FP16 accumulator overflows, or stops growing long before. What scales their operands stays too;
- coordinates: what GridSample's grid is computed from, and GridSample itself, whose picture and
  grid TensorRT wants in one type. FP16 has steps of a pixel from x = 1024 on;
- DeformConv, which has the coordinates inside, unless its FP16 form is asked for.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_restore.errors import InternalError, ModelError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
GREATEST = 65504.0
"""The greatest finite FP16."""

REDUCTIONS = frozenset(
    [
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceProd",
        "GlobalAveragePool",
        "GlobalLpPool",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "CumSum",
        "Softmax",
        "LogSoftmax",
    ]
)
_ARITHMETIC = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Sqrt",
        "Reciprocal",
        "Neg",
        "Abs",
        "Exp",
        "Log",
        "Min",
        "Max",
        "Clip",
        "Sum",
        "Floor",
        "Ceil",
        "Round",
    ]
)
_SQUASHING = frozenset(["Sigmoid", "HardSigmoid", "Tanh", "Softmax"])
"""A chain around a reduction ends with one of these: its result is between -1 and 1."""
_MOVES = frozenset(
    [
        "Reshape",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Identity",
        "Cast",
        "Gather",
        "Where",
        "Flatten",
        "Tile",
    ]
)
_ALWAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs whose type ONNX does not let follow the picture's."""


def to_fp16(
    model: onnx.ModelProto, *, half_deform_conv: bool = False
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of `model` typed FP16, and the names of the nodes that stay in FP32.

    The graph's inputs and outputs keep their types. Casts stand where the two meet; they are called
    after the tensor: ``fusion/Conv/to_fp32``.

    Args:
        model: a checked float32 graph, constants folded (no Constant nodes).
        half_deform_conv: type DeformConv FP16 too. Only right for a runtime that computes
            coordinates in FP32 inside of it, as ONNX Runtime and our plugin do.

    Raises:
        ModelError: the graph is typed or quantised already, or a constant does not fit into FP16.
        InternalError: the graph has subgraphs, which networks of this project do not.
    """
    _check(model)
    kept = islands(model, half_deform_conv=half_deform_conv)
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    _Typing(typed, frozenset(kept)).apply()
    return typed, kept


def islands(model: onnx.ModelProto, *, half_deform_conv: bool = False) -> tuple[str, ...]:
    """The names of the nodes that stay in FP32, in the graph's order."""
    walk = _Walk(model.graph)
    found = {i for i, node in enumerate(walk.nodes) if node.name.startswith("camera/")}
    found |= walk.skips(found)
    found |= walk.reductions()
    found |= walk.attention(found)
    found |= walk.coordinates()
    if not half_deform_conv:
        found |= {i for i, node in enumerate(walk.nodes) if node.op_type == "DeformConv"}
    return tuple(walk.nodes[i].name for i in sorted(found))


def _check(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute) or node.op_type == "Constant":
            raise InternalError(f"the node '{node.name}' ({node.op_type}) cannot be typed")
    quantised = any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in model.graph.node)
    if quantised or any(t.data_type == HALF for t in model.graph.initializer):
        raise ModelError(
            "the graph is typed or quantised already",
            expected="a float32 graph",
            hint="type the graph as it was exported",
        )


class _Walk:
    """Who makes and who takes a tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.inputs = {port.name for port in graph.input}
        self.maker = {t: i for i, node in enumerate(self.nodes) for t in node.output}
        self.takers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for tensor in node.input:
                self.takers.setdefault(tensor, []).append(i)
        self.outputs = {port.name for port in graph.output}

    def after(self, i: int) -> set[int]:
        return {j for t in self.nodes[i].output for j in self.takers.get(t, ())}

    def before(self, i: int) -> set[int]:
        return {self.maker[t] for t in self.nodes[i].input if t in self.maker}

    def skips(self, camera: set[int]) -> set[int]:
        """Additions of the input image itself, and what the output is squeezed through after."""
        image = set(self.inputs) | {t for i in camera for t in self.nodes[i].output}
        return {
            i
            for i, node in enumerate(self.nodes)
            if node.op_type in ("Add", "Sub") and image & set(node.input)
        }

    def reductions(self) -> set[int]:
        """Reductions, the arithmetic from them to the squashing, and what only feeds them."""
        found = {i for i, node in enumerate(self.nodes) if node.op_type in REDUCTIONS}
        todo = list(found)
        while todo:
            for j in self.after(todo.pop()) - found:
                operator = self.nodes[j].op_type
                if operator in _ARITHMETIC or operator in _SQUASHING:
                    found.add(j)
                    if operator not in _SQUASHING:
                        todo.append(j)
        for i in reversed(range(len(self.nodes))):
            takers = self.after(i)
            given_out = self.outputs & set(self.nodes[i].output)
            arithmetic = self.nodes[i].op_type in _ARITHMETIC
            if arithmetic and takers and takers <= found and not given_out:
                found.add(i)
        return found

    def attention(self, reductions: set[int]) -> set[int]:
        """Products that only reductions take, a softmax say, and arithmetic that feeds only them.

        Their operands may be moved (transposed, reshaped) on the way.
        """
        found: set[int] = set()
        moved: set[int] = set()
        for i in reversed(range(len(self.nodes))):
            takers, operator = self.after(i), self.nodes[i].op_type
            if not takers or self.outputs & set(self.nodes[i].output):
                continue
            if operator == "MatMul" and takers <= reductions:
                found.add(i)
            elif takers <= found | moved and operator in _MOVES:
                moved.add(i)
            elif takers <= found | moved and operator in _ARITHMETIC:
                found.add(i)
        # A move before the first arithmetic may as well move FP16.
        for i in sorted(moved):
            if self.before(i) & found:
                found.add(i)
        return found

    def coordinates(self) -> set[int]:
        """GridSample nodes, and the arithmetic that their grids come from."""
        samplers = {i for i, node in enumerate(self.nodes) if node.op_type == "GridSample"}
        tensors = [self.nodes[i].input[1] for i in samplers]
        reached: set[int] = set()
        while tensors:
            i = self.maker.get(tensors.pop(), -1)
            if i < 0 or i in reached:
                continue
            if (operator := self.nodes[i].op_type) in _ARITHMETIC or operator in _MOVES:
                reached.add(i)
                # The condition of a choice is no coordinate, and its operands need not be.
                tensors += self.nodes[i].input[1 if operator == "Where" else 0 :]
        kept = set(samplers)
        for i in sorted(reached):  # a move before the first arithmetic may as well move FP16
            if self.nodes[i].op_type not in _MOVES - {"Cast"} or self.before(i) & kept:
                kept.add(i)
        return kept


class _Typing:
    """Rewrites a graph in place."""

    def __init__(self, model: onnx.ModelProto, kept: frozenset[str]) -> None:
        self.graph, self.kept = model.graph, kept
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.floating = {v.name for v in values if v.type.tensor_type.elem_type == FLOAT}
        self.constants = {t.name: t for t in self.graph.initializer}
        self.type = {port.name: FLOAT for port in self.graph.input if port.name in self.floating}
        self.cast: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, onnx.TensorProto] = {}

    def apply(self) -> None:
        for node in self.graph.node:
            wanted = FLOAT if node.name in self.kept else HALF
            fixed = _ALWAYS_FLOAT.get(node.op_type, ())
            if node.op_type == "Cast":
                self._retarget(node, wanted)
            else:
                for place, tensor in enumerate(node.input):
                    node.input[place] = self._as(tensor, FLOAT if place in fixed else wanted)
            self.nodes.append(node)
            made = FLOAT if node.op_type == "ConstantOfShape" else wanted
            self.type.update({t: made for t in node.output if t in self.floating})
        for port in self.graph.output:
            if self.type.get(port.name) == HALF:
                self._give_back(port.name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {t for node in self.nodes for t in node.input}
        kept = [t for t in self.graph.initializer if t.name in used and t.name not in self.made]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.made.values()])
        del self.graph.value_info[:]

    def _retarget(self, node: onnx.NodeProto, wanted: int) -> None:
        """Let a cast to float go to the wanted type; it takes any type."""
        to = next(a for a in node.attribute if a.name == "to")
        if to.i == FLOAT:
            to.i = wanted

    def _as(self, tensor: str, wanted: int) -> str:
        """The name of `tensor` in the wanted type, cast or converted when it is not."""
        if tensor in self.constants:
            return self._constant(tensor, wanted)
        if self.type.get(tensor, wanted) == wanted:
            return tensor
        if (tensor, wanted) not in self.cast:
            name = f"{tensor}/to_{'fp16' if wanted == HALF else 'fp32'}"
            self.nodes.append(helper.make_node("Cast", [tensor], [name], name, to=wanted))
            self.cast[tensor, wanted] = name
        return self.cast[tensor, wanted]

    def _constant(self, name: str, wanted: int) -> str:
        tensor = self.constants[name]
        if tensor.data_type != FLOAT or wanted == FLOAT:
            return name
        half = f"{name}:fp16"
        if half not in self.made:
            values = numpy_helper.to_array(tensor)
            if np.abs(values).max(initial=0) > GREATEST:
                raise ModelError(
                    f"the constant '{name}' holds {np.abs(values).max():.3g}",
                    expected=f"constants that fit into FP16, at most {GREATEST:g}",
                    hint="export with --precision fp32, or train again with weight decay",
                )
            self.made[half] = numpy_helper.from_array(values.astype(np.float16), half)
        return half

    def _give_back(self, output: str) -> None:
        """Cast what an FP16 node gives to the type that the graph's output had."""
        inner = f"{output}/fp16"
        for node in self.nodes:
            node.output[:] = [inner if t == output else t for t in node.output]
            node.input[:] = [inner if t == output else t for t in node.input]
        self.nodes.append(helper.make_node("Cast", [inner], [output], f"{output}/Cast", to=FLOAT))
