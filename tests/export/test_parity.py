"""The comparison with torch: what agrees passes, and every kind of broken graph is refused."""

import copy

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from edge_restore.errors import BackendError, ModelError
from edge_restore.media.padding import padded_size
from export import lowering, parity, precision


@pytest.fixture
def check(network, tmp_path):
    """Compares a graph with the network, or with another one."""

    def check(model, form="float", against=network):
        try:
            return parity.check(model, against, form=form, size=None)
        except BackendError as error:  # an ONNX Runtime without DeformConv
            pytest.skip(error.found)

    return check


def edited(model, name, change):
    """A copy of `model` with the constant `name` changed."""
    model = copy.deepcopy(model)
    constant = next(t for t in model.graph.initializer if t.name == name)
    values = change(numpy_helper.to_array(constant)).astype(np.float32)
    constant.CopyFrom(numpy_helper.from_array(values, name))
    return model


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def assert_agrees(result):
    found, reach = result
    assert [(f.height, f.width) for f in found] == list(parity.SIZES)
    assert all(0 < f.max_abs_difference < 3e-5 for f in found)
    assert reach > 2


def test_a_good_graph_agrees(check, float_graph):
    assert_agrees(check(float_graph))


def test_a_good_camera_graph_agrees(check, camera_graph):
    assert_agrees(check(camera_graph, "camera"))


def test_a_lowered_graph_agrees(check, camera_graph):
    assert_agrees(check(lowering.lower(camera_graph), "camera"))


def test_an_fp16_graph_is_judged_with_every_tensor_rounded(
    float_graph, network, tmp_path, run_rounding
):
    """ONNX Runtime, left alone, drops roundings, and the graph looks better than it is."""
    typed, _ = precision.to_fp16(lowering.lower(float_graph))
    (first, *_), _ = parity.check(typed, network, form="float", size=(64, 96), precision="fp16")
    image = parity._unit_range(parity._picture(np.random.default_rng(0), 64, 96))
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    found = run_rounding(typed, image=image)
    assert first.psnr == pytest.approx(parity._psnr(found, expected), abs=0.01)
    assert first.max_abs_difference == pytest.approx(abs(found - expected).max(), rel=0.01)


def test_psnr():
    image = np.full((1, 3, 2, 2), 0.5, np.float32)
    assert parity._psnr(image + np.float32(0.01), image) == pytest.approx(40, abs=1e-3)
    assert parity._psnr(image, image) == 200
    assert parity._psnr(image + 1, image + 2) == 200  # both are white
    assert np.isnan(parity._psnr(image * np.nan, image))


def test_a_bias_off_by_little_more_than_the_tolerance(check, float_graph):
    check(edited(float_graph, "tail.bias", lambda b: b + 0.7e-4))
    with pytest.raises(ModelError, match=r"torch differ by 0.00013 at 64x96; nothing was written"):
        check(edited(float_graph, "tail.bias", lambda b: b + 1.3e-4))


def test_offsets_in_another_order(check, float_graph):
    def swap(values):  # (dx, dy) for (dy, dx)
        order = np.arange(75)
        order[:50] = order[:50].reshape(25, 2)[:, ::-1].ravel()
        return values[order]

    broken = edited(float_graph, "neck.ow2.3.weight", swap)
    with pytest.raises(ModelError, match="differ by"):
        check(edited(broken, "neck.ow2.3.bias", swap))


def test_another_attribute_of_the_deformable_convolution(check, float_graph):
    broken = copy.deepcopy(float_graph)
    layer = node(broken, "neck.deform1/DeformConv")
    pads = next(a for a in layer.attribute if a.name == "pads")
    pads.CopyFrom(helper.make_attribute("pads", [1, 1, 3, 3]))
    with pytest.raises(ModelError, match="differ by"):
        check(broken)


def test_a_graph_that_gives_nan(check, float_graph):
    with pytest.raises(ModelError, match="differ by nan"):
        check(edited(float_graph, "tail.bias", lambda b: b * np.nan))


def test_weights_that_give_nan(check, float_graph, network):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.tail.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        check(edited(float_graph, "tail.bias", lambda b: b * np.nan), against=broken)


def test_a_camera_graph_that_rounds_down(check, camera_graph):
    broken = copy.deepcopy(camera_graph)
    node(broken, "camera/Round").op_type = "Floor"
    with pytest.raises(ModelError, match=r"rounds wrongly: \d+ values differ"):
        check(broken, "camera")


def test_a_camera_graph_that_normalises_otherwise(check, camera_graph):
    with pytest.raises(ModelError, match="differ by"):
        check(edited(camera_graph, "camera/Mul:B", lambda _: np.float32(1 / 256)), "camera")


@pytest.mark.parametrize("multiple", [1, 2, 4, 32])
def test_three_sizes_that_a_fixed_graph_can_take(multiple):
    size = (3 * multiple, 5 * multiple)
    tried = parity.sizes(size, multiple)
    assert len(tried) == 3
    assert {padded_size(*one, multiple) for one in tried} == {size}
    if multiple > 1:
        assert any(side % 2 for one in tried for side in one)


def test_three_sizes_for_a_dynamic_graph_one_of_them_odd():
    tried = parity.sizes(None, 2)
    assert len(set(tried)) == 3
    assert any(height % 2 and width % 2 for height, width in tried)
