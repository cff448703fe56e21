"""Noise of the stated strength."""

import pytest
import torch

from edge_restore.errors import OptionError
from train.colour import to_linear, to_srgb
from train.simulator.noise import SEVERITIES, NoiseModel, noisy


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_level_s_deviation_in_code_values(severity):
    grey = torch.full((1, 3, 96, 96), 0.5)
    noise = (noisy(grey, NoiseModel.of(severity), generator()) - grey) * 255
    # Grey at 127 is cut off at 2.5 deviations of the heaviest.
    assert noise.std().item() == pytest.approx(SEVERITIES[severity], rel=0.03)
    assert abs(noise.mean().item()) < 0.5


def test_poisson_noise_has_the_variance_of_a_count():
    light = 0.4
    model = NoiseModel(gaussian=0.0, photons_least=100.0, photons=100.0)
    seen = to_linear(noisy(to_srgb(torch.full((1, 3, 96, 96), light)), model, generator()))
    assert seen.mean().item() == pytest.approx(light, abs=0.003)
    assert seen.var().item() == pytest.approx(light / 100, rel=0.05)


def test_each_picture_draws_its_own_strength():
    grey = torch.full((16, 3, 48, 48), 0.5)
    spread = noisy(grey, NoiseModel(gaussian=50.0), generator()).std(dim=(1, 2, 3)) * 255
    assert spread.min() < 15
    assert spread.max() > 35


def test_impossible_noise_is_refused():
    for wrong in (
        {"gaussian_least": 60.0},
        {"photons_least": 9.0},
        {"photons_least": 0.0, "photons": 100.0},
    ):
        with pytest.raises(OptionError):
            NoiseModel(**wrong)
    with pytest.raises(OptionError, match="light, medium, heavy"):
        NoiseModel.of("brutal")
