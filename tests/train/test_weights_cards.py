"""Cards of weights: what training reads of them is checked before it is used."""

import json

import pytest

from edge_restore.errors import UserError
from edge_restore.models.cards import card_path
from train import weights
from train.__main__ import main

RECIPE = """
network = "svdn"
arguments = {width = 8}
data = {patch = 32, batch = 2}
optimiser = {steps = 2, rate = 1e-3, warmup = 1}
loss = {motion = 0.01}
validation = {every = 2, patches = 2, size = 32}
"""


@pytest.fixture(scope="module")
def trained(pack_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.toml").write_text(RECIPE)
    assert main([str(folder / "tiny.toml"), "--data", str(pack_file), "--out", str(folder)]) == 0
    return folder / "svdn.safetensors"


def changed(trained, folder, change):
    """A copy of the weights with a changed card."""
    path = folder / trained.name
    path.write_bytes(trained.read_bytes())
    card = json.loads(card_path(trained).read_text())
    change(card)
    card_path(path).write_text(json.dumps(card))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 10**9},
        {"width": 10**400},
        {"width": -1},
        {"width": 0},
        {"width": "8"},
        {"width": None},
        {"width": [8]},
        {"width": {}},
        {"width": 1e300},
        {"width": 8.5},
        {"width": True},
        {"unknown": 1},
        {"\x1b[2J": 1},
    ],
)
def test_arguments_out_of_range_are_a_message(arguments, trained, tmp_path):
    path = changed(trained, tmp_path, lambda card: card.update(arguments=arguments))
    with pytest.raises(UserError) as error:
        weights.load(path)
    assert "\x1b" not in str(error.value)


CHANGES = {
    "no scores": lambda card: card.update(scores=[]),
    "scores are missing": lambda card: card.pop("scores"),
    "no steps": lambda card: card["training"].pop("steps"),
    "steps are text": lambda card: card["training"].update(steps="many"),
    "no training": lambda card: card.pop("training"),
    "no recipe": lambda card: card.update(recipe={}),
    "average of nothing": lambda card: card["training"].update(average_of=None),
    "average of text": lambda card: card["training"].update(average_of="x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_average_with_an_incomplete_card_is_a_message_or_complete(
    name, trained, pack_file, tmp_path, capsys
):
    path = changed(trained, tmp_path, CHANGES[name])
    out = tmp_path / "mixed.safetensors"
    code = main(["average", str(trained), str(path), "--share", "0.5",
                 "--data", str(pack_file), "--out", str(out)])  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2
    assert "svdn" in error
    assert not out.exists()
