"""Q/DQ nodes where TensorRT fuses them.

`onnxruntime.quantization.quantize_static` (1.31) was tried and falls short of three things that we
need: it has no least-squared-error method; it quantises what a convolution gives as well as what it
reads, so that a residual addition and a PReLU are rounded twice where an engine fuses both into the
convolution before it rounds once; and it finds ranges by running the very graph, which ONNX Runtime
cannot do where our plugin's nodes are. So the nodes are placed here:

- what an INT8 convolution reads passes QuantizeLinear and DequantizeLinear, one pair for a tensor
  however many convolutions read it; per tensor, symmetric;
- its weights are INT8 constants with a DequantizeLinear, per output channel, symmetric; the bias
  stays as it is;
- nothing is put on what it gives: activation and addition follow in floating point, and the next
  convolution's pair rounds the sum. An engine fuses the three;
- an addition of an INT8 convolution's result to a tensor that has a pair takes the skip connection
  from the pair (`Scales.skips`), so that the fused kernel reads 8 bits.

Scales have the type of the graph around them, FP32 or FP16, and are FP16 numbers in both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.ranges import LEVELS, SMALLEST_SCALE
from calibration.scales import Scales
from edge_restore.errors import InternalError, ModelError


def insert(model: onnx.ModelProto, scales: Scales) -> onnx.ModelProto:
    """A copy of `model` whose convolutions `scales.layers` are INT8.

    Args:
        model: of any form of the network, typed FP32 or FP16, not quantised.

    Raises:
        ModelError: the graph lacks a layer that the scales name.
        InternalError: the result is not valid ONNX.
    """
    return finish(place(model, scales.layers, scales.skips))


def place(
    model: onnx.ModelProto, layers: Mapping[str, float], skips: tuple[str, ...]
) -> onnx.ModelProto:
    """As `insert`, without looking at the result."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = {node.name: node for node in made.graph.node}
    if lacking := [name for name in (*layers, *skips) if name not in nodes]:
        raise ModelError(
            f"the graph has no node '{lacking[0]}', which the scales name"
            + (f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""),
            expected="another form of the graph that the scales were found on",
            hint="export it from the same weights with this version",
        )
    placing = _Placing(made)
    for name, step in layers.items():
        placing.quantise(nodes[name], step)
    for name in skips:
        placing.take_skip(nodes[name])
    placing.close()
    return made


def skips(model: onnx.ModelProto, layers: Mapping[str, float]) -> tuple[str, ...]:
    """Additions of what an INT8 convolution gives to a tensor that an INT8 convolution reads."""
    makers = {t: node for node in model.graph.node for t in node.output}
    read = {node.input[0] for node in model.graph.node if node.name in layers}
    found = []
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        made = [t for t in node.input if t in makers and makers[t].name in layers]
        if len(made) == 1 and any(t in read for t in node.input if t not in made):
            found.append(node.name)
    return tuple(found)


def shared_steps(model: onnx.ModelProto, steps: Mapping[str, float]) -> dict[str, float]:
    """`steps` by tensor, equal on both sides of a concatenation.

    Where the result of a Concat is quantised and so is one of its parts, both take the greater
    step: then the part's 8 bits can be copied, and nothing is rounded a second time.
    """
    shared = dict(steps)
    for node in model.graph.node:
        if node.op_type == "Concat" and node.output[0] in shared:
            group = [t for t in (*node.input, node.output[0]) if t in shared]
            shared.update(dict.fromkeys(group, max(shared[t] for t in group)))
    return shared


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` after onnx's checks; InternalError when it is not valid.

    A graph with nodes of a plugin cannot be checked in full, as onnx does not know their types.
    """
    foreign = any(node.domain not in ("", "ai.onnx") for node in model.graph.node)
    try:
        onnx.checker.check_model(model, full_check=not foreign)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"the quantised graph is not valid: {error}") from error
    return model


def quantise_weights(
    weights: np.ndarray, dtype: type[np.floating] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (Cout, ...) as INT8 of the same shape and scales (Cout,) of `dtype`.

    Each output channel has the step that its greatest magnitude needs.
    """
    flat = np.abs(weights.reshape(len(weights), -1).astype(np.float64)).max(axis=1)
    steps = np.maximum(flat / LEVELS, SMALLEST_SCALE).astype(np.float16).astype(np.float64)
    columns = steps.reshape(-1, *[1] * (weights.ndim - 1))
    levels = np.clip(np.rint(weights.astype(np.float64) / columns), -LEVELS, LEVELS)
    return levels.astype(np.int8), steps.astype(dtype)


class _Placing:
    """Rewrites a graph in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.before: dict[str, list[onnx.NodeProto]] = {}
        self.pairs: dict[str, tuple[str, float]] = {}
        self.added: list[onnx.TensorProto] = []

    def quantise(self, node: onnx.NodeProto, step: float) -> None:
        """Make one convolution INT8."""
        weight = self.constants[node.input[1]]
        values = numpy_helper.to_array(weight)
        node.input[0] = self._pair(node, node.input[0], step, values.dtype.type)
        levels, steps = quantise_weights(values, values.dtype.type)
        name = f"{node.name}:weight"
        self._constant(f"{name}_int8", levels)
        self._constant(f"{name}_scale", steps)
        self._constant(f"{name}_zero", np.zeros(len(levels), np.int8))
        inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        node_name = f"{node.name}/weight/DequantizeLinear"
        made = helper.make_node("DequantizeLinear", inputs, [name], node_name, axis=0)
        self.before.setdefault(node.name, []).append(made)
        node.input[1] = name

    def take_skip(self, node: onnx.NodeProto) -> None:
        """Let an addition take the tensor that has a pair from it."""
        for place, tensor in enumerate(node.input):
            if tensor in self.pairs:
                node.input[place] = self.pairs[tensor][0]

    def close(self) -> None:
        """Put the new nodes in before those that need them, and drop constants without use."""
        nodes = []
        for node in self.graph.node:
            nodes += [*self.before.get(node.name, ()), node]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {t for node in nodes for t in node.input}
        kept = [t for t in self.graph.initializer if t.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.added])

    def _pair(self, node: onnx.NodeProto, tensor: str, step: float, dtype: type) -> str:
        """The name of `tensor` after its pair, which is made where there is none yet."""
        if tensor in self.pairs:
            name, known = self.pairs[tensor]
            if known != step:
                raise InternalError(f"two scales for the tensor '{tensor}': {known} and {step}")
            return name
        levels, name = f"{tensor}/int8", f"{tensor}/dequantised"
        scale, zero = f"{tensor}:scale", f"{tensor}:zero"
        self._constant(scale, np.array(step, dtype))
        self._constant(zero, np.array(0, np.int8))
        q = helper.make_node(
            "QuantizeLinear", [tensor, scale, zero], [levels], f"{tensor}/QuantizeLinear"
        )
        dq = helper.make_node(
            "DequantizeLinear", [levels, scale, zero], [name], f"{tensor}/DequantizeLinear"
        )
        self.before.setdefault(node.name, []).extend([q, dq])
        self.pairs[tensor] = name, step
        if any(v.name == tensor for v in self.graph.value_info):  # graphs with a plugin's nodes
            kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
            known_shape = next(v for v in self.graph.value_info if v.name == tensor)
            for made, its in ((levels, TensorProto.INT8), (name, kind)):
                value = onnx.ValueInfoProto()
                value.CopyFrom(known_shape)
                value.name = made
                value.type.tensor_type.elem_type = its
                self.graph.value_info.append(value)
        return name

    def _constant(self, name: str, values: np.ndarray) -> None:
        self.added.append(numpy_helper.from_array(values, name))
