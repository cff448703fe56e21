"""The position loss against distances measured by hand, its gradient, and its hook into SVDN."""

import math

import pytest
import torch

from edge_restore.errors import RecipeError
from train.networks import create
from train.position import (
    PositionLoss,
    distance_to_flow,
    flows_of_layer,
    position,
    sampling_points,
)

F64 = torch.float64


def place(dy, dx):
    return torch.tensor([dy, dx], dtype=F64).view(2, 1, 1)


@pytest.mark.parametrize(
    ("point", "flow", "expected"),
    [
        ((1.0, 2.0), (0.0, 4.0), 1.0),  # beside the middle of a level flow
        ((0.0, 2.0), (0.0, 4.0), 0.0),  # on it
        ((3.0, 8.0), (0.0, 4.0), 5.0),  # beyond its end
        ((3.0, -4.0), (0.0, 4.0), 5.0),  # before its beginning
        ((2.0, 1.0), (4.0, 0.0), 1.0),  # beside an upright flow, u = 0
        ((7.0, 4.0), (4.0, 0.0), 5.0),  # beyond the end of one, which no abscissa tells
        ((0.0, 5.0), (3.0, 4.0), 3.0),  # beside a slanting flow: its foot is at (2.4, 3.2)
        ((3.0, -4.0), (0.0, 0.0), 5.0),  # no motion
        ((0.0, 0.0), (0.0, 0.0), 0.0),
    ],
)
def test_distance_by_hand(point, flow, expected):
    distance = distance_to_flow(place(*point), place(*flow))
    assert distance.shape == (1, 1)
    assert distance.item() == pytest.approx(expected, abs=1e-9)


def test_why_the_algorithm_is_not_taken_as_printed():
    """Its lines 1 and 3, word by word: a point on the flow is 2 pixels away from it."""
    (x, y), (u, v) = (2.0, 0.0), (4.0, 0.0)
    x0 = (u * v * y + v * v * x) / (u * u + v * v)
    assert min(0, u) <= x0 <= max(0, u)
    assert abs(u * x - v * y) / math.hypot(u, v) == 2.0
    assert distance_to_flow(place(y, x), place(v, u)).item() == 0.0


def test_points_of_an_undeformed_kernel():
    points = sampling_points(torch.zeros(1, 50, 1, 1))[0, :, :, 0, 0]
    assert points[0].tolist() == [-2, -2]
    assert points[1].tolist() == [-2, -1]
    assert points[12].tolist() == [0, 0]
    assert points[24].tolist() == [2, 2]
    moved = torch.zeros(1, 50, 1, 1)
    moved[0, 2], moved[0, 3] = 0.5, 3.0  # (dy, dx) of the second tap
    assert sampling_points(moved)[0, 1, :, 0, 0].tolist() == [-1.5, 2]


def both(before, after):
    return torch.stack((place(*before), place(*after)))[None]


def test_value_by_hand():
    """A kernel of one tap and one of nine, flows to the left and to the right."""
    flows = both((0.0, -4.0), (0.0, 6.0))
    one = torch.tensor([3.0, 5.0], dtype=F64).view(1, 2, 1, 1)
    assert position(one, flows, margin=1.0).item() == 3.0
    assert position(one, flows, margin=7.0).item() == 7.0
    # Three taps on the line, six one pixel beside it.
    nine = torch.zeros(1, 18, 1, 1, dtype=F64)
    assert position(nine, flows, margin=0.0).item() == pytest.approx(6 / 9)
    assert position(nine, flows, margin=0.5).item() == pytest.approx((3 * 0.5 + 6) / 9)


def test_only_points_beyond_the_margin_are_pulled():
    offsets = torch.zeros(1, 18, 1, 1, dtype=F64)
    offsets[0, 0] = -3.0  # the first tap stands four pixels above the flow
    offsets.requires_grad_()
    position(offsets, both((0.0, -4.0), (0.0, 4.0)), margin=2.0).backward()
    pulled = offsets.grad[0, :, 0, 0]
    assert pulled[0].item() == pytest.approx(-1 / 9)
    assert not pulled[1:].any()


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_gradient(margin):
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(2, 18, 2, 3, dtype=F64, generator=generator).mul_(2).requires_grad_()
    flows = torch.randn(2, 2, 2, 2, 3, dtype=F64, generator=generator) * 3
    flows[0] = 0.0
    assert torch.autograd.gradcheck(lambda o: position(o, flows, margin), (offsets,))


def test_points_on_a_flow_and_no_flow_have_finite_gradients():
    offsets = torch.zeros(1, 18, 1, 1).requires_grad_()
    position(offsets, torch.zeros(1, 2, 2, 1, 1), 0.0).backward()
    assert offsets.grad.isfinite().all()


@pytest.mark.parametrize("size", [(8, 12), (7, 11)])
def test_flows_in_the_pixels_of_a_layer_of_half_the_size(size):
    flows = torch.zeros(1, 2, 2, *size)
    flows[:, 1, 0], flows[:, 1, 1] = 6.0, -4.0
    small = flows_of_layer(flows, 4, 6)
    assert small.shape == (1, 2, 2, 4, 6)
    assert not small[:, 0].any()
    expected = torch.tensor([6.0 * 4 / size[0], -4.0 * 6 / size[1]])
    torch.testing.assert_close(small[0, 1, :, 2, 3], expected)


def test_svdn_is_pulled_along_the_motion():
    torch.manual_seed(0)
    network = create("svdn", width=8)
    loss = PositionLoss(network, margin=0.0)
    assert not list(loss.parameters())
    flows = torch.zeros(1, 2, 2, 8, 8)
    flows[:, 0, 1], flows[:, 1, 1] = -8.0, 8.0  # four pixels of the layer each way
    network(torch.rand(1, 3, 8, 8))
    value = loss(flows)
    # Offsets start at zero: rows of five taps, 2, 1, 0, 1, 2 pixels from the line.
    assert value.item() == pytest.approx(6 / 5)
    value.backward()
    pulls = network.neck.ow1.bias.grad
    assert pulls[0] < 0 < pulls[48]  # dy of the first and the last tap
    assert not pulls[1:50:2].any()
    assert not pulls[50:].any()


def test_a_network_without_sampling_points_is_refused():
    with pytest.raises(RecipeError, match="has no sampling points"):
        PositionLoss(create("svdn", width=8, feature_deconvolution=False), 1.0)
