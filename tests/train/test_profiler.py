"""Counts by hand, memory by hand, and the table of networks."""

import json

import pytest
import torch
from torch import nn

from edge_restore.models import zoo
from train.__main__ import main
from train.networks import NETWORKS, create
from train.networks.deform_conv import DeformConv2d
from train.profiler import profile
from train.published import PUBLISHED

SIZE = (10, 12)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 120 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, (3, 1), stride=2), 4 * 6 * 8 * 3 * 3),  # no padding: 4 x 6 pixels
        (nn.Conv2d(3, 6, 5, padding=2, groups=3), 120 * 6 * 1 * 25),
        (nn.Conv2d(3, 4, 3, padding=2, dilation=2), 120 * 4 * 3 * 9),
        (nn.ConvTranspose2d(3, 5, 4, 2, 1), 120 * 3 * 5 * 16),  # each input pixel meets 4x4 taps
        (nn.ConvTranspose2d(3, 6, 2, 2, groups=3), 120 * 3 * 2 * 4),
        (nn.Linear(12, 7), 30 * 12 * 7),
        (nn.Sequential(nn.Flatten(2), nn.Linear(120, 7, bias=False)), 3 * 120 * 7),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)), 0),
    ],
)
def test_layers_by_hand(layer, macs):
    assert profile(layer, SIZE).macs == macs


class Deformed(nn.Module):
    """A 3x3 deformable layer, stride 2, from 3 to 5 channels; no offsets to predict."""

    def __init__(self):
        super().__init__()
        self.layer = DeformConv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, image):
        height, width = image.shape[2] // 2, image.shape[3] // 2
        offset = image.new_empty(1, 18, height, width)
        return self.layer(image, offset, image.new_empty(1, 9, height, width))


def test_deformable_convolution_by_hand():
    pixels, taps = 5 * 6, 9
    gather = pixels * taps * 3 * 4  # 4 corners of each channel's sample
    product = pixels * taps * 3 * 5
    cost = profile(Deformed(), SIZE)
    assert cost.macs == gather + product
    assert cost.parameters == 5 * 3 * 9 + 5
    # Picture, offsets, mask, result, and no table of samples.
    assert cost.activation_bytes == 4 * (3 * 120 + (18 + 9 + 5) * pixels)


def test_a_product_of_activations_is_counted():
    class Gram(nn.Module):
        def forward(self, image):
            rows = image.flatten(2)
            return torch.softmax(rows @ rows.transpose(1, 2), dim=-1) @ rows

    assert profile(Gram(), SIZE).macs == 2 * 3 * 3 * 120


def test_memory_is_what_is_alive_at_once():
    image, wide = 4 * 3 * 120, 4 * 8 * 120
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert profile(conv, SIZE).activation_bytes == image + wide
    # The third and fourth results take the place of the first and second.
    chain = nn.Sequential(conv, nn.ReLU(), nn.Sigmoid(), nn.Tanh())
    assert profile(chain, SIZE).activation_bytes == image + 2 * wide
    in_place = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Flatten(1))
    assert profile(in_place, SIZE).activation_bytes == image + wide


def test_the_network_is_not_changed_and_costs_grow_with_the_picture():
    network = create("svdn", width=8)
    before = dict(network.named_modules())
    small, large = profile(network, (16, 16)), profile(network, (32, 32))
    assert large.macs == 4 * small.macs
    assert large.activation_bytes == 4 * small.activation_bytes
    assert dict(network.named_modules()) == before
    assert next(network.parameters()).device.type == "cpu"
    assert network.training


def test_torchs_own_counter_agrees():
    from torch.utils.flop_counter import FlopCounterMode

    network = create("lmfn", width=8, block_width=8).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 3, 32, 48))
    assert profile(network, (32, 48)).macs == counter.get_total_flops() / 2


def test_every_network_has_published_figures():
    assert NETWORKS.keys() <= PUBLISHED.keys()


def test_the_table_as_json(capsys):
    assert main(["networks", "--json", "--size", "64x96"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["height"], found["width"]) == (64, 96)
    assert [row["network"] for row in found["networks"]] == list(NETWORKS)
    for row in found["networks"]:
        assert abs(row["parameters"] / (1e6 * row["published"]["parameters"]) - 1) < 0.05
        assert row["macs"] > 0
        assert row["activation_bytes"] > 4 * 3 * 64 * 96


def test_the_table_to_read(capsys):
    assert main(["networks", "--size", "64x64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    svdn = next(line for line in lines if line.startswith("svdn ")).split()
    assert svdn[1:3] == ["0.809", "0.8"]
    assert svdn[-3:] == ["10", "29.81", "0.9368"]
    assert any(line.startswith("lmfn: parameters from Tables 1 to 4;") for line in lines)


@pytest.mark.parametrize("size", ["720", "0x12"])
def test_a_size_that_is_none(size, capsys):
    assert main(["networks", "--size", size]) == 2
    assert f"'{size}' is not a size" in capsys.readouterr().err


def test_the_runtime_knows_the_networks_and_their_parameters():
    """`edge-restore models` names them without the training room."""
    with torch.device("meta"):
        counted = {name: sum(p.numel() for p in create(name).parameters()) for name in NETWORKS}
    assert counted == zoo.NETWORKS


def test_moved_numbers_by_hand():
    layer = nn.Conv2d(3, 8, 3, padding=1)
    assert profile(layer, SIZE).moved_numbers == 3 * 120 + 8 * 120 + 8 * 3 * 9
    fused = nn.Sequential(layer, nn.ReLU(), nn.ReLU())
    assert profile(fused, SIZE).moved_numbers == profile(layer, SIZE).moved_numbers
    deformed = 3 * 120 + (18 + 9 + 5) * 30 + 5 * 3 * 9
    assert profile(Deformed(), SIZE).moved_numbers == deformed


def test_the_shipped_costs_are_what_is_counted(tmp_path):
    from edge_restore.bench import costs

    assert main(["networks", "--costs", str(tmp_path / "costs.json")]) == 0
    assert json.loads((tmp_path / "costs.json").read_text()) == json.loads(costs.FILE.read_text())
