"""The options that choose and tune the restorer, shared by the commands that restore."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_restore.backends.restorer import Restorer
    from edge_restore.storage.outputs import Input


def add_restorer_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --model, --backend, --threads and --memory-budget."""
    group = parser.add_argument_group("restorer")
    group.add_argument(
        "--model",
        default="svdn",
        metavar="NAME",
        help="a model of the zoo (see `edge-restore models`), or an .onnx file with its card "
        "beside it; default: svdn",
    )
    group.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="what computes (see `edge-restore doctor`); default: auto",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads of the restorer")
    group.add_argument(
        "--memory-budget",
        type=int,
        metavar="MIB",
        help="memory for the network's activations in MiB; larger frames are restored in tiles; "
        "default: half of what is free",
    )


def model_inputs(options: argparse.Namespace) -> list[Input]:
    """The files that --model names, with their cards: what `create_restorer` may read."""
    from edge_restore.models import zoo
    from edge_restore.models.cards import with_cards

    return with_cards("--model", zoo.find(options.model))


def create_restorer(options: argparse.Namespace) -> Restorer:
    """The restorer that the options ask for."""
    from edge_restore import backends
    from edge_restore.models import zoo

    budget = options.memory_budget
    return backends.create(
        options.backend,
        zoo.find(options.model),
        threads=options.threads,
        memory_budget=None if budget is None else budget * 2**20,
    )
