"""The vectors that a GPU is compared with: still what the interpreter gives, and right."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.deform_conv import vectors
from train.networks.deform_conv import deform_conv2d

STORED = Path(__file__).parents[2] / "gpu" / "deform_conv_vectors.zip"


@pytest.fixture(scope="module")
def stored():
    return vectors.read(STORED)


def test_the_file_is_small_and_complete(stored):
    assert STORED.stat().st_size < 200_000
    assert set(stored) == {vector.name for vector in vectors.VECTORS}


@pytest.mark.parametrize("name", ["hwc8_fp16", "odd_fp16", "odd_fp32", "one_pixel_fp16"])
def test_the_interpreter_still_gives_them(name, stored):
    pytest.importorskip("triton")
    (vector,) = (v for v in vectors.VECTORS if v.name == name)
    assert np.array_equal(vectors.interpret(vector), stored[name])


@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.name)
def test_the_torch_layer_gives_them(vector, stored):
    g = vector.geometry
    given = {n: torch.from_numpy(v).float() for n, v in vectors.inputs(vector).items()}
    taps = g.kernel_h * g.kernel_w
    offsets = 2 * g.offset_groups * taps
    ow = given["ow"].permute(0, 3, 1, 2)
    mask = ow[:, offsets : offsets * 3 // 2] if g.mask_mode else None
    if g.mask_mode == vectors.MASK_LOGIT:
        mask = mask.sigmoid()
    weight = given["weight"].permute(2, 1, 0).reshape(g.out_channels, g.channels, g.kernel_h, -1)
    out = deform_conv2d(
        given["image"][..., : g.channels].permute(0, 3, 1, 2), ow[:, :offsets], mask, weight,
        given["bias"], stride=g.stride_y, padding=g.pad_y, dilation=g.dilation_y,
        offset_groups=g.offset_groups,
    )  # fmt: skip
    out = torch.where(out > 0, out, given["slope"].view(1, -1, 1, 1) * out)
    found = torch.from_numpy(stored[vector.name].astype(np.float32))[..., : g.out_channels]
    atol = {"fp16": 4e-3, "fp32": 1e-5}[vector.precision]
    torch.testing.assert_close(found.permute(0, 3, 1, 2), out, rtol=0, atol=atol)


def test_values_are_exact_halves_and_spread_out():
    values = vectors.noise((4096,), 1)
    assert np.array_equal(values, values.astype(np.float16))
    assert len(np.unique(values)) > 500 and abs(values.mean()) < 0.05
    assert not np.array_equal(values, vectors.noise((4096,), 2))
