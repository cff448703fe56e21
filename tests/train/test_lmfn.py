"""LMFN: published sizes, switches, attention by hand, any frame size, a start that trains."""

import pytest
import torch
import torch.nn.functional as F

from train.networks import create
from train.networks.lmfn import ACFM, ALFM, LMFN


def perturbed(**arguments):
    """A small LMFN whose output depends on every parameter."""
    torch.manual_seed(0)
    network = create("lmfn", width=8, block_width=8, **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def millions(**arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in LMFN(**arguments).parameters()) / 1e6


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        ({}, 1.25),
        ({"mshf": False}, 1.8),  # Table 3
        ({"distillation_block": False}, 2.9),
        ({"alfm_acfm": False}, 1.20),
        *(({"blocks": n}, m) for n, m in enumerate((1.15, 1.18, 1.22, 1.25, 1.28, 1.31), 1)),
    ],
)
def test_parameters_match_the_published_sizes(arguments, published):
    assert abs(millions(**arguments) / published - 1) < 0.03


def test_another_block_adds_what_table_4_says():
    for blocks in range(1, 6):
        more = millions(blocks=blocks + 1) - millions(blocks=blocks)
        assert abs(more - 0.032) < 0.002  # (1.31 - 1.15) / 5


def test_attention_over_layers_by_hand():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    layer = ALFM().double()
    assert torch.equal(layer(x), x)  # theta starts at 0
    layer.theta.data.fill_(0.5)
    for image, found in zip(x, layer(x), strict=True):
        f = image.reshape(3, 20)
        expected = f + 0.5 * (f @ f.T / 20).softmax(dim=1) @ f
        torch.testing.assert_close(found.reshape(3, 20), expected)


def test_attention_over_layers_is_the_same_for_a_picture_four_times_as_large():
    x = torch.randn(1, 6, 4, 4)
    layer = ALFM()
    layer.theta.data.fill_(1.0)
    torch.testing.assert_close(layer(x.tile(1, 1, 2, 2)), layer(x).tile(1, 1, 2, 2))


def test_the_product_of_attention_fits_into_fp16():
    x = torch.full((1, 2, 180, 320), 2.0).half()
    assert torch.isinf((x.flatten(2).float() @ x.flatten(2).float().transpose(1, 2)).half()).all()
    layer = ALFM().half()
    layer.theta.data.fill_(1.0)
    torch.testing.assert_close(layer(x), 2 * x)


def test_channel_attention_is_the_pseudo_3d_convolution():
    torch.manual_seed(0)
    layer = ACFM(5).double()
    x = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    assert torch.equal(layer(x), x)  # alpha starts at 0
    with torch.no_grad():
        layer.alpha.fill_(0.5)
        layer.spatial_bias.fill_(0.3)
        layer.depth_bias.fill_(-0.2)
    volume = F.conv3d(x[:, None], layer.spatial[:, :, None], layer.spatial_bias, padding=(0, 1, 1))
    volume = F.conv3d(volume, layer.depth.view(1, 1, 3, 1, 1), layer.depth_bias, padding=(1, 0, 0))
    torch.testing.assert_close(layer(x), x + 0.5 * volume[:, 0].sigmoid() * x)


def test_starts_as_the_identity_with_gradients_that_reach_every_layer_but_the_zeroed_ones():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(create("lmfn", width=8, block_width=8)(image), image)
    network = perturbed()
    network(image).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_training_starts_to_deblur_at_once():
    torch.manual_seed(0)
    sharp = F.interpolate((torch.rand(4, 3, 11, 11) > 0.5).float(), size=(64, 64))
    blurred = F.avg_pool2d(F.pad(sharp, (4, 4, 0, 0), "replicate"), (1, 9), stride=1)
    network = create("lmfn", width=8, block_width=8, blocks=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        loss = (network(blurred) - sharp).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.8 * (blurred - sharp).square().mean()  # 1 dB


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (5, 2), (33, 18), (48, 32)])
@pytest.mark.parametrize("switch", [{}, {"mshf": False}])
def test_any_size_comes_back_at_that_size(size, switch):
    with torch.no_grad():
        restored = perturbed(**switch)(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    assert restored.isfinite().all()


def test_other_sizes_are_padded_by_reflection_and_cropped():
    network = perturbed()
    image = torch.rand(1, 3, 17, 30)
    padded = F.pad(image, (0, 2, 0, 15), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :17, :30])


def test_switches_of_table_3_change_the_network():
    names = {type(m).__name__ for m in perturbed().modules()}
    assert {"MSHF", "RFDB", "ESA", "ALFM", "ACFM"} <= names
    for switch, without in (
        ("mshf", {"MSHF"}), ("distillation_block", {"RFDB", "ESA"}), ("alfm_acfm", {"ALFM", "ACFM"})
    ):  # fmt: skip
        changed = {type(m).__name__ for m in perturbed(**{switch: False}).modules()}
        assert without <= names - changed
