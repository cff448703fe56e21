"""Making ONNX Runtime's CPU provider round an FP16 graph as its types say."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_HALF = 10
"""onnx.TensorProto.FLOAT16; a machine that runs models has no onnx."""


def keep_rounding(model: Any, half: Collection[str]) -> None:
    """Put an Identity behind every tensor of `half`, in place; it is called ``tensor/rounded``.

    That provider computes FP16 operators between casts to FP32 and back, and drops a cast to FP16
    that a cast to FP32 follows: then nothing is rounded at all. An Identity between the two stops
    it, as long as graph optimisations are off. Sums inside of an operator are FP32 in any case.

    Args:
        model: an onnx.ModelProto.
        half: names of its FP16 tensors; constants and the graph's inputs need none.
    """
    nodes = []
    for node in model.graph.node:
        node.input[:] = [f"{t}/rounded" if t in half else t for t in node.input]
        nodes.append(node)
        for tensor in node.output:
            if tensor in half:
                name = f"{tensor}/rounded"
                identity = {"op_type": "Identity", "input": [tensor], "output": [name]}
                nodes.append(type(node)(name=name, **identity))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def with_kept_rounding(model: Any, inferred: Any) -> Any:
    """A copy of a graph with FP16 tensors in which `keep_rounding` was done.

    Args:
        model: an onnx.ModelProto.
        inferred: what onnx.shape_inference.infer_shapes makes of it, which knows every type.
    """
    kept = type(model)()
    kept.CopyFrom(model)
    keep_rounding(kept, half_tensors(inferred))
    return kept


def half_tensors(inferred: Any) -> set[str]:
    """The names of the FP16 tensors inside of a graph whose types were inferred."""
    values = inferred.graph.value_info
    return {value.name for value in values if value.type.tensor_type.elem_type == _HALF}
