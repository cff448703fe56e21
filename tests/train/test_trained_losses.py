"""The trainer with the papers' losses: it resumes with them, and resumes what was without them."""

import pytest
import torch
from safetensors.torch import save_file

from tests.train.test_training_loss import TwoStages
from tests.train.test_vgg import FIRST, tensors
from train import checkpoint, networks, trainer
from train.recipe import parse

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "two", TwoStages)
    save_file(tensors(FIRST), tmp_path / "vgg.safetensors")

    def make(network, loss, steps=4):
        return parse(
            {
                "network": network,
                "arguments": {"width": 8} if network == "svdn" else {},
                "data": {"patch": 16, "batch": 2},
                "optimiser": {"steps": steps, "ema": 0.5},
                "loss": {"vgg_file": str(tmp_path / "vgg.safetensors"), **loss},
                "validation": {"every": 2, "patches": 1, "size": 16},
            }
        )

    return make


def train_halfway_then_on(recipe, pack, folder, monkeypatch):
    """Cut off by an interrupt in the third step, and run again."""
    step = trainer.PatchSource.next
    taken = []

    def cut_off(source, number):
        taken.append(1)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(source, number)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.PatchSource, "next", cut_off)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(recipe, pack, folder, trainer.TrainOptions(CPU))
    return trainer.train(recipe, pack, folder, trainer.TrainOptions(CPU))


@pytest.mark.parametrize(
    ("network", "loss"),
    [
        ("svdn", {"perceptual": 0.01, "perceptual_layer": 2, "position": 1e-2, "margin": 0.0}),
        ("two", {"kind": "rms", "trust_ratio": True}),
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    recipe, pack, tmp_path, monkeypatch, network, loss
):
    chosen = recipe(network, loss)
    whole = trainer.train(chosen, pack, tmp_path / "whole", trainer.TrainOptions(CPU))
    resumed = train_halfway_then_on(chosen, pack, tmp_path / "cut", monkeypatch)
    assert resumed.finished
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name]), name
    ours, theirs = (
        torch.load(tmp_path / run / checkpoint.NAME, weights_only=True)["loss"]
        for run in ("whole", "cut")
    )
    assert set(ours) == ({"trust.logits"} if "trust_ratio" in loss else set())
    for name, value in ours.items():
        assert value.any(), f"{name} was not trained"
        assert torch.equal(value, theirs[name])


def test_a_checkpoint_from_before_these_losses_resumes(recipe, pack, tmp_path):
    plain = recipe("svdn", {"vgg_file": ""}, steps=2)
    trainer.train(plain, pack, tmp_path, trainer.TrainOptions(CPU, max_minutes=0))
    path = tmp_path / checkpoint.NAME
    state = torch.load(path, weights_only=True)
    del state["loss"]
    for key in ("vgg", "vgg_file", "perceptual", "perceptual_layer", "contrast", "contrast_weight",
                "position", "margin", "trust_ratio"):  # fmt: skip
        del state["recipe"]["loss"][key]
    torch.save(state, path)
    assert trainer.train(plain, pack, tmp_path, trainer.TrainOptions(CPU)).steps == 2
