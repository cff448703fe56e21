"""DeformConv with its slices, sigmoid and activation as one node of our own."""

import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_restore.errors import ModelError
from export import graph, precision
from export.plugin_node import DOMAIN, OPERATOR, to_plugin

ATTRIBUTES = {
    "kernel_h": 3, "kernel_w": 3, "stride": 1, "padding": 1, "dilation": 1, "offset_groups": 1,
    "plugin_namespace": b"edge_restore", "plugin_version": b"1",
}  # fmt: skip
TAPS = 9


def layer(activation=None, bias=True, changes=None, cuts=(0, 18, 18, 27), half=False):
    """ow -> slices, sigmoid -> DeformConv -> activation, with 4 -> 6 channels."""
    random = np.random.default_rng(0)
    constants = {
        "weight": random.standard_normal((6, 4, 3, 3)).astype(np.float32),
        "ow.weight": random.standard_normal((3 * TAPS, 4, 1, 1)).astype(np.float32),
        "bias": random.standard_normal(6).astype(np.float32),
        "slope": random.random((6, 1, 1)).astype(np.float32),
        **{f"at{i}": np.array([i], np.int64) for i in {*cuts, 1}},
    }
    attributes = {"kernel_shape": [3, 3], "pads": [1] * 4, **(changes or {})}
    cut = [f"at{i}" for i in cuts]
    nodes = [
        helper.make_node("Conv", ["image", "ow.weight"], ["ow"], "ow/Conv"),
        helper.make_node("Slice", ["ow", *cut[:2], "at1"], ["offset"], "part/Slice"),
        helper.make_node("Slice", ["ow", *cut[2:], "at1"], ["logits"], "part/Slice_1"),
        helper.make_node("Sigmoid", ["logits"], ["mask"], "part/Sigmoid"),
        helper.make_node(
            "DeformConv", ["image", "weight", "offset", "bias" * bias, "mask"], ["deformed"],
            "part/DeformConv", **attributes,
        ),
    ]  # fmt: skip
    operator, inputs, extra = {
        None: ("Identity", ["deformed"], {}),
        "PRelu": ("PRelu", ["deformed", "slope"], {}),
        "LeakyRelu": ("LeakyRelu", ["deformed"], {"alpha": 0.25}),
        "Relu": ("Relu", ["deformed"], {}),
        "Tanh": ("Tanh", ["deformed"], {}),
    }[activation]
    nodes.append(helper.make_node(operator, inputs, ["active"], "part/active", **extra))
    nodes.append(helper.make_node("Neg", ["active"], ["y"], "last"))
    ports = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, "h", "w"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, "h", "w"]),
    ]
    used = {name for one in nodes for name in one.input}
    values = [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], values),
        opset_imports=[helper.make_opsetid("", 19)],
    )
    model.ir_version = 9
    return precision.to_fp16(model, half_deform_conv=True)[0] if half else model


def back(model):
    """The graph with DeformConv again, read from nothing but our node: its formula in ONNX."""
    model = copy.deepcopy(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for place, node in enumerate(model.graph.node):
        if node.op_type != OPERATOR:
            nodes.append(node)
            continue
        a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        weight, bias, slope = (constants[name] for name in node.input[2:])
        taps = a["kernel_h"] * a["kernel_w"] * a["offset_groups"]
        dtype = weight.dtype
        kernel = weight.reshape(a["kernel_h"], a["kernel_w"], *weight.shape[1:])
        made = {
            "w": kernel.transpose(3, 2, 0, 1),
            "b": bias.astype(dtype),
            "s": slope.reshape(-1, 1, 1).astype(dtype),
            **{k: np.array([v], np.int64) for k, v in
               (("zero", 0), ("one", 1), ("two", 2 * taps), ("three", 3 * taps))},
        }  # fmt: skip
        n = {key: f"back{place}/{key}" for key in (*made, "o", "l", "m", "d")}
        model.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(v), n[k]) for k, v in made.items()
        )
        ow = node.input[1]
        nodes += [
            helper.make_node("Slice", [ow, n["zero"], n["two"], n["one"]], [n["o"]]),
            helper.make_node("Slice", [ow, n["two"], n["three"], n["one"]], [n["l"]]),
            helper.make_node("Sigmoid", [n["l"]], [n["m"]]),
            helper.make_node(
                "DeformConv", [node.input[0], n["w"], n["o"], n["b"], n["m"]], [n["d"]],
                kernel_shape=[a["kernel_h"], a["kernel_w"]], strides=[a["stride"]] * 2,
                pads=[a["padding"]] * 4, dilations=[a["dilation"]] * 2,
                offset_group=a["offset_groups"],
            ),
            helper.make_node("PRelu", [n["d"], n["s"]], list(node.output)),
        ]  # fmt: skip
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    kept = [entry for entry in model.opset_import if entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def ours(model):
    return [node for node in model.graph.node if node.op_type == OPERATOR]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "PRelu", "LeakyRelu", "Relu", "Tanh"])
def test_one_node_says_what_the_others_said(activation, bias, half, run):
    model = layer(activation, bias, half=half)
    planned = graph.finish_custom(to_plugin(model))
    (node,) = ours(planned)
    assert (node.domain, node.name) == (DOMAIN, f"part/{OPERATOR}")
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == ATTRIBUTES
    assert node.input[0].startswith("image") and node.input[1] == "ow"
    constants = {t.name: numpy_helper.to_array(t) for t in planned.graph.initializer}
    weight, bias_, slope = (constants[name] for name in node.input[2:])
    assert (weight.shape, bias_.shape, slope.shape) == ((9, 4, 6), (6,), (6,))
    assert weight.dtype == (np.float16 if half else np.float32)
    assert bias_.dtype == slope.dtype == np.float32
    fused = activation in ("PRelu", "LeakyRelu", "Relu")
    assert node.output[0] == ("active" if fused else "deformed")
    if not fused:
        assert (slope == 1).all()
    operators = {n.op_type for n in planned.graph.node}
    assert not operators & {"DeformConv", "Slice", "Sigmoid", "PRelu", "LeakyRelu", "Relu"}
    image = np.random.default_rng(1).standard_normal((1, 4, 7, 9)).astype(np.float32)
    tolerance = 2e-2 if half else 1e-5
    np.testing.assert_allclose(
        run(back(planned), image=image), run(model, image=image), atol=tolerance
    )


def test_svdn(camera_graph):
    planned = graph.finish_custom(to_plugin(camera_graph))
    assert [node.name for node in ours(planned)] == [
        f"neck.deform1/{OPERATOR}", f"neck.deform2/{OPERATOR}",
    ]  # fmt: skip
    assert len(planned.graph.node) == len(camera_graph.graph.node) - 6
    assert {(entry.domain, entry.version) for entry in planned.opset_import} == {
        ("", 19), (DOMAIN, 1),
    }  # fmt: skip
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][:2]
        for v in planned.graph.value_info
    }
    assert shapes["neck.deform1/DeformConv"] == shapes["neck.deform2/DeformConv"] == [1, 8]
    names = {t.name for t in planned.graph.initializer}
    assert "neck.deform1.weight" not in names and f"neck.deform1/{OPERATOR}:weight" in names
    second = ours(planned)[1]
    assert second.input[0] == "neck.deform1/DeformConv"


def test_an_activation_that_is_not_the_only_taker_stays(run):
    model = layer("PRelu")
    model.graph.node[-1].CopyFrom(helper.make_node("Add", ["active", "deformed"], ["y"], "last"))
    planned = graph.finish_custom(to_plugin(model))
    assert ours(planned)[0].output[0] == "deformed"
    assert "PRelu" in {n.op_type for n in planned.graph.node}


def test_a_graph_without_deform_conv_stays_as_it_is():
    plain = layer()
    plain.graph.node[4].CopyFrom(
        helper.make_node("Conv", ["image", "weight", "bias"], ["deformed"], "c", pads=[1] * 4)
    )
    planned = to_plugin(plain)
    assert [entry.domain for entry in planned.opset_import] == [""]
    assert [n.op_type for n in planned.graph.node] == ["Conv", "Identity", "Neg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"changes": {"group": 2}}, "it has 2 groups"),
        ({"changes": {"strides": [1, 2]}}, r"its strides are \[1, 2\]"),
        ({"changes": {"pads": [0, 1, 1, 1]}}, r"its pads are \[0, 1, 1, 1\]"),
        ({"changes": {"dilations": [2, 1]}}, r"its dilations are \[2, 1\]"),
        ({"cuts": (0, 18, 9, 18)}, "are not cut from one tensor"),
        ({"cuts": (1, 19, 18, 27)}, "are not cut from one tensor"),
        ({"cuts": (0, 18, 18, 26)}, "are not cut from one tensor"),
        ({"changes": {"offset_group": 2}}, "are not cut from one tensor"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(changes, message):
    with pytest.raises(ModelError, match=message) as caught:
        to_plugin(layer(**changes))
    assert "'part/DeformConv'" in caught.value.found
    assert "--deformable GridSample" in caught.value.hint


@pytest.mark.parametrize("kind", ["no mask", "no sigmoid", "computed weight", "computed bias"])
def test_other_graphs_are_refused(kind):
    model = layer()
    node = model.graph.node[4]
    if kind == "no mask":
        node.input[4] = ""
    elif kind == "no sigmoid":
        model.graph.node[3].op_type = "Tanh"
    else:
        name = kind.split()[1]
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == name))
        shape = [6, 4, 3, 3] if name == "weight" else [6]
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    with pytest.raises(ModelError, match="cannot become our plugin"):
        to_plugin(model)


def test_a_tensor_without_a_type_is_a_bug():
    from edge_restore.errors import InternalError

    planned = to_plugin(layer())
    del planned.graph.value_info[:]
    with pytest.raises(InternalError, match="has no type"):
        graph.finish_custom(planned)
