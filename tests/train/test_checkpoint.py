"""A checkpoint of something else in the folder of a run: a message, and it stays as it is."""

import pytest
import torch

from edge_restore.errors import UserError
from train.checkpoint import NAME
from train.trainer import TrainOptions, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


def _first(tensors):
    return next(k for k, v in tensors.items() if v.is_floating_point() and v.numel() > 1)


def _tensor(place, change):
    """A change of one tensor of a table of the state."""

    def make(state):
        table = place(state)
        key = _first(table)
        table[key] = change(table[key])

    return make


def _moments(state):
    return next(iter(state["optimisers"][0]["state"].values()))


def _set(**values):
    return lambda state: state.update(values)


SCORE = {"psnr_input": 20.0, "ssim_input": 0.5, "psnr": 21.0, "ssim": 0.6, "images": 2}

WRONG = {
    "network of another width": _tensor(lambda s: s["network"], lambda t: torch.cat([t, t])),
    "network that is not finite": _tensor(lambda s: s["network"], lambda t: t * torch.nan),
    "network with a number for a tensor": _tensor(lambda s: s["network"], lambda t: 3),
    "average that is not finite": _tensor(lambda s: s["average"], lambda t: t + torch.inf),
    "moments of another shape": _tensor(_moments, lambda t: torch.zeros(3, 1, 2)),
    "moments that are not finite": _tensor(_moments, lambda t: t * torch.nan),
    "best weights of another shape": lambda s: s.update(
        best={"step": 3, "score": SCORE, "weights": {k: v[None] for k, v in s["average"].items()}}
    ),
    "best score of text": lambda s: s.update(
        best={"step": 3, "score": {**SCORE, "psnr": "high"}, "weights": s["average"]}
    ),
    "best score without a number": lambda s: s.update(
        best={"step": 3, "score": {"psnr": 1.0}, "weights": s["average"]}
    ),
    "best without a score": lambda s: s.update(best={"step": 3}),
    "best of text": _set(best="best"),
    "no optimisers": _set(optimisers=[]),
    "optimisers of text": _set(optimisers=["a"]),
    "no network": lambda s: s.pop("network"),
    "network is a list": _set(network=[1, 2]),
    "sources of text": _set(sources=["x"]),
    "sources is a number": _set(sources=7),
    "guide is a list": _set(guide=[1]),
    "loss is a number": _set(loss=3),
    "step is text": _set(step="3"),
    "step is negative": _set(step=-1),
    "step is beyond the end": _set(step=10**12),
    "minutes are not a number": _set(minutes=float("nan")),
    "minutes are text": _set(minutes="long"),
    "recipe is text": _set(recipe="svdn"),
    "recipe is another": lambda s: s["recipe"].update(seed=5),
    "pack is another": _set(pack="0" * 64),
}


@pytest.fixture
def checkpoint(recipe, pack, written):
    path = written / NAME
    if not path.exists():
        train(recipe(), pack, written, TrainOptions(CPU, max_minutes=60))
    return path


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_that_does_not_fit_is_a_message(name, checkpoint, recipe, pack, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    WRONG[name](state)
    path = tmp_path / NAME
    torch.save(state, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=NAME):
        train(recipe(), pack, tmp_path, TrainOptions(CPU, max_minutes=0))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3), {}, None])
def test_another_object_is_a_message(content, recipe, pack, tmp_path):
    torch.save(content, tmp_path / NAME)
    with pytest.raises(UserError, match=NAME):
        train(recipe(), pack, tmp_path, TrainOptions(CPU, max_minutes=0))


def test_the_sound_checkpoint_is_taken(checkpoint, recipe, pack, tmp_path):
    (tmp_path / NAME).write_bytes(checkpoint.read_bytes())
    train(recipe(), pack, tmp_path, TrainOptions(CPU, max_minutes=0))
