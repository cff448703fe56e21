"""FP16 typing: what becomes FP16, which islands stay, and what it costs."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_restore.errors import InternalError, ModelError
from export import graph, lowering, precision
from export.parity import _picture, _unit_range

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def types(model):
    """Element type of every tensor, constants included."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {v.name: v.type.tensor_type.elem_type for v in values}
    return found | {t.name: t.data_type for t in model.graph.initializer}


def floating(model, node, found):
    return {found[t] for t in (*node.input, *node.output) if found.get(t) in (HALF, FLOAT)}


def psnr(found, expected):
    return -10 * np.log10(np.square(np.float64(found) - expected).mean())


def small_graph(nodes, constants, inputs=((1, 4, 6, 8),)):
    """A model of `nodes` with float inputs x0, x1... and the output y."""
    ports = [helper.make_tensor_value_info(f"x{i}", FLOAT, s) for i, s in enumerate(inputs)]
    made = helper.make_tensor_value_info("y", FLOAT, [1, 4, None, None])
    values = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports, [made], values),
        opset_imports=[helper.make_opsetid("", 19)],
    )
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return model


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], f"n/{output}", **attributes)


def test_svdn_is_fp16_except_for_its_islands(camera_graph):
    typed, islands = precision.to_fp16(camera_graph)
    typed = graph.finish(typed)
    found = types(typed)
    assert found["image"] == found["restored"] == TensorProto.UINT8
    skip = next(
        n for n in camera_graph.graph.node if "camera/Mul" in n.input and n.op_type == "Add"
    )
    camera = [n.name for n in camera_graph.graph.node if n.name.startswith("camera/")]
    deform = ["neck.deform1/DeformConv", "neck.deform2/DeformConv"]
    assert set(islands) == {skip.name, *camera, *deform}
    for one in typed.graph.node:
        if one.op_type != "Cast":
            wanted = FLOAT if one.name in islands else HALF
            assert floating(typed, one, found) <= {wanted}, one.name
    for name in ("stem.0.weight", "tail.bias", "upsample.0/PRelu:slope"):
        if name in {t.name for t in camera_graph.graph.initializer}:
            assert f"{name}:fp16" in found and name not in found


def test_the_original_is_left_alone(float_graph):
    before = float_graph.SerializeToString()
    precision.to_fp16(float_graph)
    assert float_graph.SerializeToString() == before


@pytest.mark.parametrize("form", ["DeformConv", "half DeformConv", "GridSample"])
def test_fp16_reaches_the_bar(form, float_graph, network, run_rounding):
    model = float_graph
    if form == "GridSample":
        model = graph.simplify(lowering.lower(model))
    typed, _ = precision.to_fp16(model, half_deform_conv=form == "half DeformConv")
    image = _unit_range(_picture(np.random.default_rng(1), 48, 66))
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    found = run_rounding(typed, image=image)
    assert found.dtype == np.float32
    reached = psnr(found, expected)
    assert 50 < reached < 100  # a random network, whose output is not near its input
    half_inputs = {t.name for t in typed.graph.initializer if t.data_type == HALF}
    assert ("neck.deform1.weight:fp16" in half_inputs) == (form == "half DeformConv")


@pytest.mark.parametrize("fixed", [False, True])
def test_coordinates_stay_exact_across_a_wide_image(fixed, run, run_rounding, monkeypatch):
    """In FP16 they would be off by a pixel from x = 1024 on."""
    from tests.export.test_lowering import layer

    width = 2600
    model, inputs = layer(size=(3, width), kernel=(1, 1), pads=(0,) * 4, dynamic=not fixed)
    inputs["image"] = np.broadcast_to(
        np.sin(np.arange(width) / 3).astype(np.float32), inputs["image"].shape
    )
    inputs["offset"] = np.round(inputs["offset"] * 64) / 64  # what FP16 holds exactly
    expected = run(model, **inputs)
    lowered = graph.simplify(lowering.lower(model))
    typed, islands = precision.to_fp16(lowered)
    found = run_rounding(typed, **inputs)
    last = np.s_[..., width * 4 // 5 :]
    spread = np.ptp(expected)
    assert psnr(found[last] / spread, expected[last] / spread) > 60
    assert "part/GridSample_0" in islands
    monkeypatch.setattr(precision._Walk, "coordinates", lambda self: set())
    wrong, _ = precision.to_fp16(lowered)
    found = run_rounding(wrong, **inputs)
    assert psnr(found[last] / spread, expected[last] / spread) < 45


def test_every_node_between_offsets_and_samples_is_an_island(float_graph):
    typed, islands = precision.to_fp16(graph.simplify(lowering.lower(float_graph)))
    found = types(graph.finish(typed))
    samplers = [n for n in typed.graph.node if n.op_type == "GridSample"]
    assert len(samplers) == 10
    for one in typed.graph.node:
        if "/Mul_y_offset" in one.name or "/Div_y_scale" in one.name or "/Min_" in one.name:
            assert one.name in islands
    assert all(floating(typed, one, found) == {FLOAT} for one in samplers)
    convolutions = [n for n in typed.graph.node if n.op_type == "Conv"]
    assert all(floating(typed, one, found) == {HALF} for one in convolutions)


def simam():
    """x * sigmoid(d / (4 * (sum(d) / n + l)) + 0.5) with d = (x - mean(x))^2, SimAM's attention."""
    nodes = [
        node("Conv", "x0 w", "c"),
        node("ReduceMean", "c axes", "mean", keepdims=1),
        node("Sub", "c mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceSum", "square axes", "total", keepdims=1),
        node("Div", "total count", "variance"),
        node("Add", "variance small", "above"),
        node("Mul", "above four", "below"),
        node("Div", "square below", "energy"),
        node("Add", "energy half", "raised"),
        node("Sigmoid", "raised", "gate"),
        node("Mul", "c gate", "gated"),
        node("Conv", "gated w", "y"),
    ]
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((4, 4, 1, 1)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
        **{
            name: np.float32(value)
            for name, value in (
                ("count", 100 * 100 - 1), ("small", 1e-4), ("four", 4), ("half", 0.5),
            )
        },
    }  # fmt: skip
    return small_graph(nodes, constants, ((1, 4, 100, 100),))


def test_a_chain_around_global_sums_is_one_island(run, run_rounding):
    model = simam()
    typed, islands = precision.to_fp16(model)
    chain = ["mean", "centred", "square", "total", "variance", "above", "below", "energy"]
    chain += ["raised", "gate"]
    assert islands == tuple(f"n/{name}" for name in chain)
    x0 = 20 * np.random.default_rng(2).standard_normal((1, 4, 100, 100)).astype(np.float32)
    expected, found = run(model, x0=x0), run_rounding(typed, x0=x0)
    assert np.isfinite(found).all()  # the sum of squares is far beyond FP16
    assert abs(found - expected).max() < 5e-3 * abs(expected).max()


def test_squeeze_and_excitation_leaves_its_convolutions_in_fp16():
    nodes = [
        node("GlobalAveragePool", "x0", "mean"),
        node("Conv", "mean w", "c"),
        node("Sigmoid", "c", "gate"),
        node("Conv", "x0 w", "features"),
        node("Mul", "features gate", "y"),
    ]
    constants = {"w": np.ones((4, 4, 1, 1), np.float32)}
    typed, islands = precision.to_fp16(small_graph(nodes, constants))
    assert islands == ("n/mean",)
    assert "mean/to_fp16" in {n.name for n in typed.graph.node}


def test_an_output_in_fp16_is_given_back_in_float(run_rounding):
    typed, islands = precision.to_fp16(small_graph([node("Relu", "x0", "y")], {}))
    assert islands == ()
    assert [n.op_type for n in typed.graph.node] == ["Cast", "Relu", "Cast"]
    x0 = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 4, 6, 8)
    found = run_rounding(typed, x0=x0)
    np.testing.assert_array_equal(found, np.maximum(x0.astype(np.float16), 0).astype(np.float32))


def test_a_tensor_is_cast_once_for_all_who_take_it():
    nodes = [node("Relu", "x0", "a"), node("Tanh", "x0", "b"), node("Add", "a b", "y")]
    typed, _ = precision.to_fp16(small_graph(nodes, {}))
    casts = [n.name for n in typed.graph.node if n.op_type == "Cast"]
    assert casts == ["x0/to_fp16", "y/Cast"]


def test_a_constant_that_two_precisions_take_stays_in_both():
    nodes = [
        node("ReduceMean", "x0 axes", "mean"),
        node("Mul", "mean k", "scaled"),
        node("Relu", "x0", "r"),
        node("Mul", "r k", "other"),
        node("Conv", "other w", "c"),
        node("Sigmoid", "scaled", "gate"),
        node("Mul", "c gate", "y"),
    ]
    constants = {
        "axes": np.array([2, 3], np.int64), "k": np.float32(3),
        "w": np.ones((4, 4, 1, 1), np.float32),
    }  # fmt: skip
    typed, _ = precision.to_fp16(small_graph(nodes, constants))
    assert {t.name for t in typed.graph.initializer} == {"axes", "k", "k:fp16", "w:fp16"}


def test_resize_keeps_its_scales_in_float(run_rounding):
    nodes = [helper.make_node("Resize", ["x0", "", "k"], ["y"], "n/y", mode="nearest")]
    typed, islands = precision.to_fp16(small_graph(nodes, {"k": np.float32([1, 1, 2, 2])}))
    assert islands == () and {t.name for t in typed.graph.initializer} == {"k"}
    x0 = np.ones((1, 4, 6, 8), np.float32)
    assert run_rounding(typed, x0=x0).shape == (1, 4, 12, 16)


def test_what_does_not_fit_into_fp16_is_refused():
    nodes = [node("Mul", "x0 k", "y")]
    with pytest.raises(ModelError, match="the constant 'k' holds 7e"):
        precision.to_fp16(small_graph([node("Relu", "x0", "r"), node("Mul", "r k", "y")],
                                      {"k": np.float32(70000)}))  # fmt: skip
    precision.to_fp16(small_graph(nodes, {"k": np.float32(65504)}))


def test_graphs_that_are_typed_already_or_not_folded(float_graph):
    typed, _ = precision.to_fp16(float_graph)
    with pytest.raises(ModelError, match="typed or quantised already"):
        precision.to_fp16(typed)
    nodes = [
        node("QuantizeLinear", "x0 s z", "q"),
        node("DequantizeLinear", "q s z", "y"),
    ]
    constants = {"s": np.float32(1), "z": np.int8(0)}
    with pytest.raises(ModelError, match="typed or quantised already"):
        precision.to_fp16(small_graph(nodes, constants))
    value = numpy_helper.from_array(np.float32(1))
    folded = [helper.make_node("Constant", [], ["k"], "n/k", value=value), node("Add", "x0 k", "y")]
    with pytest.raises(InternalError, match="'n/k' \\(Constant\\) cannot be typed"):
        precision.to_fp16(small_graph(folded, {}))
