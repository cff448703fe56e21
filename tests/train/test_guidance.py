"""Motion guidance: the target by hand, and a head that learns it."""

import pytest
import torch

from edge_restore.errors import RecipeError
from train.guidance import MotionGuide, motion_target
from train.networks import create


def flows(dy, dx):
    """From -half to +half of (dy, dx) over one exposure, everywhere."""
    whole = torch.tensor([dy, dx]).view(2, 1, 1).expand(2, 4, 4)
    return torch.stack((-whole / 2, whole / 2))[None]


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        ((0.0, 8.0), (0.8, 0.0, 0.8)),
        ((8.0, 0.0), (-0.8, 0.0, 0.8)),
        ((3.0, 4.0), (0.14, 0.48, 0.5)),
        ((0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_target_is_length_and_doubled_direction(motion, expected):
    target = motion_target(flows(*motion), 2)
    assert target.shape == (1, 3, 2, 2)
    torch.testing.assert_close(target[0, :, 0, 0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_forth_and_back_are_the_same():
    forth, back = motion_target(flows(2.0, 5.0), 1), motion_target(flows(-2.0, -5.0), 1)
    torch.testing.assert_close(forth, back)


def test_guide_reaches_the_backbone_and_leaves_the_network_alone():
    torch.manual_seed(0)
    network = create("svdn", width=8)
    names = set(network.state_dict())
    guide = MotionGuide(network)
    network(torch.rand(1, 3, 8, 8))
    guide.loss(flows(0.0, 8.0).repeat(1, 1, 1, 2, 2)).backward()
    assert set(network.state_dict()) == names
    assert network.stem[0].weight.grad.any()
    assert guide.head.weight.grad.any()


def test_a_network_without_a_blur_feature_cannot_be_guided():
    with pytest.raises(RecipeError, match="has no blur feature"):
        MotionGuide(torch.nn.Conv2d(3, 3, 1))
