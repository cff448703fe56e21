"""The sensor: light above white is kept until the exposure is over, then clipped."""

import torch

from train.blur import BlurModel, expose
from train.simulator.sensor import overexposed

QUIET = {"still": 0.0, "layers": 0.0, "rotation": 0.0, "read_noise": 0.0, "shot_noise": 0.0}


def generator():
    return torch.Generator().manual_seed(4)


def test_a_lamp_leaves_a_white_streak_only_with_highlights():
    lamp = torch.zeros(8, 3, 96, 96)
    lamp[..., 46:50, 46:50] = 1.0
    brightest = {}
    for highlights in (0.0, 50.0):
        model = BlurModel(
            shortest=24, longest=24, trajectory="straight", highlights=highlights, **QUIET
        )
        blurred, truth, _ = expose(lamp, model, generator(), margin=16)
        brightest[highlights] = (blurred == 1).all(dim=1).sum(dim=(1, 2)).max().item()
        assert torch.equal(truth, lamp[..., 16:-16, 16:-16])
    assert brightest[0.0] == 0
    assert brightest[50.0] > 24


def test_what_is_not_nearly_white_stays():
    grey = torch.linspace(0, 0.8, 50).expand(2, 3, 1, 50)
    assert torch.equal(overexposed(grey, 10.0, 0.0, generator()), grey)
    white = overexposed(torch.ones(50, 3, 1, 1), 10.0, 0.0, generator())
    assert 1 <= white.min() < 2 < 9 < white.max() <= 10


def test_exposure_changes_picture_and_truth_alike():
    grey = torch.full((20, 3, 8, 8), 0.5)
    model = BlurModel(still=1.0, exposure=1.0, read_noise=0.0, shot_noise=0.0)
    blurred, truth, _ = expose(grey, model, generator())
    assert torch.equal(blurred, truth)
    # A stop either way from linear 0.214 is 0.107 to 0.428: sRGB 0.36 to 0.69.
    assert 0.36 <= truth.min() < 0.42
    assert 0.62 < truth.max() <= 0.69


def test_switched_off_nothing_is_drawn():
    used = generator()
    light = torch.rand(2, 3, 4, 4)
    assert torch.equal(overexposed(light, 0.0, 0.0, used), light)
    assert torch.equal(used.get_state(), generator().get_state())
