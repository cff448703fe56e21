"""GridSample and Conv instead of DeformConv: the same numbers, in bounded memory."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_restore.errors import ModelError, OptionError
from export.graph import finish, simplify
from export.lowering import lower


def layer(size=(5, 6), kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=1,
          offset_groups=1, mask=True, bias=True, dynamic=True, opset=19, count=1,
          spread=2.0):  # fmt: skip
    """A model of one DeformConv, and inputs for it."""
    random = np.random.default_rng(0)
    channels, outputs, taps = 4, 6, kernel[0] * kernel[1]
    high, wide = (
        (s + before + after - d * (k - 1) - 1) // t + 1
        for s, before, after, d, k, t in zip(
            size, pads[:2], pads[2:], dilation, kernel, stride, strict=True
        )
    )
    inputs = {
        "image": random.standard_normal((count, channels, *size)),
        "offset": spread * random.standard_normal((count, 2 * offset_groups * taps, high, wide)),
        "mask": random.random((count, offset_groups * taps, high, wide)),
    }
    if not mask:
        del inputs["mask"]
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    constants = {"w": random.standard_normal((outputs, channels // groups, *kernel))}
    if bias:
        constants["b"] = random.standard_normal(outputs)
    node = helper.make_node(
        "DeformConv", ["image", "w", "offset", "b" * bias, "mask" * mask], ["y"],
        "part/DeformConv", kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation,
        group=groups, offset_group=offset_groups,
    )  # fmt: skip
    ports = [
        helper.make_tensor_value_info(
            name,
            TensorProto.FLOAT,
            [*value.shape[:2], *(["h", "w"] if dynamic else value.shape[2:])],
        )
        for name, value in inputs.items()
    ]
    for port in ports[1:] if dynamic else []:  # offset and mask have the output's size
        for axis, side in ((2, "out_h"), (3, "out_w")):
            port.type.tensor_type.shape.dim[axis].dim_param = side
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [count, outputs, None, None])
    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    ]
    model = helper.make_model(
        helper.make_graph([node], "g", ports, [output], initializers),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return model, inputs


CASES = [
    {"kernel": (1, 1), "pads": (0, 0, 0, 0)},
    {"kernel": (5, 5), "pads": (2, 2, 2, 2), "size": (7, 9)},
    {"kernel": (7, 7), "pads": (3, 3, 3, 3)},
    {"kernel": (2, 3), "pads": (0, 1, 1, 0)},
    {"stride": (2, 3), "size": (9, 11)},
    {"dilation": (3, 2), "pads": (3, 2, 3, 2)},
    {"stride": (2, 1), "dilation": (1, 2), "pads": (2, 0, 1, 4), "size": (8, 7)},
    {"size": (1, 1)},
    {"size": (1, 8), "kernel": (5, 5), "pads": (2, 2, 2, 2)},
    {"size": (8, 1)},
    {"count": 2, "groups": 2, "offset_groups": 2},
    {"mask": False},
    {"bias": False},
    {"mask": False, "bias": False, "offset_groups": 2},
    {"dynamic": False},
    {"dynamic": False, "mask": False, "groups": 2, "offset_groups": 4, "stride": (2, 2)},
    {"spread": 30.0},
    {"spread": 1e6},
    *({"groups": g, "offset_groups": o} for g, o in itertools.product((1, 2), (1, 2, 4))),
]


@pytest.mark.parametrize("opset", [20, 21, 22])
def test_an_opset_whose_mode_older_tensorrt_takes_for_nearest_is_refused(opset):
    model, _ = layer(opset=opset)
    with pytest.raises(OptionError, match=f"GridSample of opset {opset} .*'linear'") as caught:
        lower(model)
    assert "--opset 19" in caught.value.hint


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples_are_bilinear_with_zeros_beyond_the_border(case):
    lowered = lower(layer(**case)[0])
    samples = [node for node in lowered.graph.node if node.op_type == "GridSample"]
    found = [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in samples]
    assert found and all(
        each == {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}
        for each in found
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_deform_conv(case, run):
    model, inputs = layer(**case)
    lowered = finish(lower(model))
    assert "DeformConv" not in {node.op_type for node in lowered.graph.node}
    np.testing.assert_allclose(run(lowered, **inputs), run(model, **inputs), atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_simplified_it_is_still_the_same(case, run):
    model, inputs = layer(**case)
    lowered = lower(model)
    small = finish(simplify(lowered))
    assert len(small.graph.node) < len(lowered.graph.node)
    np.testing.assert_allclose(run(small, **inputs), run(lowered, **inputs), atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 4, 9, 100])
def test_any_number_of_taps_at_once(at_once, run):
    model, inputs = layer(offset_groups=2, groups=2)
    lowered = finish(lower(model, taps_at_once=at_once))
    samples = [node for node in lowered.graph.node if node.op_type == "GridSample"]
    assert len(samples) == -(-9 // at_once)
    np.testing.assert_allclose(run(lowered, **inputs), run(model, **inputs), atol=2e-5)


def test_no_tensor_holds_more_than_a_row_of_taps():
    size, kernel, channels = (40, 50), (5, 5), 4
    model, _ = layer(size=size, kernel=kernel, pads=(2, 2, 2, 2), dynamic=False)
    lowered = onnx.shape_inference.infer_shapes(simplify(lower(model)), strict_mode=True)
    elements = {
        value.name: np.prod([d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in lowered.graph.value_info
    }
    assert elements["part/GridSample_0"] == kernel[1] * channels * size[0] * size[1]
    coordinates = 2 * kernel[0] * kernel[1] * size[0] * size[1]
    assert max(elements.values()) == max(elements["part/GridSample_0"], coordinates)


def test_at_4k_the_largest_tensor_is_a_row_of_taps():
    """By arithmetic, at the half resolution where SVDN deforms 3840x2160; nothing is run."""
    size, channels, taps = (1080, 1920), 4, 25
    model, _ = layer(kernel=(5, 5), pads=(2, 2, 2, 2), dynamic=False)
    for port in model.graph.input:
        for axis, side in enumerate(size, 2):
            port.type.tensor_type.shape.dim[axis].dim_value = side
    lowered = onnx.shape_inference.infer_shapes(lower(model), strict_mode=True, data_prop=True)
    elements = [
        np.prod([d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in lowered.graph.value_info
        if all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    ]
    pixels = size[0] * size[1]
    coordinates = 2 * taps * pixels
    assert max(elements) <= max(5 * channels * pixels, coordinates)
    assert max(elements) < taps * channels * pixels
    # With SVDN's 48 channels a row of taps is 2 GB in FP32 and 1 GB in FP16.
    assert 5 * 48 * pixels * 4 < 2e9 < 25 * 48 * pixels * 4


def test_each_step_waits_for_the_one_before():
    """Otherwise a compiler samples all taps in one kernel; see `test_sampling_does_not_hold...`."""
    lowered = lower(layer()[0])
    makers = {output: node for node in lowered.graph.node for output in node.output}

    def needs(tensor, name):
        node = makers.get(tensor)
        return node is not None and (
            node.name == name or any(needs(value, name) for value in node.input)
        )

    samplers = {n.name: n for n in lowered.graph.node if n.op_type == "GridSample"}
    assert len(samplers) == 3
    for number in (1, 2):
        grid = samplers[f"part/GridSample_{number}"].input[1]
        before = "part/Add_1" if number == 2 else "part/Conv_0"
        assert needs(grid, before)
        assert not needs(grid, f"part/Conv_{number}")
    assert not needs(samplers["part/GridSample_0"].input[1], "part/Conv_0")


@pytest.mark.parametrize("first", [np.nan, np.inf, -np.inf, 1e5, -1e5])
def test_what_the_steps_wait_for_changes_nothing(first, run):
    """The number that the next step's limit hangs on is the sum's at the first pixel."""
    model, inputs = layer(size=(12, 14), spread=0.3)
    inputs["image"][:, :, 0, 0] = first
    expected, found = run(model, **inputs), run(lower(model), **inputs)
    same = np.isfinite(expected)
    assert same.any() and same.all() == np.isfinite(first)
    np.testing.assert_allclose(found[same], expected[same], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38, -3e38, 3e9])
def test_offsets_that_lead_nowhere_sample_zero(value, run):
    model, inputs = layer(spread=0.5)
    lowered = lower(model)
    inputs["mask"][:, 0] = 0
    without = run(lowered, **inputs)
    inputs["mask"][:, 0] = 1
    for axis in (0, 1):
        far = inputs["offset"].copy()
        far[:, axis] = value  # dy or dx of the first tap
        np.testing.assert_allclose(run(lowered, **{**inputs, "offset": far}), without, atol=1e-5)


def test_new_names_begin_with_the_old_one_and_the_old_weight_goes():
    lowered = lower(layer()[0])
    names = [node.name for node in lowered.graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith("part/") for name in names)
    assert {"part/GridSample_0", "part/GridSample_2", "part/Conv_2"} <= set(names)
    assert "w" not in {tensor.name for tensor in lowered.graph.initializer}


def test_layers_that_share_a_weight(run):
    model, inputs = layer()
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name, second.output[0] = "other/DeformConv", "z"
    plain = helper.make_node("Conv", ["image", "w"], ["v"], "plain/Conv", pads=[1, 1, 1, 1])
    total = helper.make_node("Sum", ["y", "z", "v"], ["sum"])
    model.graph.node.extend([second, plain, total])
    model.graph.output[0].name = "sum"
    lowered = finish(lower(model))
    assert plain in lowered.graph.node
    np.testing.assert_allclose(run(lowered, **inputs), run(model, **inputs), atol=4e-5)


def test_a_graph_without_deform_conv_stays_as_it_is(float_graph):
    lowered = lower(lower(float_graph))
    assert lowered == lower(float_graph)
    assert "DeformConv" in {node.op_type for node in float_graph.graph.node}


@pytest.mark.parametrize("kind", ["computed", "float16"])
def test_a_weight_that_is_no_float32_constant_is_refused(kind):
    model, _ = layer()
    (weight,) = (t for t in model.graph.initializer if t.name == "w")
    if kind == "computed":
        model.graph.initializer.remove(weight)
    else:
        halves = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(halves, "w"))
    with pytest.raises(ModelError, match=r"'w' of the node 'part/DeformConv' is not a float32"):
        lower(model)
