"""What one would run instead, timed in turns on a small frame."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_restore.bench.timing import Timing
from edge_restore.media import photo
from edge_restore.media.metrics import psnr
from edge_restore.models import zoo
from edge_restore.models.cards import card_path
from export import contenders
from train.networks import deform_sample
from train.networks.deform_conv import DeformConv2d, deform_conv2d

WEIGHTS = Path("train/released/svdn.safetensors")


LEAST = {"bf16": 50, "INT8": 35}
"""PSNR against torch in FP32; every other contender computes in FP32."""


def broken(*_, **__):
    raise RuntimeError


@pytest.fixture(autouse=True)
def without_compiling(monkeypatch):
    """torch.compile takes a minute; it is also what cannot run on many machines."""
    monkeypatch.setattr(torch, "compile", broken)


@pytest.fixture
def found():
    return contenders.contenders("svdn", WEIGHTS, 48, 64)


def test_all_restore_the_same_picture(found):
    made, left_out = found
    assert contenders.EAGER in made
    assert len(made) + len(left_out) == 16
    wide = photo.scaled(48, 70).astype(np.float32)
    frame = np.mean([wide[:, i : i + 64] for i in range(7)], axis=0).round().astype(np.uint8)
    expected = made[contenders.EAGER](frame)
    assert psnr(expected, frame) < 40  # what came sharp would be left alone
    for name, restore in made.items():
        picture = restore(frame)
        assert picture.shape == frame.shape and picture.dtype == np.uint8
        least = next((bar for word, bar in LEAST.items() if word in name), 70)
        assert psnr(picture, expected) > least, name


def test_plain_onnx_runtime_is_given_a_size_that_the_network_takes():
    """LMFN takes multiples of 16."""
    made, _ = contenders.contenders("lmfn", WEIGHTS.with_name("lmfn.safetensors"), 40, 72)
    assert made[contenders.PLAIN](photo.scaled(40, 72)).shape == (40, 72, 3)


def test_torchvisions_operator_is_given_what_ours_is(monkeypatch):
    """In the order of torchvision.ops.deform_conv2d; its offsets are (dy, dx), too."""
    layer = DeformConv2d(4, 4, 3, padding=1)
    image, offset = torch.rand(1, 4, 6, 7), torch.randn(1, 18, 6, 7)
    mask = torch.rand(1, 9, 6, 7)

    def convolve(image, offset, weight, bias, stride, padding, dilation, mask):
        return deform_conv2d(
            image, offset, mask, weight, bias, stride=stride, padding=padding, dilation=dilation
        )

    found = contenders._torchvisions(convolve, layer, image, offset, mask)
    assert torch.equal(found, layer(image, offset, mask))


def test_our_kernel_is_given_what_the_layer_is():
    """By Triton's interpreter; on a GPU the same call compiles it."""
    pytest.importorskip("triton")
    layer = DeformConv2d(8, 16, 3, padding=1)
    image, offset = torch.rand(1, 8, 6, 7), torch.randn(1, 18, 6, 7)
    mask = torch.rand(1, 9, 6, 7)
    with torch.inference_mode():
        found = contenders._with_our_kernel(layer, image, offset, mask)
        torch.testing.assert_close(found, layer(image, offset, mask), rtol=0, atol=1e-5)


def test_only_what_is_named_is_run():
    made, left_out = contenders.contenders("svdn", WEIGHTS, 48, 64, "C kernel")
    assert set(made) <= {contenders.EAGER, "torch eager, our C kernel"}
    assert contenders.EAGER in made
    assert all("C kernel" in reason for reason in left_out)


def test_an_engine_is_made_of_the_form_that_is_named(monkeypatch):
    """And not of the one that the backend likes best."""
    asked = []

    def create(backend, models):
        (model,) = models
        assert model.parent != zoo.FOLDER and card_path(model).is_file()
        asked.append((backend, model.name))
        raise RuntimeError

    monkeypatch.setattr(contenders.backends, "create", create)
    _, left_out = contenders.contenders("svdn", WEIGHTS, 48, 64)
    assert asked == [
        ("tensorrt", "svdn-plugin-fp16.onnx"),
        ("tensorrt", "svdn-gridsample-fp16.onnx"),
        ("tensorrt", "svdn.onnx"),
        ("tensorrt-rtx", "svdn-gridsample-fp16.onnx"),
    ]
    assert "TensorRT, NVIDIA's plugin in FP32: RuntimeError" in left_out


def test_what_cannot_run_is_named(monkeypatch):
    monkeypatch.setattr(contenders, "_plain", broken)
    made, left_out = contenders.contenders("svdn", WEIGHTS, 48, 64)
    assert contenders.PLAIN not in made
    assert {
        f"{contenders.PLAIN}: RuntimeError",
        "torch.compile, our C kernel: RuntimeError",
    } <= set(left_out)


def test_ratios_are_against_the_named_ones():
    def level(ms):
        return Timing(((ms,) * 9,) * 3, 5, True)

    timings = {"torch eager": level(40.0), "ours": level(10.0)}
    header, rows, _ = contenders.table(
        timings, {"torch eager": math.inf, "ours": 63.35}, ["torch eager"]
    )
    assert header[2] == "faster than torch eager"
    assert rows[0][2].startswith("1.00") and rows[1][2].startswith("4.00")
    assert rows[0][3] == "inf" and rows[1][3] == "63.35"


def test_the_command(found, capsys):
    words = ["svdn", "--size", "48x64", "--samples", "3", "--seconds", "2"]
    assert contenders.main(words) == 0
    said = capsys.readouterr().out
    assert "plain ONNX Runtime" in said and "svdn, 64x48, 8-bit frames" in said


def test_bad_input_is_one_error(capsys):
    assert contenders.main(["nothing"]) == 2
    assert "contenders: error" in capsys.readouterr().err
    assert contenders.main(["svdn", "--size", "big"]) == 2


def test_torch_eager_is_without_our_kernel(found, monkeypatch):
    asked = []
    real = deform_sample.library
    monkeypatch.setattr(deform_sample, "library", lambda: asked.append(real()) or asked[-1])
    made, _ = found
    made[contenders.EAGER](photo.scaled(48, 64))
    assert asked == [None, None]  # of either deformable layer
    if real() is not None:
        made["torch eager, our C kernel"](photo.scaled(48, 64))
        assert asked[2] is not None
