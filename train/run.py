"""One training from the command line: recipe and pack in, weights with a card out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from edge_restore.errors import DependencyError, OptionError
from edge_restore.machine import limits, process
from edge_restore.models.cards import FileDigest, Score, WeightsCard, card_path, with_cards
from edge_restore.storage.files import check_readable, make_folder, sha256
from edge_restore.storage.outputs import Input, check_outputs
from train import checkpoint as checkpoints
from train import pack as packs
from train import recipe as recipes
from train import trainer, weights
from train.networks import NETWORKS, create
from train.pack import Pack
from train.recipe import Recipe
from train.workers import Workers


def choose_device(name: str) -> torch.device:
    """The device that `--device` names; OptionError for another, or "cuda" without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise OptionError(
            f"cannot train on '{name}'",
            expected="auto, cpu, or cuda where torch finds a GPU",
            hint="leave --device away",
        )
    return torch.device(name)


def inputs(args: argparse.Namespace) -> list[Input]:
    """What the command line names to read; the recipe may name more."""
    return [
        ("RECIPE", args.recipe),
        ("--data", args.data),
        *(with_cards("--init", [args.init]) if args.init else []),
    ]


def run(args: argparse.Namespace, prepare: Callable[[nn.Module], None] = lambda _: None) -> None:
    """Train, then write NETWORK.safetensors and its card into the run's folder.

    A signal ends the training after the step that is being made; nothing is lost.

    Args:
        args: of the command line.
        prepare: see `trainer.train`.
    """
    check_readable(args.recipe, "the recipe")
    recipe = recipes.read(args.recipe)
    results = args.out / f"{recipe.network}.safetensors"
    vgg = Path(recipe.loss.vgg_file) if recipe.loss.vgg_file else None
    check_outputs(
        [("--out:", file) for file in (args.out / checkpoints.NAME, results, card_path(results))],
        [*inputs(args), ("the recipe's vgg_file", vgg)],
        folders=[("--out", args.out)],
    )
    network = create(recipe.network, **recipe.arguments)
    init = weights.read_tensors(args.init) if args.init else None
    if init is not None:
        weights.fit(network, init, recipe.network, args.init)
    pack = packs.load(args.data)
    if threads := args.threads or limits.threads():
        torch.set_num_threads(threads)
    device = choose_device(args.device)
    workers = Workers(device.type)
    if device.type == "cuda":
        device = torch.device("cuda", workers.local)
        torch.cuda.set_device(device)
    make_folder(args.out)
    try:
        with process.stop_on_signal() as stop:
            options = trainer.TrainOptions(
                device,
                max_minutes=args.max_minutes,
                init=init,
                workers=workers,
                tensorboard=args.tensorboard,
                stopped=stop.event.is_set,
                prepare=prepare,
            )
            outcome = trainer.train(recipe, pack, args.out, options)
    finally:
        workers.close()
    if workers.first:
        _write(
            args,
            recipe,
            pack,
            outcome,
            f"{workers.count} x {trainer.machine(device)}"
            if workers.count > 1
            else trainer.machine(device),
        )


def _write(
    args: argparse.Namespace, recipe: Recipe, pack: Pack, outcome: trainer.Outcome, machine: str
) -> None:
    network = create(recipe.network, **recipe.arguments)
    out = args.out / f"{recipe.network}.safetensors"
    try:
        weights.write_tensors(out, outcome.weights, recipe.network)
    except DependencyError:
        print(
            f"safetensors is not installed here: {args.out / checkpoints.NAME} holds everything; "
            "run the same command with --max-minutes 0 where it is installed to write the weights"
        )
        return
    degraded = {"deblur": "blur", "denoise": "noise", "derain": "rain"}[recipe.task]
    shown = "real pairs" if pack.validation_pairs else f"synthetic {degraded}"
    score = Score(set=f"validation, {shown}", **dataclasses.asdict(outcome.score))
    card = WeightsCard(
        network=recipe.network,
        arguments=recipe.arguments,
        parameters=sum(p.numel() for p in network.parameters()),
        multiple=int(NETWORKS[recipe.network].multiple),  # type: ignore[attr-defined]
        weights=FileDigest(out.name, sha256(out), out.stat().st_size),
        recipe=recipes.as_table(recipe),
        data={"pack_sha256": pack.sha256, "files": pack.files["train"]},
        training={
            "steps": outcome.steps,
            "kept_step": outcome.kept,
            "minutes": round(outcome.minutes, 1),
            "machine": machine,
            "torch": torch.__version__,
            "initial_weights": args.init.name if args.init else None,
        },
        scores=(score,),
        licence="Apache-2.0",
        command=args.command_line,
    )
    card.write(card_path(out))
    if outcome.exploded:
        print(
            f"train: warning: the training diverged: what the weights of step {outcome.steps} "
            f"restore is worse than an even gray picture; {out} has those of step {outcome.kept}",
            file=sys.stderr,
        )
    state = (
        "finished" if outcome.finished else f"stopped at step {outcome.steps}; run again to go on"
    )
    print(f"{state}: {out}")
