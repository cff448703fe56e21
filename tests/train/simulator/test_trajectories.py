"""Paths: each model has the shape that its name promises."""

import pytest
import torch

from edge_restore.errors import OptionError
from train.simulator.trajectories import SUBFRAMES, TRAJECTORIES, paths


def drawn(trajectory, count=64, length=20.0, seed=0):
    return paths(torch.full((count,), length), torch.Generator().manual_seed(seed), trajectory)


def ends_apart(path):
    """Distance of a path's ends over its length: 1 for a line, less for a curl."""
    steps = (path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(dim=1)
    return (path[:, -1] - path[:, 0]).norm(dim=-1) / steps


@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_length_mean_and_seed(trajectory):
    length = torch.tensor([0.0, 3.0, 20.0])
    path = paths(length, torch.Generator().manual_seed(1), trajectory)
    assert path.shape == (3, SUBFRAMES, 2)
    torch.testing.assert_close((path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(dim=1), length)
    torch.testing.assert_close(path.mean(dim=1), torch.zeros(3, 2), atol=1e-5, rtol=0)
    assert torch.equal(path, paths(length, torch.Generator().manual_seed(1), trajectory))
    assert not torch.equal(path, paths(length, torch.Generator().manual_seed(2), trajectory))


def test_straight_has_constant_velocity_in_every_direction():
    path = drawn("straight")
    steps = path[:, 1:] - path[:, :-1]
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-4, rtol=0)
    assert (steps[:, 0] > 0).float().mean(dim=0).sub(0.5).abs().max() < 0.25


def test_impulses_turn_back_at_once_and_a_walk_does_not():
    def turned_back(path):
        steps = path[:, 1:] - path[:, :-1]
        return ((steps[:, 1:] * steps[:, :-1]).sum(dim=-1) < 0).any(dim=1).float().mean()

    # One impulse on average, Poisson-distributed with a mean that is uniform in 0 to 2.
    assert 0.3 < turned_back(drawn("impulses", 200)) < 0.8
    assert turned_back(drawn("walk", 200)) < 0.1


def test_a_hand_trembles_in_short_exposures_lines_in_long_ones_knots():
    straightness = ends_apart(drawn("tremor", 300))
    assert straightness.max() > 0.95
    assert straightness.min() < 0.3


def test_mixed_draws_from_all_models():
    straightness = ends_apart(drawn("mixed", 200))
    assert 0.15 < (straightness > 0.9999).float().mean() < 0.6


def test_an_unknown_trajectory_names_the_known_ones():
    with pytest.raises(OptionError, match="walk, straight, impulses, tremor, mixed"):
        drawn("zigzag")
