"""The average of two runs' weights, which has a part of what either learned.

Where one run went on from the other, the networks on the straight line between their weights are as
good as their ends or better, and each end's strength fades slowly along it (Wortsman et al.,
"Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_restore.errors import CardError, ModelError, OptionError
from edge_restore.models.cards import FileDigest, Score, WeightsCard, card_path
from edge_restore.storage.files import check_writable, sha256
from train import pack as packs
from train import recipe as recipes
from train import trainer, weights
from train.patches import validation_set


def average(first: Path, second: Path, share: float, data: Path, out: Path, command: str) -> Score:
    """Write (1 - share) * first + share * second as `out`, with a card, and score it.

    Args:
        first, second: weights files of one network, cards beside them.
        share: of the second, 0 to 1.
        data: the pack whose validation pictures score it, by the second's recipe.
        out: the .safetensors file to write.
        command: for the card.

    Raises:
        OptionError: the share is none.
        ModelError: the two are not of one network.
        DataError, CardError: a file or a card cannot be used.
    """
    if not 0 <= share <= 1:
        raise OptionError(
            f"a share of {share}", expected="0 to 1, of the second weights", hint="such as 0.5"
        )
    check_writable(out, ModelError)
    (network, card), (other, theirs) = weights.load(first), weights.load(second)
    kind = (card.network, card.arguments)
    if kind != (theirs.network, theirs.arguments):
        raise ModelError(
            f"'{first}' is {card.network} {card.arguments}, "
            f"'{second}' {theirs.network} {theirs.arguments}",
            expected="two weights of the same network",
            hint="name weights of which one was trained from the other",
        )
    if not theirs.scores:
        raise CardError(
            f"'{card_path(second)}' has no scores",
            expected="the card of a training, with the set that its weights were scored on",
            hint="copy the card that was written with these weights",
        )
    ends = network.state_dict(), other.state_dict()
    mixed: dict[str, Tensor] = {
        key: torch.lerp(value, ends[1][key], share) for key, value in ends[0].items()
    }
    network.load_state_dict(mixed)
    recipe = recipes.parse(dict(theirs.recipe), f"the recipe in '{card_path(second)}'")
    pack = packs.load(data)
    found = trainer.evaluate(network, validation_set(pack, recipe), torch.device("cpu"))
    score = Score(set=theirs.scores[0].set, **asdict(found))
    weights.write_tensors(out, mixed, card.network)
    parts = [_part(card, 1 - share), _part(theirs, share)]
    replace(
        theirs,
        weights=FileDigest(out.name, sha256(out), out.stat().st_size),
        training={**theirs.training, "average_of": parts},
        scores=(score,),
        command=command,
    ).write(card_path(out))
    return score


def _part(card: WeightsCard, share: float) -> dict[str, Any]:
    """How the weights came about that went into an average: by a run, or by averaging in turn."""
    part = {"sha256": card.weights.sha256, "share": share, "command": card.command}
    key = "average_of" if "average_of" in card.training else "steps"
    return part | {key: card.training[key]}
