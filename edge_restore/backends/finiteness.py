"""Is the network's output finite? Asked of every frame, inside the graph, before it is rounded.

A graph in the camera form ends in a cast to uint8, where NaN becomes black and infinity white, in
silence. So the sum of what the network gives before it is clipped and rounded is a second output:
finite if all of it is. It costs one pass over one image. The graph is extended in memory, by
appending to the bytes that were compared with the card.

Only after a frame failed is the graph run again with a sum behind every node, to name the first
whose output is not finite.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_restore.models.model import Model
from edge_restore.models.onnx_graph import FLOAT, Node, OnnxGraph, extended

SUM = "edge_restore/sum"
"""The name of the added output."""

_ROUNDING = frozenset(
    ["Cast", "Clip", "Identity", "Max", "Min", "Mul", "Reshape", "Round", "Squeeze", "Transpose"]
)
"""What may stand between the network's output and the graph's."""


@dataclass(frozen=True)
class Layer:
    """The first node of a graph whose output is not finite."""

    name: str
    operator: str


def watched(model: Model) -> bytes:
    """The model's bytes with a second output, the sum of the network's unrounded output."""
    tensor = _unrounded(model.graph, model.card.output.name)
    return _summing(model.content, {tensor: SUM})


def first_layer(model: Model, feed: dict[str, Any]) -> Layer | None:
    """The first node whose output is not finite for this input, in ONNX Runtime.

    None where ONNX Runtime is missing, cannot run the graph step by step, or finds none: another
    library's rounding then made what is not finite.
    """
    graph = model.graph
    nodes = {tensor: node for node in graph.nodes for tensor in node.outputs if tensor}
    sums = {tensor: f"{SUM}/{place}" for place, tensor in enumerate(nodes)}
    try:
        ort = importlib.import_module("onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = _summing(model.content, sums)
        session = ort.InferenceSession(content, options, ["CPUExecutionProvider"])
        values = session.run(list(sums.values()), feed)
    except Exception:  # see CpuRestorer._run; the frame's error is told without the layer
        return None
    for node, value in zip(nodes.values(), values, strict=True):
        if not np.isfinite(value):
            return Layer(node.label, node.operator)
    return None


def _unrounded(graph: OnnxGraph, output: str) -> str:
    """The tensor that the graph clips, rounds and casts to its output."""
    made: dict[str, Node] = {tensor: node for node in graph.nodes for tensor in node.outputs}
    tensor = output
    while (node := made.get(tensor)) is not None and node.operator in _ROUNDING:
        sources = [name for name in node.inputs if name and name not in graph.constants]
        if node.operator in ("Clip", "Reshape", "Squeeze"):
            sources = sources[:1]  # limits and sizes may be computed
        if len(sources) != 1 or sources[0] not in made:
            break
        tensor = sources[0]
    return tensor


def _summing(content: bytes, sums: dict[str, str]) -> bytes:
    """A graph with the sums of tensors as further outputs, in float32."""
    nodes: list[tuple[str, list[str], str, dict[str, int]]] = []
    for tensor, name in sums.items():
        nodes.append(("Cast", [tensor], f"{name}/of", {"to": FLOAT}))
        nodes.append(("ReduceSum", [f"{name}/of"], name, {"keepdims": 0}))
    return extended(content, nodes, [(name, FLOAT) for name in sums.values()])
