"""SVDN's layout: published sizes, switches, any frame size."""

import pytest
import torch

from edge_restore.errors import OptionError
from train.networks import create
from train.networks.padding import crop, pad_to_multiple


def perturbed(**arguments):
    """An SVDN whose deformable layers really move: offsets of a pixel or so."""
    torch.manual_seed(0)
    network = create("svdn", **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def test_parameters_match_the_published_sizes():
    count = sum(p.numel() for p in create("svdn").parameters())
    assert abs(count / 0.8e6 - 1) < 0.03  # "nearly 0.8 M"
    assert abs(count * 4 / 2**20 - 3.1) < 0.05  # 3.1 MB


def test_starts_as_the_identity_with_gradients_that_reach_every_layer_but_the_zeroed_ones():
    torch.manual_seed(0)
    network = create("svdn", width=8)
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(image), image)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    network(image).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (17, 31), (32, 32)])
def test_any_size_comes_back_at_that_size(size):
    with torch.no_grad():
        restored = perturbed(width=8)(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    assert restored.isfinite().all()


def test_an_odd_size_is_padded_by_reflection_and_cropped():
    network = perturbed(width=8)
    image = torch.rand(1, 3, 9, 11)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 1), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :9, :11])


def test_padding_repeats_the_edge_of_a_side_too_short_to_reflect():
    image = torch.arange(3.0).view(1, 1, 1, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.tolist() == [[[[0, 1, 2, 1]] * 4]]
    assert torch.equal(crop(padded, image), image)


def test_switches_of_table_2_change_the_network():
    full = perturbed(width=8)
    assert {
        m.dilation for g in full.groups for m in g.modules() if isinstance(m, torch.nn.Conv2d)
    } == {
        (1, 1),
        (2, 2),
        (4, 4),
    }
    plain = perturbed(width=8, dilated=False, feature_deconvolution=False)
    names = {type(m).__name__ for m in plain.modules()}
    assert "DeformConv2d" not in names
    assert all(m.dilation == (1, 1) for m in plain.modules() if isinstance(m, torch.nn.Conv2d))


def test_second_offsets_come_from_the_first_not_from_its_output():
    network = perturbed(width=8)
    blur = torch.rand(1, 8, 6, 6)
    ow1, ow2 = network.neck.offsets_and_masks(blur)
    assert ow1.shape == ow2.shape == (1, 75, 6, 6)
    assert torch.equal(ow2, network.neck.ow2(ow1))


def test_unknown_network_and_argument_are_user_errors():
    with pytest.raises(OptionError, match="no network is called 'svd'"):
        create("svd")
    with pytest.raises(OptionError, match="cannot be built with"):
        create("svdn", depth=3)
