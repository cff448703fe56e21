"""DeformConv as a node of our own, for engines that have the kernel of `export.deform_conv`.

The kernel reads offsets and mask logits from one tensor, the offset convolution's output `ow`, and
has the mask's sigmoid, the bias and the activation inside. So these nodes ::

    ow -> Slice -----------> offset \\
    ow -> Slice -> Sigmoid -> mask --> DeformConv -> PRelu

become one, ``EdgeRestoreDeformConv(image, ow, weight, bias, slope)`` of the domain
"edge_restore". TensorRT's ONNX parser takes a node that it does not know for a plugin of that name;
namespace and version are attributes of the node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_restore.errors import ModelError

OPERATOR, DOMAIN, VERSION = "EdgeRestoreDeformConv", "edge_restore", "1"


def to_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every DeformConv is our node; fp32 and fp16 graphs alike.

    The node's inputs: image (N, Cin, H, W) and ow (N, 3*G*K, Ho, Wo) of the graph's precision;
    weight (K, Cin, Cout) of the same; bias (Cout,) and slope (Cout,), float32. K is the number of
    taps, row by row; ow holds 2*G*K offsets and then G*K mask logits. The activation is
    where(y > 0, y, slope * y). The output's type and shape are in the graph's value_info, as ONNX
    cannot infer them.

    Raises:
        ModelError: a DeformConv that the kernel cannot stand for; says why.
    """
    planned = onnx.ModelProto()
    planned.CopyFrom(model)
    graph = planned.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = {v.name: v for v in (*inferred.value_info, *inferred.output)}
    reader = _Reader(graph)
    replaced: dict[int, onnx.NodeProto] = {}
    gone: set[int] = set()
    for place, node in enumerate(graph.node):
        if node.op_type != "DeformConv":
            continue
        ow = reader.offsets_and_logits(node)
        activation, slope = reader.activation(node)
        weight, bias = reader.weight(node), reader.bias(node)
        prefix = node.name.removesuffix("DeformConv")
        arrays = {
            "weight": weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[1], weight.shape[0]),
            "bias": bias,
            "slope": np.broadcast_to(slope, bias.shape),
        }
        names = []
        for label, array in arrays.items():
            names.append(f"{prefix}{OPERATOR}:{label}")
            graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(array), names[-1])
            )
        output = node.output[0] if activation is None else graph.node[activation].output[0]
        attributes: dict[str, Any] = reader.attributes(node, weight)
        replaced[place] = helper.make_node(
            OPERATOR, [node.input[0], ow, *names], [output], f"{prefix}{OPERATOR}", domain=DOMAIN,
            plugin_namespace=DOMAIN, plugin_version=VERSION, **attributes,
        )  # fmt: skip
        if output in values:
            graph.value_info.append(values[output])
        if activation is not None:
            gone.add(activation)
    nodes = [replaced.get(i, node) for i, node in enumerate(graph.node) if i not in gone]
    nodes = _without_dead(nodes, {port.name for port in graph.output})
    del graph.node[:]
    graph.node.extend(nodes)
    used = {t for node in nodes for t in node.input}
    constants = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    if replaced:
        planned.opset_import.append(helper.make_opsetid(DOMAIN, int(VERSION)))
    return planned


class _Reader:
    """Reads what stands around a DeformConv."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.maker = {t: i for i, node in enumerate(self.nodes) for t in node.output}
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.takers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for tensor in node.input:
                self.takers.setdefault(tensor, []).append(i)
        self.outputs = {port.name for port in graph.output}

    def weight(self, node: onnx.NodeProto) -> Any:
        """(Cout, Cin, Kh, Kw), float32 or float16."""
        if node.input[1] not in self.constants:
            raise _unfit(node, f"its weight '{node.input[1]}' is computed", "a constant weight")
        return self.constants[node.input[1]]

    def bias(self, node: onnx.NodeProto) -> Any:
        """(Cout,) float32, zero when the node has none."""
        name = node.input[3] if len(node.input) > 3 else ""
        if not name:
            return np.zeros(len(self.weight(node)), np.float32)
        if name not in self.constants:
            raise _unfit(node, f"its bias '{name}' is computed", "a constant bias")
        return self.constants[name].astype(np.float32)

    def attributes(self, node: onnx.NodeProto, weight: Any) -> dict[str, int]:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if given.get("group", 1) != 1:
            raise _unfit(node, f"it has {given['group']} groups", "a convolution of one group")
        square = {}
        for ours, theirs, default in (
            ("stride", "strides", [1]), ("padding", "pads", [0]), ("dilation", "dilations", [1]),
        ):  # fmt: skip
            sides = set(given.get(theirs, default))
            if len(sides) != 1:
                raise _unfit(node, f"its {theirs} are {given[theirs]}", f"equal {theirs}")
            square[ours] = int(sides.pop())
        kernel = {"kernel_h": weight.shape[2], "kernel_w": weight.shape[3]}
        return {**kernel, **square, "offset_groups": int(given.get("offset_group", 1))}

    def offsets_and_logits(self, node: onnx.NodeProto) -> str:
        """The tensor that offset and mask are cut from.

        Raises:
            ModelError: they are not cut from one tensor as the kernel reads it.
        """
        mask = node.input[4] if len(node.input) > 4 else ""
        sigmoid = self.nodes[self.maker[mask]] if mask in self.maker else None
        cuts = []
        if sigmoid is not None and sigmoid.op_type == "Sigmoid":
            cuts = [self._cut(node.input[2]), self._cut(sigmoid.input[0])]
        shape = self.weight(node).shape
        groups = next((a.i for a in node.attribute if a.name == "offset_group"), 1)
        taps = groups * shape[2] * shape[3]
        ow = cuts[0][0] if cuts and cuts[0] else ""
        if not ow or cuts != [(ow, 0, 2 * taps), (ow, 2 * taps, 3 * taps)]:
            raise _unfit(
                node, "its offset and mask are not cut from one tensor",
                f"channels 0 to {2 * taps} as offsets, {2 * taps} to {3 * taps} through a Sigmoid",
            )  # fmt: skip
        return ow

    def _cut(self, tensor: str) -> tuple[str, int, int] | None:
        """(source, first channel, one after the last) when a Slice of channels made `tensor`."""
        node = self.nodes[self.maker[tensor]] if tensor in self.maker else None
        if node is None or node.op_type != "Slice" or len(node.input) < 4:
            return None
        names = [name for name in node.input[1:] if name]
        found = [self.constants[name] for name in names if name in self.constants]
        if len(found) < len(names) or any(array.size != 1 for array in found):
            return None
        first, end, *others = (int(array.item()) for array in found)
        if any(number != 1 for number in others):  # the axis, and the step
            return None
        # Torch writes "to the end" as the greatest integer; the end is then the channels' number.
        channels = self._channels(node.input[0])
        return node.input[0], first, min(end, channels) if channels else end

    def _channels(self, tensor: str) -> int:
        node = self.nodes[self.maker[tensor]] if tensor in self.maker else None
        if node is not None and node.op_type == "Conv" and node.input[1] in self.constants:
            return len(self.constants[node.input[1]])
        return 0

    def activation(self, node: onnx.NodeProto) -> tuple[int | None, Any]:
        """The place of the activation that is fused, or None, and its slope as float32."""
        plain = None, np.ones(1, np.float32)
        takers = self.takers.get(node.output[0], [])
        if len(takers) != 1 or node.output[0] in self.outputs:
            return plain
        taker = self.nodes[takers[0]]
        if taker.op_type == "Relu":
            return takers[0], np.zeros(1, np.float32)
        if taker.op_type == "LeakyRelu":
            alpha = next((a.f for a in taker.attribute if a.name == "alpha"), 0.01)
            return takers[0], np.full(1, alpha, np.float32)
        slope = self.constants.get(taker.input[1]) if taker.op_type == "PRelu" else None
        if slope is None or slope.size not in (1, len(self.weight(node))):
            return plain
        return takers[0], slope.reshape(-1).astype(np.float32)


def _without_dead(nodes: list[onnx.NodeProto], needed: set[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to a needed tensor."""
    alive = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed = needed | set(node.input)
            alive.append(node)
    return alive[::-1]


def _unfit(node: onnx.NodeProto, problem: str, expected: str) -> ModelError:
    return ModelError(
        f"the node '{node.name}' (DeformConv) cannot become our plugin: {problem}",
        expected=expected,
        hint="export with --deformable GridSample, which takes every DeformConv",
    )
