"""The synthetic exposure: physics that can be checked by hand."""

import math

import pytest
import torch

from edge_restore.errors import OptionError
from train import blur
from train.blur import (
    SEVERITIES,
    SUBFRAMES,
    BlurModel,
    _groups,
    _instants,
    _warp,
    expose,
    paths,
    softened,
)
from train.colour import to_linear, to_srgb


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


QUIET = {"read_noise": 0.0, "shot_noise": 0.0}


def test_srgb_round_trip_and_known_values():
    codes = torch.arange(256) / 255
    assert torch.equal((to_srgb(to_linear(codes)) * 255).round(), torch.arange(256.0))
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


def test_paths_have_the_asked_length_and_rest_on_average():
    length = torch.tensor([0.0, 3.0, 20.0])
    path = paths(length, generator())
    assert path.shape == (3, SUBFRAMES, 2)
    travelled = (path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(dim=1)
    torch.testing.assert_close(travelled, length)
    torch.testing.assert_close(path.mean(dim=1), torch.zeros(3, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [0.0, 5.9, 6.1, 12.0, 24.0, 40.0])
def test_fewer_instants_keep_both_ends(length):
    chosen = list(range(SUBFRAMES))[_instants(length)]
    assert {0, SUBFRAMES - 1} <= set(chosen)
    assert length / (len(chosen) - 1) <= max(1.0, length / (SUBFRAMES - 1))


def test_a_still_picture_comes_back_unchanged():
    sharp = (torch.rand(2, 3, 24, 30, generator=generator()) * 255).round() / 255
    blurred, truth, _ = expose(sharp, BlurModel(still=1.0, **QUIET), generator(1), margin=4)
    assert torch.equal(truth, sharp[..., 4:-4, 4:-4])
    assert torch.equal(blurred, truth)


def test_light_is_averaged_not_code_values():
    """Half black, half white under motion: the mean of linear light is kept, not that of sRGB."""
    sharp = torch.zeros(1, 3, 64, 64)
    sharp[..., ::2] = 1.0
    model = BlurModel(shortest=16, longest=16, still=0, rotation=0, layers=0, **QUIET)
    blurred, _, _ = expose(sharp, model, generator(3), margin=16)
    assert to_linear(blurred).mean().item() == pytest.approx(0.5, abs=0.05)
    assert blurred.mean().item() > 0.65  # 0.735 is half the light; averaging codes would give 0.5


@pytest.mark.parametrize("length", [4.0, 20.0])
def test_the_truth_is_in_the_middle_of_the_light(length):
    """A bright dot and its blur have one centre of gravity, however the hand moved."""
    sharp = torch.zeros(8, 3, 96, 96)
    sharp[..., 47:50, 47:50] = 1.0
    model = BlurModel(shortest=length, longest=length, still=0, rotation=0, layers=0, **QUIET)
    blurred, truth, _ = expose(sharp, model, generator(2), margin=16)

    def centre(picture):
        light = to_linear(picture)[:, 0]
        places = torch.arange(64.0)
        total = light.sum(dim=(1, 2))
        return torch.stack(
            ((light.sum(dim=2) * places).sum(1) / total, (light.sum(dim=1) * places).sum(1) / total)
        )

    # Rounding to 8 bits moves a faint trail by a little.
    torch.testing.assert_close(centre(blurred), centre(truth), atol=0.1, rtol=0)


def test_softness_is_a_gaussian_that_the_truth_shares():
    sharp = torch.zeros(1, 3, 33, 33)
    sharp[..., 16, 16] = 1.0
    spread = softened(sharp, torch.tensor([0.7]))[0, 0]
    assert spread.sum().item() == pytest.approx(1.0, abs=1e-5)
    variance = (spread.sum(dim=0) * (torch.arange(33.0) - 16).square()).sum().item()
    assert variance == pytest.approx(0.49, abs=0.01)
    assert torch.equal(softened(sharp, torch.zeros(1)), sharp)
    model = BlurModel(still=1.0, softness=2.0, **QUIET)
    blurred, truth, _ = expose(sharp, model, generator(1))
    assert torch.equal(blurred, truth)
    assert truth.max() < 0.9


def test_skew_prefers_light_blur():
    model = BlurModel(longest=16.0, still=0.0, skew=2.0, rotation=0.0, layers=0.0, **QUIET)
    flows = expose(torch.zeros(400, 3, 8, 8), model, generator(), margin=2).flows
    moved = (flows[:, 1] - flows[:, 0]).norm(dim=1)[:, 0, 0]
    # The median of 16 * u**2 is 4, of which the distance between a path's ends is most.
    assert 3.0 < moved.median().item() < 4.1


def test_longer_paths_blur_more_and_truth_is_the_sharp_patch():
    sharp = (torch.rand(4, 3, 80, 80, generator=generator()) * 255).round() / 255
    errors = []
    for severity in SEVERITIES:
        low, high = SEVERITIES[severity]
        model = BlurModel(shortest=low, longest=high, still=0, layers=0, **QUIET)
        blurred, truth, _ = expose(sharp, model, generator(), margin=16)
        assert torch.equal(truth, sharp[..., 16:-16, 16:-16])
        errors.append((blurred - truth).square().mean().item())
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_a_moving_layer_is_in_the_truth_and_its_blur_differs_from_the_background():
    sharp = (torch.rand(6, 3, 80, 80, generator=generator()) * 255).round() / 255
    model = BlurModel(shortest=0.0, longest=0.0, still=0, layers=1.0, **QUIET)
    _, truth, _ = expose(sharp, model, generator(), margin=16)
    changed = (truth != sharp[..., 16:-16, 16:-16]).float().mean().item()
    assert 0.05 < changed < 0.95


def test_the_layer_in_front_covers_and_leaves_no_hole():
    """A black thing before white and a white one before black: their light adds up to white.

    Light that shone through the layer, or a hole where it was at another instant, would be counted
    twice or not at all.
    """
    black, white = torch.zeros(1, 3, 80, 80), torch.ones(1, 3, 80, 80)
    model = BlurModel(shortest=10.0, longest=20.0, still=0, layers=1.0, **QUIET)
    before_white, before_black = (
        to_linear(expose(torch.cat(scene), model, generator(7), margin=16)[0][0])
        for scene in ((white, black), (black, white))
    )
    torch.testing.assert_close(
        before_white + before_black, torch.ones(3, 48, 48), atol=0.01, rtol=0
    )
    # It covers what is behind it wholly where it is at every instant, and in part at its edge.
    assert before_white.min() < 0.01
    assert before_white.max() > 0.99
    assert ((before_white > 0.2) & (before_white < 0.8)).float().mean() > 0.02
    everywhere = expose(torch.cat((white, white)), model, generator(7), margin=16)[0]
    assert torch.equal(everywhere, torch.ones(2, 3, 48, 48))


def test_noise_has_the_stated_strength_in_linear_light():
    sharp = torch.full((8, 3, 64, 64), 0.735)  # linear 0.5
    model = BlurModel(still=1.0, read_noise=0.0, shot_noise=0.02)
    blurred, _, _ = expose(sharp, model, generator())
    spread = to_linear(blurred).std(dim=(1, 2, 3))
    assert spread.max().item() <= 0.02 * math.sqrt(0.5) * 1.1
    assert spread.max().item() > 0.02 * math.sqrt(0.5) * 0.5


def test_the_same_seed_gives_the_same_picture_in_8_bits():
    sharp = torch.rand(2, 3, 40, 40)
    first = expose(sharp, BlurModel(), generator(5), margin=8)[0]
    assert torch.equal(first, expose(sharp, BlurModel(), generator(5), margin=8)[0])
    assert not torch.equal(first, expose(sharp, BlurModel(), generator(6), margin=8)[0])
    assert torch.equal(first * 255, (first * 255).round())


def test_unknown_severity_names_the_known_ones():
    with pytest.raises(OptionError, match="light, medium, heavy"):
        BlurModel.of("brutal")


def test_flows_lead_from_the_truth_to_the_first_and_last_instant():
    """A picture with one bright dot: the blurred streak runs between the two ends of its flow."""
    sharp = torch.zeros(1, 3, 96, 96)
    sharp[:, :, 46:50, 38:42] = 1.0
    model = BlurModel(shortest=14, longest=14, still=0, layers=0, **QUIET)
    blurred, _, flows = expose(sharp, model, generator(2), margin=16)
    opened, closed = flows[0, :, :, 31, 23]  # at the dot's middle, (47.5, 39.5) less the margin
    assert (closed - opened).norm() > 7
    for flow in (opened, closed):
        y, x = (round(31.5 + float(flow[0])), round(23.5 + float(flow[1])))
        near = blurred[0, 0, y - 2 : y + 3, x - 2 : x + 3].max()
        mirrored = blurred[0, 0, round(31.5 - 2 * float(flow[0])), round(23.5 - 2 * float(flow[1]))]
        assert near > 0.2
        assert mirrored == 0


def test_an_instant_between_pixels_keeps_its_detail():
    """A wave of 4 px per period, seen half a pixel beside: bilinear would keep 71 % of it."""
    wave = torch.sin(math.pi / 2 * torch.arange(32.0)).expand(1, 32, 32)
    beside = torch.zeros(1, 1, 2, 16, 16)
    beside[:, :, 1] = 0.5
    seen = _warp(wave[None], beside, 8)[0, 0, 0]
    expected = torch.sin(math.pi / 2 * (torch.arange(8.0, 24.0) + 0.5)).expand(16, 16)
    assert (seen / expected).mean() == pytest.approx(0.97, abs=0.01)


def test_overshoot_beside_an_edge_is_no_negative_light():
    sharp = torch.zeros(2, 3, 96, 96)
    sharp[..., 48:] = 1
    exposed = expose(sharp, BlurModel(shortest=1.0, longest=2.0), generator())
    assert exposed.blurred.isfinite().all()


def test_opencv_samples_as_grid_sample_does(monkeypatch):
    """Between pixels and beyond every edge, where the picture is mirrored."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(2, 4, 20, 30, generator=generator)
    displacements = torch.rand(2, 3, 2, 16, 26, generator=generator) * 30 - 15
    found = blur._warp(images, displacements, 2)
    monkeypatch.setattr(blur, "_opencv", lambda: None)
    expected = blur._warp(images, displacements, 2)
    assert found.shape == expected.shape == (2, 4, 3, 16, 26)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_pictures_made_at_once_are_those_made_alone(monkeypatch):
    """As on a GPU, which gets all at once that have the same instants and a layer, or none."""
    sharp = torch.rand(12, 3, 48, 64, generator=generator(7))
    model = BlurModel(longest=20.0, skew=2.0, still=0.2, layers=0.5)
    alone = expose(sharp, model, generator(3), margin=4)
    groups = []

    def together(longest, moves, alone):
        groups.extend(_groups(longest, moves, alone=False))
        return groups

    monkeypatch.setattr(blur, "_groups", together)
    at_once = expose(sharp, model, generator(3), margin=4)
    assert 2 < len(groups) < 12
    assert sorted(i for which, _, _ in groups for i in which.tolist()) == list(range(12))
    for theirs, ours in zip(at_once, alone, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
