"""Training: it learns, it resumes bit for bit, it stops on time and on a bad loss."""

import dataclasses
import math

import pytest
import torch

from edge_restore.errors import DataError, UserError
from edge_restore.media.metrics import GREATEST_PSNR
from train import checkpoint, trainer
from train.blur import Exposure
from train.networks import create
from train.patches import PatchSource, validation_set
from train.recipe import Crop, DataRecipe, ValidationRecipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("first", [0, 3, 4])
@pytest.mark.parametrize("algorithm", ["adam", "muon"])
def test_a_resumed_training_is_the_uninterrupted_one(
    recipe, pack, tmp_path, monkeypatch, algorithm, first
):
    chosen = recipe(motion_first=first, algorithm=algorithm)
    whole = trainer.train(chosen, pack, tmp_path / "whole", trainer.TrainOptions(CPU))
    batches = {"taken": 0}
    take = PatchSource.next

    def cut_off(source, step):
        batches["taken"] += 1
        if batches["taken"] == 5:  # two steps after the checkpoint of step 3
            raise KeyboardInterrupt
        return take(source, step)

    monkeypatch.setattr(PatchSource, "next", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(chosen, pack, tmp_path / "cut", trainer.TrainOptions(CPU))
    monkeypatch.undo()
    resumed = trainer.train(chosen, pack, tmp_path / "cut", trainer.TrainOptions(CPU))
    assert resumed.finished
    assert resumed.steps == whole.steps == 6
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name]), name


def test_motion_comes_first(recipe, pack, tmp_path):
    """Until `motion_first` only what the guide sees is trained; then points are laid, all is."""
    torch.manual_seed(recipe().seed)
    fresh = create("svdn", width=8).state_dict()
    guided = trainer.train(
        recipe(steps=4, motion_first=4), pack, tmp_path / "a", trainer.TrainOptions(CPU)
    )
    assert torch.equal(guided.weights["tail.weight"], fresh["tail.weight"])
    assert torch.equal(guided.weights["neck.ow1.bias"], fresh["neck.ow1.bias"])
    assert not torch.equal(guided.weights["fusion.weight"], fresh["fusion.weight"])
    both = trainer.train(
        recipe(steps=5, motion_first=4), pack, tmp_path / "b", trainer.TrainOptions(CPU)
    )
    # The first outer tap begins 2 px up and left of the pixel, and is laid on the pixel.
    assert (both.weights["neck.ow1.bias"][:2] - 2).abs().max() < 1
    assert not torch.equal(both.weights["tail.weight"], fresh["tail.weight"])


def test_training_mends_what_was_put_wrong(recipe, pack, tmp_path):
    """A network that tints everything must unlearn the tint."""
    quick = recipe(steps=40, rate=4e-3, ema=0.5)
    tinted = trainer.train(
        quick, pack, tmp_path / "a", trainer.TrainOptions(CPU, max_minutes=0)
    ).weights
    tinted["tail.bias"] += 0.08
    before = trainer.train(
        quick, pack, tmp_path / "b", trainer.TrainOptions(CPU, max_minutes=0, init=tinted)
    )
    after = trainer.train(quick, pack, tmp_path / "c", trainer.TrainOptions(CPU, init=tinted))
    assert before.score.psnr < 22
    assert after.score.psnr > before.score.psnr + 4


def test_the_kept_weights_are_a_moving_average(recipe, pack, tmp_path):
    """One step: the average keeps 2/11 of where it began, as far as `ema` allows."""
    started, whole, young, slow = (
        trainer.train(
            recipe(steps=1, warmup=0, ema=ema),
            pack,
            tmp_path / str(i),
            trainer.TrainOptions(CPU, max_minutes=end),
        ).weights["tail.weight"]
        for i, (ema, end) in enumerate(((0.0, 0), (0.0, 9), (0.999, 9), (0.1, 9)))
    )
    assert not torch.equal(started, whole)
    torch.testing.assert_close(young, started + (1 - 2 / 11) * (whole - started))
    torch.testing.assert_close(slow, started + (1 - 0.1) * (whole - started))


def test_no_time_left_still_leaves_a_checkpoint_and_a_score(recipe, pack, tmp_path):
    outcome = trainer.train(recipe(), pack, tmp_path, trainer.TrainOptions(CPU, max_minutes=0))
    assert (outcome.steps, outcome.finished) == (0, False)
    assert (tmp_path / checkpoint.NAME).exists()
    assert outcome.score.psnr == pytest.approx(outcome.score.psnr_input, abs=1e-6)


def test_another_recipe_does_not_resume(recipe, pack, tmp_path):
    trainer.train(recipe(), pack, tmp_path, trainer.TrainOptions(CPU, max_minutes=0))
    with pytest.raises(DataError, match="belongs to another recipe"):
        trainer.train(recipe(rate=2e-3), pack, tmp_path, trainer.TrainOptions(CPU))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(recipe, pack, tmp_path):
    wild = recipe(steps=20, rate=10.0, clip=0.0, warmup=0)
    with pytest.raises(trainer.TrainingDiverged, match="at step"):
        trainer.train(wild, pack, tmp_path, trainer.TrainOptions(CPU))
    assert issubclass(trainer.TrainingDiverged, UserError)  # one message, exit code 2
    saved = torch.load(tmp_path / "diverged.pt", weights_only=True)
    assert saved["blurred"].shape == (2, 3, 32, 32)


def test_weights_that_are_not_finite_are_neither_scored_nor_saved(recipe, pack, tmp_path):
    broken = trainer.train(
        recipe(), pack, tmp_path / "a", trainer.TrainOptions(CPU, max_minutes=0)
    ).weights
    next(iter(broken.values())).view(-1)[0] = math.nan
    with pytest.raises(trainer.TrainingDiverged, match="nothing was kept"):
        trainer.train(
            recipe(), pack, tmp_path / "b", trainer.TrainOptions(CPU, max_minutes=0, init=broken)
        )
    assert not (tmp_path / "b" / checkpoint.NAME).exists()


def test_equal_pictures_have_a_finite_score():
    pictures = Exposure(torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.zeros(1))
    score = trainer.evaluate(torch.nn.Identity(), pictures, CPU)
    assert score.psnr == score.psnr_input == GREATEST_PSNR
    with pytest.raises(trainer.OutputNotFinite):
        trainer.evaluate(lambda_network(math.inf), pictures, CPU)


def lambda_network(factor):
    class Times(torch.nn.Module):
        def forward(self, image):
            return factor * image

    return Times()


def test_initial_weights_are_used(recipe, pack, tmp_path):
    trained = trainer.train(recipe(), pack, tmp_path / "a", trainer.TrainOptions(CPU))
    started = trainer.train(
        recipe(),
        pack,
        tmp_path / "b",
        trainer.TrainOptions(CPU, max_minutes=0, init=trained.weights),
    )
    assert math.isclose(started.score.psnr, trained.score.psnr, abs_tol=1e-6)


def test_validation_does_not_depend_on_the_seed(recipe, pack):
    first = validation_set(pack, recipe())
    again = validation_set(pack, recipe())
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])


def test_crops_grow_and_a_resumed_training_knows(pack, tmp_path, recipe):
    base = recipe()
    data = DataRecipe(patch=32, batch=3, later=(Crop(2, 48, 2), Crop(4, 64, 1)))
    grown = dataclasses.replace(base, data=data)
    source = PatchSource(pack, grown, CPU)
    shapes = [tuple(source.next(step).blurred.shape) for step in range(6)]
    sizes = [(3, 32), (3, 32), (2, 48), (2, 48), (1, 64), (1, 64)]
    assert shapes == [(count, 3, side, side) for count, side in sizes]
    whole = trainer.train(grown, pack, tmp_path / "whole", trainer.TrainOptions(CPU))
    part = dataclasses.replace(grown, optimiser=dataclasses.replace(base.optimiser, steps=6))
    trainer.train(part, pack, tmp_path / "part", trainer.TrainOptions(CPU, max_minutes=0))
    resumed = trainer.train(part, pack, tmp_path / "part", trainer.TrainOptions(CPU))
    assert torch.equal(whole.weights["tail.weight"], resumed.weights["tail.weight"])


def test_a_crop_larger_than_every_picture_is_refused(pack, recipe):
    data = DataRecipe(patch=32, batch=1, later=(Crop(5, 4096, 1),))
    with pytest.raises(DataError, match="no training picture"):
        PatchSource(pack, dataclasses.replace(recipe(), data=data), CPU)


def test_the_best_validation_is_kept(pack, tmp_path, recipe, monkeypatch):
    """Scores 20, 22, 21 dB: the weights after the second validation stay, through a resume."""
    chosen = dataclasses.replace(
        recipe(), validation=ValidationRecipe(every=2, patches=1, size=32, keep="psnr")
    )
    scores = {0: 20.0, 2: 22.0, 4: 21.0, 6: 21.5}
    seen = []

    def scored(network, pictures, device):
        seen.append({k: v.clone() for k, v in network.state_dict().items()})
        value = list(scores.values())[len(seen) - 1]
        return trainer.Score(19.0, 0.5, value, 0.6, 1)

    monkeypatch.setattr(trainer, "evaluate", scored)
    outcome = trainer.train(chosen, pack, tmp_path, trainer.TrainOptions(CPU))
    assert (outcome.kept, outcome.steps, outcome.score.psnr) == (2, 6, 22.0)
    assert torch.equal(outcome.weights["tail.weight"], seen[1]["tail.weight"])
    monkeypatch.setattr(trainer, "evaluate", lambda *_: trainer.Score(19.0, 0.5, 18.0, 0.5, 1))
    again = trainer.train(chosen, pack, tmp_path, trainer.TrainOptions(CPU, max_minutes=0))
    assert again.kept == 2
    assert torch.equal(again.weights["tail.weight"], seen[1]["tail.weight"])


@pytest.mark.parametrize(
    ("keep", "best", "score", "better"),
    [
        ("psnr", (20.0, 0.7), (21.0, 0.6), True),
        ("ssim", (20.0, 0.7), (21.0, 0.6), False),
        ("both", (20.0, 0.7), (21.0, 0.6), False),
        ("both", (20.0, 0.7), (21.0, 0.8), True),
    ],
)
def test_what_better_means(keep, best, score, better):
    kept = {"psnr": best[0], "ssim": best[1]}
    assert trainer._better(trainer.Score(0.0, 0.0, *score, 1), {"score": kept}, keep) is better


def test_validations_become_frequent_later():
    fcn = ValidationRecipe(every=50, later_from=300, later_every=15)
    due = [step for step in range(1, 361) if fcn.due(step)]
    assert due == [50, 100, 150, 200, 250, 300, 315, 330, 345, 360]


def test_tensorboard_gets_curves_and_pictures(pack, tmp_path, recipe):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer.train(recipe(), pack, tmp_path, trainer.TrainOptions(CPU, tensorboard=True))
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("PSNR")] == [0, 3, 6]
    assert {"loss", "rate", "SSIM"} <= set(events.Tags()["scalars"])
    pictures = events.Images("blurred, restored, sharp")
    assert (pictures[0].width, pictures[0].height) == (3 * 32, 2 * 32)
