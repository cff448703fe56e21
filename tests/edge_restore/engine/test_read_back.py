"""What a parser made of a graph is compared with it, attribute by attribute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_restore.engine import network, read_back
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.plan import make_plan
from edge_restore.errors import BackendError
from edge_restore.models import onnx_graph, zoo
from edge_restore.models.onnx_graph import OnnxGraph

onnx = pytest.importorskip("onnx", reason="the graphs are made with onnx")
SHIPPED = sorted(
    path for path in zoo.FOLDER.glob("*.onnx")
    if "plugin" not in path.stem and path.stem not in ("svdn", "svdn-int8")
)  # fmt: skip


@pytest.fixture
def parse(rtx: Flavour) -> Iterator[Any]:
    """Parses a file's content with TensorRT-RTX."""
    kept: list[Any] = []

    def parse(content: bytes) -> Any:
        logger = rtx.trt.Logger(rtx.trt.Logger.ERROR)
        builder = rtx.trt.Builder(logger)
        definition = builder.create_network(rtx.network_flags)
        parser = rtx.trt.OnnxParser(definition, logger)
        kept.extend([logger, builder, definition, parser])
        assert parser.parse(content), [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return definition

    yield parse
    while kept:
        kept.pop()


def changed(graph: OnnxGraph, operator: str, **attributes: Any) -> OnnxGraph:
    """The graph with other attributes in the first node of an operator."""
    place = next(i for i, node in enumerate(graph.nodes) if node.operator == operator)
    node = graph.nodes[place]
    other = replace(node, attributes={**node.attributes, **attributes})
    return replace(graph, nodes=(*graph.nodes[:place], other, *graph.nodes[place + 1 :]))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_graphs_are_parsed_as_they_are(path: Path, rtx: Flavour, parse: Any) -> None:
    content = path.read_bytes()
    graph = onnx_graph.read(content, path.name)
    compared = read_back.check(rtx, parse(content), graph, path.name)
    taken_on_trust = {
        "Reshape",
        "Shape",
        "Squeeze",
        "Unsqueeze",
        "Range",
        "Where",
        "Split",
        "PRelu",
    }
    assert {n.operator for n in graph.nodes} - set(read_back._COMPARED) <= taken_on_trust
    assert compared == sum(node.operator in read_back._COMPARED for node in graph.nodes)


IN_SVDN: list[tuple[str, dict[str, Any], str]] = [
    ("GridSample", {"mode": "nearest"}, "mode is LINEAR, and NEAREST in the file"),
    ("GridSample", {"mode": "bicubic"}, "mode is LINEAR, and CUBIC in the file"),
    ("GridSample", {"mode": "unheard-of"}, "mode is LINEAR, and unheard-of in the file"),
    ("GridSample", {"padding_mode": "border"}, "padding_mode is FILL, and CLAMP in the file"),
    ("GridSample", {"padding_mode": "reflection"}, "padding_mode is FILL, and REFLECT"),
    ("GridSample", {"align_corners": 1}, "align_corners is False, and True in the file"),
    ("Conv", {"strides": (3, 3)}, "strides is "),
    ("Conv", {"pads": (0, 1, 1, 1)}, "pads before is "),
    ("Conv", {"pads": (1, 1, 1, 0)}, "pads after is "),
    ("Conv", {"dilations": (2, 1)}, "dilations is "),
    ("Conv", {"group": 2}, "group is 1, and 2 in the file"),
    ("Conv", {"kernel_shape": (5, 5)}, "kernel_shape is "),
    ("ConvTranspose", {"strides": (1, 2)}, "strides is "),
    ("ConvTranspose", {"group": 3}, "group is 1, and 3 in the file"),
    ("Concat", {"axis": 2}, "axis is 1, and 2 in the file"),
    ("Transpose", {"perm": (0, 3, 2, 1)}, "perm is "),
    ("Cast", {"to": 10}, "to is FLOAT, and HALF in the file"),
]
IN_LMFN: list[tuple[str, dict[str, Any], str]] = [
    ("LeakyRelu", {"alpha": 0.25}, "alpha is "),
    ("MaxPool", {"kernel_shape": (5, 5)}, "kernel_shape is "),
    ("MaxPool", {"strides": (1, 1)}, "strides is "),
    ("MaxPool", {"ceil_mode": 1}, "ceil_mode is EXPLICIT_ROUND_DOWN, and EXPLICIT_ROUND_UP"),
    ("Resize", {"mode": "cubic"}, "mode is LINEAR, and CUBIC"),
    ("Resize", {"coordinate_transformation_mode": "asymmetric"}, "and ASYMMETRIC in the file"),
    ("Resize", {"mode": "nearest", "nearest_mode": "ceil"}, "nearest_mode is "),
    ("Softmax", {"axis": 0}, "axis is "),
    ("DepthToSpace", {"mode": "DCR"}, "mode is "),
    ("QuantizeLinear", {}, ""),
]


@pytest.mark.parametrize(
    ("stem", "operator", "attributes", "text"),
    [
        *(("svdn-gridsample", *case) for case in IN_SVDN),
        *(("lmfn-int8", *case) for case in IN_LMFN if case[1]),
    ],
)
def test_an_attribute_that_was_misread_is_named(
    stem: str, operator: str, attributes: dict[str, Any], text: str, rtx: Flavour, parse: Any
) -> None:
    content = (zoo.FOLDER / f"{stem}.onnx").read_bytes()
    graph = onnx_graph.read(content, stem)
    node = next(n for n in graph.nodes if n.operator == operator)
    with pytest.raises(BackendError) as caught:
        read_back.check(rtx, parse(content), changed(graph, operator, **attributes), f"'{stem}'")
    assert f"misreads '{stem}'" in caught.value.found
    assert f"'{node.label}' ({operator}): " in caught.value.found
    assert text in caught.value.found


@pytest.mark.parametrize(
    ("operator", "other"),
    [("Add", "Mul"), ("Round", "Floor"), ("Sigmoid", "Tanh"), ("Greater", "Less"), ("Max", "Min")],
)
def test_another_operation_is_named(operator: str, other: str, rtx: Flavour, parse: Any) -> None:
    content = (zoo.FOLDER / "svdn-gridsample.onnx").read_bytes()
    graph = onnx_graph.read(content, "svdn")
    nodes = tuple(
        replace(node, operator=other) if node.operator == operator else node for node in graph.nodes
    )
    with pytest.raises(BackendError, match=rf"\({other}\): kind is "):
        read_back.check(rtx, parse(content), replace(graph, nodes=nodes), "it")


def small(nodes: list[Any], shape: list[Any], constants: dict[str, Any]) -> bytes:
    """A graph of these nodes from 'x' to 'y'."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 19)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ("LayerNormalization", {"axis": -1, "epsilon": 1e-3}, {"s": np.ones(6, "f4")},
     {"epsilon": 1e-5}, "epsilon is "),
    ("ReduceMean", {"keepdims": 0}, {"a": np.array([2, 3])}, {"keepdims": 1}, "keepdims is "),
    ("Elu", {"alpha": 0.5}, {}, {"alpha": 1.0}, "alpha is "),
    ("HardSigmoid", {"alpha": 0.3}, {}, {"beta": 0.25}, "beta is "),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, {},
     {"count_include_pad": 1}, "count_include_pad is "),
    ("Softmax", {"axis": 1}, {}, {"axis": 3}, "axis is "),
    ("Slice", {}, {"b": np.array([1]), "e": np.array([4]), "c": np.array([2])}, {}, ""),
    ("Clip", {}, {"lo": np.float32(-1), "hi": np.float32(2)}, {}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "attributes", "constants", "other", "text"), CASES)
def test_operators_that_the_shipped_graphs_lack(
    operator: str, attributes: dict[str, Any], constants: dict[str, Any], other: dict[str, Any],
    text: str, rtx: Flavour, parse: Any,
) -> None:  # fmt: skip
    node = onnx.helper.make_node(operator, ["x", *constants], ["y"], "it", **attributes)
    content = small([node], [2, 3, 5, 6], constants)
    graph = onnx_graph.read(content, "small")
    definition = parse(content)
    assert read_back.check(rtx, definition, graph, "small") == 1
    if other:
        with pytest.raises(BackendError, match=text):
            read_back.check(rtx, definition, changed(graph, operator, **other), "small")
        return
    shifted = {name: np.asarray(value) + 1 for name, value in constants.items()}
    wrong = onnx_graph.read(small([node], [2, 3, 5, 6], {**constants, **shifted}), "small")
    with pytest.raises(BackendError, match=r"axes is |min is "):
        read_back.check(rtx, definition, wrong, "small")


def test_a_zero_point_that_the_library_has_no_place_for(rtx: Flavour, parse: Any) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        make("DequantizeLinear", ["q", "s", "z"], ["y"], "d"),
    ]
    shape, scale = [2, 3, 5, 6], np.float32(0.1)
    definition = parse(small(nodes, shape, {"s": scale, "z": np.int8(0)}))
    graph = onnx_graph.read(small(nodes, shape, {"s": scale, "z": np.int8(0)}), "small")
    assert read_back.check(rtx, definition, graph, "small") == 2
    other = onnx_graph.read(small(nodes, shape, {"s": scale, "z": np.int8(3)}), "small")
    with pytest.raises(BackendError, match=r"'q' \(QuantizeLinear\): zero point is True"):
        read_back.check(rtx, definition, other, "small")


def test_an_axis_of_scales_that_was_misread(rtx: Flavour, parse: Any) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"], "q", axis=1),
        make("DequantizeLinear", ["q", "s", "z"], ["y"], "d", axis=1),
    ]
    constants = {"s": np.full(3, 0.1, "f4"), "z": np.zeros(3, "i1")}
    content = small(nodes, [3, 3, 5, 6], constants)
    graph = onnx_graph.read(content, "small")
    definition = parse(content)
    assert read_back.check(rtx, definition, graph, "small") == 2
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        with pytest.raises(BackendError, match="axis is 1, and 0 in the file"):
            read_back.check(rtx, definition, changed(graph, operator, axis=0), "small")


def test_a_layer_that_is_not_there_is_named(rtx: Flavour, parse: Any) -> None:
    content = (zoo.FOLDER / "lmfn.onnx").read_bytes()
    graph = onnx_graph.read(content, "lmfn")
    nodes = tuple(
        replace(node, name="gone", outputs=("gone",)) if node.operator == "Softmax" else node
        for node in graph.nodes
    )
    with pytest.raises(BackendError, match=r"'gone' \(Softmax\): no layer of the kind SOFTMAX"):
        read_back.check(rtx, parse(content), replace(graph, nodes=nodes), "it")


def test_every_build_reads_back(rtx: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that samples the nearest pixel: what comes of it is not built."""
    plan = make_plan("svdn", rtx, precision="fp32", size=(64, 96), gpu=None)
    real = rtx.trt.OnnxParser

    def misreading(definition: Any, logger: Any) -> Any:
        parser = real(definition, logger)

        def parse(content: bytes) -> bool:
            done = bool(parser.parse(content))
            for place in range(definition.num_layers):
                layer = definition.get_layer(place)
                if layer.type == rtx.trt.LayerType.GRID_SAMPLE:
                    layer.__class__ = rtx.trt.IGridSampleLayer
                    layer.interpolation_mode = rtx.trt.InterpolationMode.NEAREST
            return done

        return SimpleNamespace(parse=parse, num_errors=0)

    library = SimpleNamespace(**{n: getattr(rtx.trt, n) for n in dir(rtx.trt) if n[0] != "_"})
    library.OnnxParser = misreading
    logger = rtx.trt.Logger(rtx.trt.Logger.ERROR)
    wrong = replace(plan, flavour=replace(rtx, trt=library))
    with pytest.raises(BackendError, match="mode is NEAREST, and LINEAR in the file"):
        network.parse(rtx.trt.Builder(logger), logger, wrong, weak=False)
