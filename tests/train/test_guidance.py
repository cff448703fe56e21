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
        ((0.0, 8.0), (0.8, 0.0, 0.8, 0.0, 0.8, 0.0, 0.8)),
        ((8.0, 0.0), (-0.8, 0.0, 0.8, 0.8, 0.0, 0.8, 0.0)),
        ((3.0, 4.0), (0.14, 0.48, 0.5, 0.3, 0.4, 0.3, 0.4)),
        ((3.0, -4.0), (0.14, -0.48, 0.5, -0.3, 0.4, 0.3, -0.4)),
        ((0.0, 0.0), (0.0,) * 7),
    ],
)
def test_target_is_length_doubled_direction_and_vector(motion, expected):
    target = motion_target(flows(*motion), 2)
    assert target.shape == (1, 7, 2, 2)
    torch.testing.assert_close(target[0, :, 0, 0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_forth_and_back_are_the_same():
    forth, back = motion_target(flows(2.0, 5.0), 1), motion_target(flows(-2.0, -5.0), 1)
    torch.testing.assert_close(forth, back)


@pytest.mark.parametrize(
    ("name", "arguments", "size", "first"),
    [
        ("svdn", {"width": 8}, 8, "stem.0.weight"),
        ("lmfn", {"width": 8, "block_width": 8}, 16, "encoder.first.0.weight"),
    ],
)
def test_guide_first_learns_to_read_then_reaches_the_backbone(name, arguments, size, first):
    torch.manual_seed(0)
    network = create(name, **arguments)
    parameter = network.get_parameter(first)
    motion = flows(0.0, 8.0).repeat(1, 1, 1, size // 4, size // 4)
    names = set(network.state_dict())
    guide = MotionGuide(network)
    assert set(network.state_dict()) == names
    network(torch.rand(1, 3, size, size))
    guide.loss(motion).backward()
    assert not parameter.grad.any()
    assert guide.head.weight.grad.any()
    with torch.no_grad():
        guide.head.weight -= guide.head.weight.grad
    network(torch.rand(1, 3, size, size))
    guide.loss(motion).backward()
    assert parameter.grad.any()


def test_sampling_points_are_laid_along_the_motion():
    """With a head that reads one fixed motion, the outer taps stand on its line."""
    network = create("svdn", width=8)
    guide = MotionGuide(network)
    with torch.no_grad():
        guide.head.weight.zero_()
        guide.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.6, 0.8, 0.0, 0.0]))
    guide.lay_points(network)
    offsets, _ = network.neck.offsets_and_masks(torch.rand(1, 8, 5, 5))
    taps = offsets[0, :50, 2, 2].reshape(5, 5, 2) + torch.stack(
        torch.meshgrid(torch.arange(-2.0, 3), torch.arange(-2.0, 3), indexing="ij"), -1
    )
    inner, outer = torch.zeros(5, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool)
    inner[1:4, 1:4], outer[1:4, 1:4] = True, False
    assert not offsets[0, :50, 2, 2].reshape(5, 5, 2)[inner].any()
    # The motion is (6, 8) pixels of the image, (3, 4) of the layer.
    along = torch.tensor([x / 8 for x in (*range(-8, 0), *range(1, 9))])
    torch.testing.assert_close(taps[outer], along[:, None] * torch.tensor([3.0, 4.0]))


def test_looking_is_the_first_part_of_a_forward_pass():
    torch.manual_seed(0)
    network = create("svdn", width=8)
    guide = MotionGuide(network)
    image, moved = torch.rand(1, 3, 8, 8), flows(0.0, 8.0).repeat(1, 1, 1, 2, 2)
    network(image)
    whole = guide.loss(moved)
    guide.look(network, image)
    assert torch.equal(guide.loss(moved), whole)


def test_a_network_without_a_blur_feature_cannot_be_guided():
    with pytest.raises(RecipeError, match="has no blur feature"):
        MotionGuide(torch.nn.Conv2d(3, 3, 1))
