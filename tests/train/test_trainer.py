"""Training: it learns, it resumes bit for bit, it stops on time and on a bad loss."""

import math

import pytest
import torch

from edge_restore.errors import DataError
from train import trainer
from train.networks import create
from train.patches import PatchSource, validation_set

CPU = torch.device("cpu")


@pytest.mark.parametrize("first", [0, 3, 4])
@pytest.mark.parametrize("algorithm", ["adam", "muon"])
def test_a_resumed_training_is_the_uninterrupted_one(
    recipe, pack, tmp_path, monkeypatch, algorithm, first
):
    chosen = recipe(motion_first=first, algorithm=algorithm)
    whole = trainer.train(chosen, pack, tmp_path / "whole", device=CPU)
    batches = {"taken": 0}
    take = PatchSource.next

    def cut_off(source):
        batches["taken"] += 1
        if batches["taken"] == 5:  # two steps after the checkpoint of step 3
            raise KeyboardInterrupt
        return take(source)

    monkeypatch.setattr(PatchSource, "next", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(chosen, pack, tmp_path / "cut", device=CPU)
    monkeypatch.undo()
    resumed = trainer.train(chosen, pack, tmp_path / "cut", device=CPU)
    assert resumed.finished
    assert resumed.steps == whole.steps == 6
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name]), name


def test_motion_comes_first(recipe, pack, tmp_path):
    """Until `motion_first` only what the guide sees is trained; then points are laid, all is."""
    torch.manual_seed(recipe().seed)
    fresh = create("svdn", width=8).state_dict()
    guided = trainer.train(recipe(steps=4, motion_first=4), pack, tmp_path / "a", device=CPU)
    assert torch.equal(guided.weights["tail.weight"], fresh["tail.weight"])
    assert torch.equal(guided.weights["neck.ow1.bias"], fresh["neck.ow1.bias"])
    assert not torch.equal(guided.weights["fusion.weight"], fresh["fusion.weight"])
    both = trainer.train(recipe(steps=5, motion_first=4), pack, tmp_path / "b", device=CPU)
    # The first outer tap begins 2 px up and left of the pixel, and is laid on the pixel.
    assert (both.weights["neck.ow1.bias"][:2] - 2).abs().max() < 1
    assert not torch.equal(both.weights["tail.weight"], fresh["tail.weight"])


def test_training_mends_what_was_put_wrong(recipe, pack, tmp_path):
    """A network that tints everything must unlearn the tint."""
    quick = recipe(steps=40, rate=4e-3, ema=0.5)
    tinted = trainer.train(quick, pack, tmp_path / "a", device=CPU, max_minutes=0).weights
    tinted["tail.bias"] += 0.08
    before = trainer.train(quick, pack, tmp_path / "b", device=CPU, max_minutes=0, init=tinted)
    after = trainer.train(quick, pack, tmp_path / "c", device=CPU, init=tinted)
    assert before.score.psnr < 22
    assert after.score.psnr > before.score.psnr + 4


def test_no_time_left_still_leaves_a_checkpoint_and_a_score(recipe, pack, tmp_path):
    outcome = trainer.train(recipe(), pack, tmp_path, device=CPU, max_minutes=0)
    assert (outcome.steps, outcome.finished) == (0, False)
    assert (tmp_path / trainer.CHECKPOINT).exists()
    assert outcome.score.psnr == pytest.approx(outcome.score.psnr_input, abs=1e-6)


def test_another_recipe_does_not_resume(recipe, pack, tmp_path):
    trainer.train(recipe(), pack, tmp_path, device=CPU, max_minutes=0)
    with pytest.raises(DataError, match="belongs to another recipe"):
        trainer.train(recipe(rate=2e-3), pack, tmp_path, device=CPU)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(recipe, pack, tmp_path):
    wild = recipe(steps=20, rate=1e18, clip=0.0, warmup=0)
    with pytest.raises(trainer.TrainingDiverged, match="at step"):
        trainer.train(wild, pack, tmp_path, device=CPU)
    saved = torch.load(tmp_path / "diverged.pt", weights_only=True)
    assert saved["blurred"].shape == (2, 3, 32, 32)


def test_initial_weights_are_used(recipe, pack, tmp_path):
    trained = trainer.train(recipe(), pack, tmp_path / "a", device=CPU)
    started = trainer.train(
        recipe(), pack, tmp_path / "b", device=CPU, max_minutes=0, init=trained.weights
    )
    assert math.isclose(started.score.psnr, trained.score.psnr, abs_tol=1e-6)


def test_validation_does_not_depend_on_the_seed(recipe, pack):
    first = validation_set(pack, recipe())
    again = validation_set(pack, recipe())
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])
