"""Muon's update is orthogonal and of Adam's size; every parameter is in exactly one group."""

import math

import pytest
import torch
from torch import nn

from train.networks import create
from train.optimiser import OFFSETS, Muon, make
from train.recipe import OptimiserRecipe


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (32, 2, 2, 2), (16, 16)])
def test_update_has_equal_singular_values(shape):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(shape))
    # Singular values between 1 and 1e-3: plain gradient descent would follow the first alone.
    matrix = torch.randn(shape).reshape(shape[0], -1)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    parameter.grad = (u * torch.logspace(0, -3, len(s)) @ v).reshape(shape)
    optimiser = Muon([parameter], lr=0.1)
    optimiser.step()
    update = parameter.detach().reshape(shape[0], -1)
    values = torch.linalg.svdvals(update) / (0.1 * 0.2 * math.sqrt(max(update.shape)))
    assert values[: len(s) // 2].min() > 0.6
    assert values.max() < 1.3
    assert (update * matrix).sum() < 0


def test_parameters_without_gradient_stay():
    moved, still = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moved.grad = torch.eye(4)
    optimiser = Muon([moved, still], lr=0.1)
    optimiser.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))


@pytest.mark.parametrize(("algorithm", "count"), [("adam", 1), ("muon", 2)])
def test_every_parameter_is_in_one_group(algorithm, count):
    network = create("svdn", width=8)
    optimisers = make(network, None, OptimiserRecipe(steps=1, algorithm=algorithm))
    assert len(optimisers) == count
    groups = [group for each in optimisers for group in each.param_groups]
    taken = [id(p) for group in groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in network.parameters())
    (offsets,) = (group for group in groups if group.get("role") == OFFSETS)
    assert {id(p) for p in offsets["params"]} == {id(p) for p in network.offset_parameters()}
    if algorithm == "muon":
        inner = {id(p) for p in optimisers[1].param_groups[0]["params"]}
        assert id(network.neck.deform1.weight) in inner
        assert id(network.stem[0].weight) not in inner
        assert id(network.tail.weight) not in inner


@pytest.mark.parametrize("algorithm", ["adam", "muon"])
def test_weight_decay_reaches_every_parameter(algorithm):
    network = create("svdn", width=8)
    recipe = OptimiserRecipe(steps=1, algorithm=algorithm, weight_decay=0.5)
    for each in make(network, None, recipe):
        assert all(group["weight_decay"] == 0.5 for group in each.param_groups)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    for each in make(network, None, recipe):
        each.step()
    assert all((p < 1).all() for p in network.parameters())


def test_muons_decay_shrinks_by_the_rate():
    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 4), 0.95))
