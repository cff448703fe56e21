"""VGG features: values by hand, gradients, and what is said of a file that does not fit."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge_restore.errors import DataError, ModelError
from train.vgg import DEVIATION, LAYERS, MEAN, VGG, first_of_blocks


def tensors(sizes):
    """Random weights of convolutions (index, inputs, outputs) under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for index, inputs, outputs in sizes:
        spread = (2 / (9 * inputs)) ** 0.5
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * spread
        made[f"features.{index}.weight"] = weight
        made[f"features.{index}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return made


DATA = Path(os.environ.get("EDGE_RESTORE_DATA") or Path(__file__).parents[3] / "shared" / "data")
FIRST = ((0, 3, 64), (2, 64, 64))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vgg.safetensors"


def test_both_stacks_are_numbered_as_in_torchvision():
    assert LAYERS == {"vgg16": 31, "vgg19": 37}
    assert first_of_blocks("vgg16") == (1, 6, 11, 18, 25)
    assert first_of_blocks("vgg19") == (1, 6, 11, 20, 29)


def test_features_by_hand(path):
    """A first layer that copies red into two channels, once as it is and once negated."""
    weight, bias = torch.zeros(64, 3, 3, 3), torch.zeros(64)
    weight[0, 0, 1, 1], weight[1, 0, 1, 1], bias[1] = 1.0, -1.0, 0.25
    made = tensors(FIRST) | {"features.0.weight": weight, "features.0.bias": bias}
    save_file(made, path)
    image = torch.rand(1, 3, 4, 6)
    features = VGG("vgg16", {0, 1, 3, 4}, path)(image)
    red = (image[:, 0] - MEAN[0]) / DEVIATION[0]
    torch.testing.assert_close(features[0][:, 0], red)
    torch.testing.assert_close(features[0][:, 1], 0.25 - red)
    torch.testing.assert_close(features[1][:, 1], (0.25 - red).clamp(min=0))
    assert [tuple(f.shape) for f in features.values()] == [
        (1, 64, 4, 6),
        (1, 64, 4, 6),
        (1, 64, 4, 6),
        (1, 64, 2, 3),
    ]
    cells = features[3].reshape(1, 64, 2, 2, 3, 2)
    assert torch.equal(features[4], cells.amax((3, 5)))


def test_gradient_reaches_the_picture_and_nothing_else(path):
    save_file({k: v.half() for k, v in tensors(FIRST).items()}, path)
    vgg = VGG("vgg19", {3}, path).double()
    assert not list(vgg.parameters())
    assert not vgg.state_dict()
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: vgg(x)[3], (image,), fast_mode=True)


def test_a_missing_file_is_named(path):
    with pytest.raises(DataError, match="there is no VGG weights file") as caught:
        VGG("vgg16", {1}, path)
    assert str(path) in str(caught.value)
    assert "'vgg_file'" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        (
            {"features.2.weight": torch.zeros(64, 64, 1, 1)},
            "features.2.weight [64, 64, 1, 1]", "features.2.weight [64, 64, 3, 3]",
        ),
        ({"features.2.bias": None}, "no features.2.bias", "features.2.bias [64]"),
        # VGG-19's third block is one convolution longer; up to layer 14 the two are alike.
        (
            {"features.16.bias": torch.zeros(256)},
            "features.16.bias [256]", "no features.16.bias",
        ),
    ],
)  # fmt: skip
def test_what_differs_is_named(path, change, found, expected):
    made = {k: v for k, v in (tensors(FIRST) | change).items() if v is not None}
    save_file(made, path)
    with pytest.raises(ModelError) as caught:
        VGG("vgg16", {3}, path)
    assert found in caught.value.found
    assert expected in caught.value.expected
    assert "1 of its tensors" in caught.value.found


def test_other_keys_and_missing_later_layers_are_no_mistake(path):
    save_file(tensors(FIRST) | {"lpips.lin0.weight": torch.zeros(1, 64, 1, 1)}, path)
    VGG("vgg16", {3}, path)
    with pytest.raises(ModelError, match=r"no features\.5\.bias"):
        VGG("vgg16", {5}, path)


def test_values_that_are_not_finite_are_refused(path):
    made = tensors(FIRST)
    made["features.2.bias"][7] = float("nan")
    save_file(made, path)
    with pytest.raises(DataError, match=r"features\.2\.bias"):
        VGG("vgg16", {3}, path)


def test_a_published_file_is_vgg16_and_not_vgg19():
    published = DATA / "weights" / "vgg16_imagenet_fp16.safetensors"
    if not published.is_file():
        pytest.skip(f"VGG16 weights are missing: {published}; set EDGE_RESTORE_DATA to its folder")
    features = VGG("vgg16", {30}, published)(torch.rand(1, 3, 32, 32))
    assert features[30].shape == (1, 512, 1, 1)
    assert features[30].isfinite().all()
    with pytest.raises(ModelError, match="does not hold vgg19's features") as caught:
        VGG("vgg19", {12}, published)
    assert "features.17.bias [512]" in caught.value.found
    assert "no features.17.bias" in caught.value.expected
