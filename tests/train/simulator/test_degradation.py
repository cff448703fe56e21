"""Tasks: each uses its own table; compression comes last for all."""

import pytest
import torch

from edge_restore.errors import OptionError, RecipeError
from train.blur import MARGIN, BlurModel
from train.recipe import parse
from train.simulator.compression import CompressionModel
from train.simulator.degradation import TASKS, Degradation


def sharp(side=48):
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (noise * 255).round() / 255


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_pictures_truth_and_flows(task):
    degradation = Degradation.of(task, "medium")
    patch = sharp(48 + 2 * degradation.margin)
    seen = degradation.apply(patch, torch.Generator().manual_seed(1))
    m = degradation.margin
    assert seen.blurred.shape == seen.sharp.shape == (2, 3, 48, 48)
    assert seen.flows.shape == (2, 2, 2, 48, 48)
    assert torch.equal((seen.blurred * 255).round(), seen.blurred * 255)
    assert not torch.equal(seen.blurred, seen.sharp)
    if task != "deblur":
        assert torch.equal(seen.sharp, patch[..., m:, m:])
        assert not seen.flows.any()
    jpeg = Degradation.of(task, "medium", jpeg=True)
    again = jpeg.apply(patch, torch.Generator().manual_seed(1))
    assert torch.equal(again.sharp, seen.sharp)
    assert not torch.equal(again.blurred, seen.blurred)
    assert jpeg.margin == (MARGIN if task == "deblur" else 0)


def test_recipes_switch_everything_on():
    recipe = parse(
        {
            "network": "svdn",
            "optimiser": {"steps": 1},
            "task": "denoise",
            "noise": {"gaussian": 25, "photons_least": 50, "photons": 500},
            "compression": {"jpeg": 0.5, "jpeg_worst": 30},
            "blur": {"trajectory": "mixed", "highlights": 8.0, "exposure": 0.5},
        }
    )
    degradation = recipe.degradation
    assert degradation.task == "denoise"
    assert degradation.noise.photons == 500
    assert degradation.compression == CompressionModel(0.5, 30, 95)
    assert degradation.blur == BlurModel(trajectory="mixed", highlights=8.0, exposure=0.5)


def test_recipe_mistakes_are_named_together():
    with pytest.raises(RecipeError) as caught:
        parse(
            {
                "network": "svdn",
                "optimiser": {"steps": 1},
                "task": "dehaze",
                "noise": {"gaussian": 5.0, "gaussian_least": 9.0},
                "blur": {"trajectory": "zigzag"},
            }
        )
    text = str(caught.value)
    assert "'task' is 'dehaze', not one of deblur, denoise, derain" in text
    assert "'blur.trajectory' is 'zigzag', not one of walk, straight" in text
    with pytest.raises(RecipeError, match=r"'compression\.jpeg_worst' is 0, not 1 or more"):
        parse({"network": "svdn", "optimiser": {"steps": 1}, "compression": {"jpeg_worst": 0}})


def test_unknown_names_are_refused():
    with pytest.raises(OptionError, match="deblur, denoise, derain"):
        Degradation.of("dehaze", "light")
    with pytest.raises(OptionError, match="no rain severity"):
        Degradation.of("derain", "odd")
