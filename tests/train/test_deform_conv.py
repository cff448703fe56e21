"""Deformable convolution against ONNX's reference, gradients by finite differences, both paths."""

import functools
import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch.nn.functional import pad

from train.networks import deform_conv, deform_sample
from train.networks.deform_conv import DeformConv2d, deform_conv2d, output_size

PATHS = ["compiled", "plain", "triton"]


def take_triton(monkeypatch):
    """For float32 and bfloat16, as on a GPU."""
    gather = deform_conv._gather

    def chosen(*tensors):
        narrow = tensors[0].dtype != torch.float64
        return deform_conv._columns_triton if narrow else gather(*tensors)

    monkeypatch.setattr(deform_conv, "_gather", chosen)


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each of the three implementations in turn; the GPU's in Triton's interpreter."""
    if request.param == "plain":
        monkeypatch.setattr(deform_sample, "library", lambda: None)
    elif request.param == "triton":
        pytest.importorskip("triton")
        take_triton(monkeypatch)
    elif deform_sample.library() is None:
        pytest.skip("no C compiler here (or EDGE_RESTORE_NO_C is set)")
    return request.param


def tensors(size=(4, 5), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
            offset_groups=1, count=1, spread=2.0, seed=0):  # fmt: skip
    """image, offset, mask, weight, bias as float64, and the options that go with them."""
    torch.manual_seed(seed)
    channels, outputs = 4, 2
    taps = kernel[0] * kernel[1]
    high, wide = output_size(size, kernel, stride, padding, dilation)
    values = (
        torch.randn(count, channels, *size),
        spread * torch.randn(count, offset_groups * taps * 2, high, wide),
        torch.rand(count, offset_groups * taps, high, wide),
        torch.randn(outputs, channels // groups, *kernel),
        torch.randn(outputs),
    )
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        "offset_groups": offset_groups,
    }  # fmt: skip
    return [v.double() for v in values], options


@functools.cache
def reference(case):
    """ONNX's own DeformConv, in numpy, for `tensors(**dict(case))`."""
    (image, offset, mask, weight, bias), options = tensors(**dict(case))
    # It divides by zero on one-pixel sides. A row and a column of zeros after the image change
    # nothing but the output's size, because what is outside of the image is zero.
    high, wide = offset.shape[2:]
    stride, padding, dilation, groups, offset_groups = options.values()
    size = (image.shape[2] + 1, image.shape[3] + 1)
    higher, wider = output_size(size, weight.shape[2:], stride, padding, dilation)
    more = (0, wider - wide, 0, higher - high)
    inputs = {
        "x": pad(image, (0, 1, 0, 1)),
        "w": weight,
        "offset": pad(offset, more),
        "b": bias,
        "mask": pad(mask, more),
    }
    inputs = {name: value.numpy().astype(np.float32) for name, value in inputs.items()}
    node = onnx.helper.make_node(
        "DeformConv", list(inputs), ["y"], kernel_shape=weight.shape[2:], strides=stride,
        pads=padding * 2, dilations=dilation, group=groups, offset_group=offset_groups,
    )  # fmt: skip
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape)
        for name, value in inputs.items()
    ]
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", ports, [out]),
        opset_imports=[onnx.helper.make_opsetid("", 19)],
    )
    return ReferenceEvaluator(model).run(None, inputs)[0][..., :high, :wide]


KERNELS = [
    {"kernel": (1, 1), "padding": (0, 0)},
    {"kernel": (3, 3), "count": 2},
    {"kernel": (5, 5), "padding": (2, 2)},
    {"kernel": (7, 7), "padding": (3, 3), "size": (2, 3)},
    {"kernel": (3, 1), "padding": (1, 0)},
    {"kernel": (2, 5), "padding": (0, 3)},
]
STEPS = [
    {"stride": (2, 2)},
    {"stride": (1, 3), "padding": (2, 0)},
    {"dilation": (2, 2), "padding": (2, 2)},
    {"dilation": (1, 2), "stride": (2, 1), "size": (9, 7)},
    {"size": (1, 1)},
    {"size": (1, 9)},
    {"size": (7, 1), "kernel": (5, 5), "padding": (2, 2)},
]
GROUPS = [{"groups": g, "offset_groups": o} for g, o in itertools.product((1, 2), (1, 2, 4))]


@pytest.mark.parametrize("case", [*KERNELS, *STEPS, *GROUPS], ids=str)
def test_agrees_with_onnx(case, path):
    values, options = tensors(**case)
    expected = reference(tuple(case.items()))
    found = deform_conv2d(*(v.float() for v in values), **options)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_offsets_are_dy_then_dx_of_each_tap_row_by_row(path):
    image = torch.arange(25.0).view(1, 1, 5, 5)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 2] = 1  # the tap above, right
    offset = torch.zeros(1, 18, 5, 5)
    offset[:, 2 * 2] = 2  # its dy: from the row above to the row below
    found = deform_conv2d(image, offset, None, weight, padding=1)
    assert found[0, 0, 1, 1] == image[0, 0, 2, 2]


def test_no_mask_is_a_mask_of_ones_and_no_bias_is_zero(path):
    (image, offset, mask, weight, _bias), options = tensors()
    image, offset, weight = image.float(), offset.float(), weight.float()
    ones = torch.ones_like(mask).float()
    expected = deform_conv2d(image, offset, ones, weight, torch.zeros(2), **options)
    assert torch.equal(deform_conv2d(image, offset, None, weight, None, **options), expected)


def test_without_offsets_it_is_a_convolution(path):
    (image, offset, _, weight, bias), options = tensors(stride=(2, 1), dilation=(1, 2))
    values = [image.float(), 0 * offset.float(), None, weight.float(), bias.float()]
    del options["offset_groups"]
    expected = torch.nn.functional.conv2d(values[0], values[3], values[4], **options)
    torch.testing.assert_close(deform_conv2d(*values, **options), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 3e9, -3e9, 3e38, -3e38]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_an_offset_that_leads_nowhere_samples_zero_with_zero_gradient(value, axis, path):
    (image, offset, mask, weight, bias), options = tensors(spread=0.7)
    values = [v.float().requires_grad_() for v in (image, offset, mask, weight, bias)]
    with torch.no_grad():
        values[1][:, axis] = value  # dy or dx of the first tap
    found = deform_conv2d(*values, **options)
    without = [v.detach().clone() for v in values]
    without[1][:, axis] = 0
    without[2][:, 0] = 0
    torch.testing.assert_close(found, deform_conv2d(*without, **options), atol=1e-6, rtol=0)
    found.square().sum().backward()
    assert all(v.grad.isfinite().all() for v in values)
    assert not values[1].grad[:, :2].any()


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"kernel": (1, 3), "padding": (0, 1), "stride": (2, 1)},
        {"dilation": (2, 1), "padding": (2, 1), "groups": 2, "offset_groups": 2},
    ],
    ids=str,
)
def test_gradients_by_finite_differences(case):
    values, options = tensors(size=(3, 4), **case)
    # Bilinear interpolation has no derivative at integer positions: stay away from them.
    offset = values[1]
    values[1] = offset.floor() + 0.2 + 0.6 * (offset - offset.floor())
    values = [v.requires_grad_() for v in values]
    assert torch.autograd.gradcheck(lambda *v: deform_conv2d(*v, **options), values)


def gradients(values, options):
    """Of all five inputs in float32, by whichever path is taken."""
    inputs = [v.float().requires_grad_() for v in values]
    found = deform_conv2d(*inputs, **options)
    found.backward(torch.linspace(-1, 1, found.numel()).view(found.shape))
    return [v.grad for v in inputs]


@pytest.mark.parametrize("case", [*KERNELS, *STEPS, *GROUPS], ids=str)
@pytest.mark.parametrize("path", ["compiled", "triton"], indirect=True)
def test_gradients_agree_with_plain_ones(case, path, monkeypatch):
    values, options = tensors(**{"count": 2, **case})
    ours = gradients(values, options)
    monkeypatch.setattr(deform_conv, "_gather", lambda *_: deform_conv._columns_grid_sample)
    for found, plain in zip(ours, gradients(values, options), strict=True):
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_bfloat16_columns_are_rounded_and_nothing_else_is(path):
    """With offsets that bfloat16 holds exactly, the result is float32's but for roundings."""
    (image, offset, mask, weight, bias), options = tensors(count=2, size=(3, 600))
    offset, mask = (t.mul(8).round().div(8).float() for t in (offset, mask))
    image, weight, bias = (t.bfloat16().float() for t in (image, weight, bias))
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        given = [t.detach().clone().to(dtype).requires_grad_() for t in (image, offset, mask)]
        kernel = weight.clone().to(dtype).requires_grad_()
        out = deform_conv2d(*given, kernel, bias.to(dtype), **options)
        assert out.dtype == dtype
        out.float().square().sum().backward()
        results.append([out, *(t.grad for t in (*given, kernel))])
    for wide, narrow in zip(*results, strict=True):
        error = (wide - narrow.float()).norm() / wide.norm()
        assert 1e-5 < error < 2e-2


def test_the_environment_switches_the_compiled_path_off(monkeypatch):
    monkeypatch.setenv("EDGE_RESTORE_NO_C", "1")
    deform_sample._compiled.cache_clear()
    try:
        assert deform_sample.library() is None
    finally:
        monkeypatch.undo()
        deform_sample._compiled.cache_clear()


def test_the_compiled_path_is_what_float32_on_the_cpu_takes(monkeypatch):
    if deform_sample.library() is None:
        pytest.skip("no C compiler here (or EDGE_RESTORE_NO_C is set)")
    taken = []
    apply = deform_sample.SampleColumns.apply
    monkeypatch.setattr(
        deform_sample.SampleColumns, "apply", lambda *a: (taken.append(a[0].dtype), apply(*a))[1]
    )
    values, options = tensors()
    deform_conv2d(*values, **options)
    deform_conv2d(*(v.float() for v in values), **options)
    assert taken == [torch.float32]


def test_layer_is_the_function_with_its_weight():
    torch.manual_seed(0)
    layer = DeformConv2d(4, 2, 3, stride=2, padding=1, dilation=1, groups=2, offset_groups=2)
    (image, offset, mask, *_), options = tensors(stride=(2, 2), groups=2, offset_groups=2)
    image, offset, mask = image.float(), offset.float(), mask.float()
    expected = deform_conv2d(image, offset, mask, layer.weight, layer.bias, **options)
    assert torch.equal(layer(image, offset, mask), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: (1, 17, 4, 5)}, "offset is"),
        ({2: (1, 9, 4, 4)}, "mask is"),
        ({3: (2, 3, 3, 3)}, "do not fit weight"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    values, options = tensors()
    for index, shape in change.items():
        values[index] = torch.zeros(shape).double()
    with pytest.raises(ValueError, match=message):
        deform_conv2d(*values, **options)
