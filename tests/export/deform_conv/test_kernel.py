"""The kernel in Triton's interpreter against ONNX Runtime and the torch layer."""

import functools
import itertools
import mmap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="triton is not installed")

from dataclasses import replace

from triton.runtime import interpreter

from edge_restore.engine.plugin.kernels import MASK_ABSENT, MASK_LOGIT, MASK_PLAIN, Geometry
from export.deform_conv import kernel
from export.deform_conv.blocks import Blocks
from export.deform_conv.launch import (
    deform_conv2d,
    launch,
    nhwc,
    packed_weight,
    padded_geometry,
)
from tests.export.deform_conv.layers import by_onnx_runtime, layer
from train.networks.deform_conv import deform_conv2d as torch_layer

CASES = [
    {"kernel": (1, 1), "padding": (0, 0)},
    {"kernel": (5, 5), "padding": (2, 2), "size": (7, 9)},
    {"kernel": (7, 7), "padding": (3, 3), "size": (5, 4)},
    {"kernel": (2, 3), "padding": (0, 1)},
    {"stride": (2, 3), "size": (9, 11)},
    {"dilation": (3, 2), "padding": (3, 2)},
    {"stride": (2, 1), "dilation": (1, 2), "padding": (2, 0), "size": (8, 7)},
    {"size": (1, 1)},
    {"size": (1, 1), "kernel": (1, 1), "padding": (0, 0), "channels": 1, "outputs": 1},
    {"size": (1, 9), "kernel": (5, 5), "padding": (2, 2)},
    {"size": (9, 1)},
    {"size": (17, 33), "kernel": (1, 1), "padding": (0, 0)},
    {"channels": 48, "outputs": 48, "kernel": (5, 5), "padding": (2, 2), "size": (4, 5)},
    {"channels": 75, "outputs": 70},
    {"channels": 3, "outputs": 1},
    {"mask": False},
    {"bias": False},
    {"mask": False, "bias": False, "offset_groups": 2},
    {"spread": 30.0},
    {"spread": 1e6},
    {"count": 2, "groups": 2, "offset_groups": 2},
    {"channels": 16, "offset_groups": 2},
    {"channels": 12, "outputs": 12, "groups": 3, "offset_groups": 2},
    *({"groups": g, "offset_groups": o} for g, o in itertools.product((1, 2), (1, 2, 4))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnx_runtime_and_with_the_torch_layer(case):
    tensors, options = layer(**case)
    found = deform_conv2d(**tensors, **options)
    torch.testing.assert_close(found, by_onnx_runtime(tensors, options), rtol=0, atol=2e-5)
    torch.testing.assert_close(found, torch_layer(**tensors, **options), rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", [{"channels": 16, "outputs": 24}, {"channels": 5}], ids=str)
@pytest.mark.parametrize("tile", [(2, 16), (8, 4), (16, 16)])
@pytest.mark.parametrize("unroll", [1, 3])
def test_block_shapes_do_not_matter(case, tile, unroll):
    tensors, options = layer(**case)
    blocks = Blocks(*tile, block_in=16, unroll=unroll, block_out=16, warps=4)
    found = deform_conv2d(**tensors, **options, blocks=blocks)
    torch.testing.assert_close(found, torch_layer(**tensors, **options), rtol=0, atol=2e-5)


@pytest.mark.parametrize("slope", ["none", "leaky", "prelu"])
def test_mask_logits_and_the_activation_are_fused(slope):
    tensors, options = layer()
    logits = torch.randn(tensors["mask"].shape, generator=torch.Generator().manual_seed(0)) * 4
    slopes = {"none": None, "leaky": torch.full((6,), 0.1), "prelu": torch.linspace(-1, 2, 6)}[
        slope
    ]
    expected = torch_layer(**{**tensors, "mask": logits.sigmoid()}, **options)
    assert (expected < 0).any()
    if slopes is not None:
        expected = F.prelu(expected, slopes)
    found = deform_conv2d(
        **{**tensors, "mask": logits}, slope=slopes, **options, mask_is_logit=True
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # NumPy's; 1/(1 + inf) is meant
@pytest.mark.parametrize("logit", [-np.inf, -200.0, 200.0, np.inf])
def test_logits_at_their_ends_are_exactly_zero_and_one(logit):
    tensors, options = layer()
    logits = torch.full_like(tensors["mask"], logit)
    found = deform_conv2d(**{**tensors, "mask": logits}, **options, mask_is_logit=True)
    plain = torch.full_like(logits, float(logit > 0))
    assert torch.equal(found, deform_conv2d(**{**tensors, "mask": plain}, **options))


def test_a_zero_mask_leaves_the_bias():
    tensors, options = layer()
    tensors["mask"].zero_()
    expected = tensors["bias"].view(1, -1, 1, 1).expand(1, -1, 6, 7)
    assert torch.equal(deform_conv2d(**tensors, **options), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65504.0, -65504.0, 3e38, -3e38])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_tap_that_leads_nowhere_reads_zero(value, axis, dtype):
    tensors, options = layer(spread=0.5, size=(4, 5))
    tensors["mask"][:, 4] = 0
    without = deform_conv2d(**_cast(tensors, dtype), **options)
    tensors["mask"][:, 4] = 1
    assert not torch.equal(deform_conv2d(**_cast(tensors, dtype), **options), without)
    tensors["offset"][:, 8 + axis] = value  # dy or dx of the tap in the middle
    assert torch.equal(deform_conv2d(**_cast(tensors, dtype), **options), without)
    assert without.isfinite().all()


def test_the_torch_layer_defines_nan_in_the_same_way():
    tensors, options = layer(spread=0.5)
    tensors["offset"][0, ::5, 2, 3] = torch.nan
    found = deform_conv2d(**tensors, **options)
    torch.testing.assert_close(found, torch_layer(**tensors, **options), rtol=0, atol=2e-5)


def test_float16_rounds_each_sample_once():
    """One tap and the identity as weight: the output is the float32 sample, rounded."""
    tensors, options = layer(
        kernel=(1, 1), padding=(0, 0), channels=16, outputs=16, mask=False, bias=False
    )
    tensors["weight"] = torch.eye(16).view(16, 16, 1, 1)
    half = _cast(tensors, torch.float16)
    found = deform_conv2d(**half, **options)
    exact = _cast(half, torch.float32)
    assert torch.equal(found, deform_conv2d(**exact, **options).half())
    assert not torch.equal(found.float(), deform_conv2d(**exact, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [16, 5])
def test_nothing_outside_the_tensors_is_read_or_written(channels, dtype):
    """HWC8 strides, NaN in all padding and around the tensors; rows follow without a gap."""
    tensors, options = layer(channels=channels, outputs=7, count=2, spread=20.0)
    geometry = padded_geometry(_geometry(channels, 7, MASK_PLAIN), 8)
    ow = torch.cat((tensors["offset"], tensors["mask"]), dim=1)
    packed = [
        _guarded(nhwc(tensors["image"], dtype), geometry.image_stride),
        _guarded(nhwc(ow, dtype), geometry.ow_stride),
        _guarded(packed_weight(tensors["weight"]).to(dtype)),
        _guarded(tensors["bias"]),
        _guarded(torch.ones(7)),
    ]
    store = torch.full((2 * 6 * 7 * 8 + 64,), torch.nan, dtype=dtype)
    out = store[32:-32].view(2, 6, 7, 8)
    launch(*packed, out, geometry)
    plain = deform_conv2d(**_cast(tensors, dtype), **options)
    assert torch.equal(out[..., :7].permute(0, 3, 1, 2), plain)
    assert (out[..., 7] == 0).all()  # HWC8's padding
    assert store[:32].isnan().all() and store[-32:].isnan().all()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of plain masks, unused
@pytest.mark.parametrize("mode", [MASK_ABSENT, MASK_PLAIN])
@pytest.mark.parametrize("channels", [16, 5])
def test_every_address_belongs_to_an_element(channels, mode, monkeypatch):
    """Also what is read and then discarded: on a GPU, that may be another's memory."""
    geometry = padded_geometry(_geometry(channels, 7, mode), 8)
    generator = torch.Generator().manual_seed(0)

    def channels_of_pixels(count, stride):
        return (4 * torch.randn(2, 6, 7, stride, generator=generator))[..., :count]

    image = channels_of_pixels(channels, geometry.image_stride)
    ow = channels_of_pixels(9 * (3 if mode else 2), geometry.ow_stride)
    out = torch.zeros(2, 6, 7, geometry.out_stride)
    others = [torch.randn(9, channels, 7), torch.randn(7), torch.randn(7)]
    inputs = (image, ow, *others)
    allowed = np.concatenate([_addresses(tensor) for tensor in inputs])
    writable = _addresses(out)
    reads, real = [], interpreter._interpreter

    def load(pointers, mask, *rest):
        reads.append(pointers[mask.astype(bool)])
        return real.load(pointers, mask, *rest)

    def store(pointers, values, mask):
        assert np.isin(pointers[mask.astype(bool)], writable).all()
        return real.store(pointers, values, mask)

    recording = SimpleNamespace(load=load, store=store)
    monkeypatch.setattr(interpreter, "_interpreter", recording)
    launch(*inputs, out, geometry)
    addresses = np.unique(np.concatenate(reads))
    assert np.isin(addresses, allowed).all()
    assert np.isin(_addresses(others[0]), addresses).all(), "the recording works"


def test_offsets_between_elements_beyond_2_to_the_31():
    """2400 pixels, 2**20 elements apart, in memory that is only reserved where it is not used."""
    stride, size = 2**20, (40, 60)
    tensors, _ = layer(kernel=(1, 1), padding=(0, 0), size=size, mask=False)
    geometry = replace(
        _geometry(4, 6, 0, size=size, kernel=1), image_stride=stride, ow_stride=stride,
        out_stride=stride,
    )  # fmt: skip
    assert size[0] * size[1] * stride > 2**31
    sparse = [_reserved((1, *size, stride)) for _ in ("image", "ow", "out")]
    tensors["offset"] = tensors["offset"].half().float()
    sparse[0][..., :4] = nhwc(tensors["image"], torch.float16).numpy()
    sparse[1][..., :2] = nhwc(tensors["offset"], torch.float16).numpy()
    # The interpreter copies each argument's storage onto itself: let it know of one pixel only.
    image, ow, out = (torch.from_numpy(array[:, :1, :1, :8]) for array in sparse)
    weight = packed_weight(tensors["weight"]).half()
    launch(image, ow, weight, tensors["bias"], torch.ones(6), out, geometry)
    expected = deform_conv2d(**_cast(tensors, torch.float16))
    found = torch.from_numpy(np.array(sparse[2][..., :6]))
    assert torch.equal(found.permute(0, 3, 1, 2), expected)


def test_the_device_knows_the_kernels_arguments():
    """Geometry's fields are the scalars in launch order; the mask modes are the same numbers."""
    assert tuple(Geometry.__dataclass_fields__) == kernel.SCALARS
    assert (kernel.MASK_ABSENT, kernel.MASK_PLAIN, kernel.MASK_LOGIT) == (0, MASK_PLAIN, MASK_LOGIT)
    names = kernel.deform_conv.__code__.co_varnames
    assert names[: len(kernel.SCALARS) + 6] == (*kernel.POINTERS, *kernel.SCALARS, "out")


def _geometry(channels, outputs, mode, size=(6, 7), kernel=3):
    taps = kernel * kernel
    pad = kernel // 2
    return Geometry(
        *size, channels, *size, outputs, channels, taps * (3 if mode else 2), outputs, outputs,
        kernel, kernel, 1, 1, pad, pad, 1, 1, 1, mode,
    )  # fmt: skip


def _cast(tensors, dtype):
    return {
        name: value if value is None or name == "bias" else value.to(dtype)
        for name, value in tensors.items()
    }


def _reserved(shape):
    """Zeros of float16; a page of memory is taken when it is first touched."""
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    try:
        memory = mmap.mmap(-1, 2 * int(np.prod(shape)), flags=flags)
    except OSError as error:
        pytest.skip(f"the system reserves no 5 GB of address space: {error}")
    return np.frombuffer(memory, np.float16).reshape(shape)


def _addresses(tensor):
    """Of every element, in bytes."""
    steps = [
        np.arange(length) * stride
        for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    elements = functools.reduce(np.add.outer, steps).ravel()
    return (tensor.data_ptr() + elements * tensor.element_size()).astype(np.uint64)


def _guarded(tensor, pixel_stride=None):
    """The same values within a larger tensor of NaN, each pixel padded with NaN."""
    if pixel_stride is not None:
        tensor = F.pad(tensor, (0, pixel_stride - tensor.shape[-1]), value=torch.nan)
    store = torch.full((tensor.numel() + 64,), torch.nan, dtype=tensor.dtype)
    guarded = store[32:-32].view(tensor.shape)
    guarded.copy_(tensor)
    return guarded
