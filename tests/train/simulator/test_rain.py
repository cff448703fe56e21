"""Rain: streaks along one direction, lighter than what they hide, more of them when it is heavy."""

import math

import pytest
import torch

from edge_restore.errors import OptionError
from train.simulator.rain import SEVERITIES, RainModel, rain


def falling(model, count=4, level=0.1, seed=0):
    scene = torch.full((count, 3, 96, 96), level)
    return rain(scene, model, torch.Generator().manual_seed(seed)), scene


def test_heavier_rain_covers_more_and_light_only_grows_on_a_dark_scene():
    covered = []
    for severity in SEVERITIES:
        wet, scene = falling(RainModel.of(severity))
        assert (wet >= scene - 1e-6).all()
        assert wet.max() <= 1
        covered.append((wet - scene).mean().item())
    assert covered == sorted(covered)
    assert covered[0] > 0


def test_as_many_streaks_as_the_model_says():
    """Thin rain: what it adds is number * area * strength * opacity * (sky - scene)."""
    model = RainModel(streaks=5.0, longest=12.0, opacity=0.6, mist=0.0)
    wet, scene = falling(model, count=96)
    expected = 0.0
    for shorter, fainter, width in ((1.0, 1.0, 0.7), (0.5, 0.7, 0.525)):
        area = (2 / 3) * 12 * shorter * math.sqrt(2 * math.pi) * width + 2 * math.pi * width**2
        # Each figure is drawn from a third of it up; strengths are 0.3 to 1, the sky 0.6 to 1.
        expected += (2 / 3) * 5e-4 * area * 0.65 * (2 / 3) * 0.6 * fainter * (0.8 - 0.1)
    assert (wet - scene).mean().item() == pytest.approx(expected, rel=0.15)


def test_mist_lies_evenly():
    wet, scene = falling(RainModel(streaks=0.0, mist=0.2), count=16)
    added = (wet - scene).amax((1, 2, 3))
    assert torch.allclose(added, (wet - scene).amin((1, 2, 3)), atol=1e-6)
    assert 0 < added.min() < added.max() <= 0.2 * 0.9


def test_a_drop_hides_what_is_brighter_than_the_sky():
    wet, _ = falling(RainModel(mist=0.0), level=1.0)
    assert wet.min() < 0.95


def test_streaks_fall_within_the_slant():
    """Vertical rain: neighbours above each other are alike, neighbours beside each other not."""
    wet, _ = falling(RainModel(slant=0.0, mist=0.0), count=1)
    along = (wet[..., 1:, :] - wet[..., :-1, :]).abs().mean()
    across = (wet[..., 1:] - wet[..., :-1]).abs().mean()
    assert across > 3 * along


def test_pictures_of_a_batch_have_their_own_rain_and_no_rain_changes_nothing():
    wet, _ = falling(RainModel(), count=2)
    assert not torch.equal(wet[0], wet[1])
    dry, scene = falling(RainModel(opacity=0.0, mist=0.0))
    assert torch.equal(dry, scene)


def test_impossible_rain_is_refused():
    for wrong in ({"opacity": 1.5}, {"mist": 2.0}, {"longest": 100.0}):
        with pytest.raises(OptionError):
            RainModel(**wrong)
    with pytest.raises(OptionError, match="light, medium, heavy"):
        RainModel.of("monsoon")
