"""A paper's ablation table at our scale: `python -m train ablation TABLE.toml`.

A file of train/ablations has the recipe that all rows share, what each row changes in it, and the
paper's figures. Every row gets the same number of steps, the same patches and the same seed.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edge_restore.errors import OptionError, RecipeError
from edge_restore.report import cells
from edge_restore.storage.files import make_folder, write_text
from edge_restore.storage.json_fields import is_number
from edge_restore.storage.json_file import abridged, encode
from train import checkpoint as checkpoints
from train import recipe as recipes
from train import trainer
from train.losses import TrainingLoss
from train.networks import create
from train.pack import Pack
from train.recipe import LossRecipe, Recipe

SCHEMA = "edge_restore.ablation/1"

_KEYS = {"title", "measured", "recipe", "rows"}
_ROW_KEYS = {"name", "changes", "psnr", "ssim"}
_NO_VGG = "(no file given)"
_MAX_ROWS = 100
_MAX_TEXT = 200


@dataclass(frozen=True)
class Row:
    """One line of a paper's table.

    Attributes:
        name: as the paper has it.
        recipe: how we train it.
        parameters: of its network.
        psnr, ssim: what the paper prints, dB and 1; None where it prints nothing.
    """

    name: str
    recipe: Recipe
    parameters: int
    psnr: float | None
    ssim: float | None

    @property
    def folder(self) -> str:
        """The name of its run's folder."""
        return self.folder_of(self.name)

    @staticmethod
    def folder_of(name: str) -> str:
        """The folder of a row of this name; empty where it has neither letter nor digit."""
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Ablation:
    """A paper's table: its title, what the paper measured on, and the rows."""

    title: str
    measured: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Result:
    """What became of a row: its outcome, or why there is none at the recipe's last step."""

    row: Row
    outcome: trainer.Outcome | None
    missing: str = ""


def _changed(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in changes.items():
        inner = merged.get(key)
        both = isinstance(value, dict) and isinstance(inner, dict)
        merged[key] = _changed(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _row(entry: dict[str, Any], shared: dict[str, Any], vgg_file: str) -> Row:
    """A row of the file; RecipeError or OptionError where it cannot be."""
    origin = f"row '{entry['name']}'"
    if not isinstance(shared, dict):
        recipes.parse(shared, origin)  # says that it is no table
    table = _changed(shared, entry.get("changes", {}))
    if not isinstance(table.get("loss", {}), dict):
        recipes.parse(table, origin)
    recipe = recipes.parse(_changed(table, {"loss": {"vgg_file": vgg_file or _NO_VGG}}), origin)
    if not recipe.loss.looks_at_features():
        recipe = recipes.parse(table, origin)
    with torch.device("meta"):
        network = create(recipe.network, **recipe.arguments)
        try:
            TrainingLoss(network, LossRecipe(trust_ratio=recipe.loss.trust_ratio))
        except RecipeError as error:
            raise RecipeError(
                f"{origin}: {error.found}", expected=error.expected, hint=error.hint
            ) from error
    parameters = sum(p.numel() for p in network.parameters())
    return Row(entry["name"], recipe, parameters, entry.get("psnr"), entry.get("ssim"))


def _row_problems(entry: Any, number: int) -> list[str]:
    """What is wrong with a row apart from its recipe."""
    if not isinstance(entry, dict):
        return [f"row {number} is {abridged(entry)}, not a table"]
    unknown = sorted(entry.keys() - _ROW_KEYS)
    found = [f"unknown key '{abridged(key)[1:-1]}' in row {number}" for key in unknown]
    if "name" not in entry:
        found.append(f"row {number} has no name")
    elif not _is_text(entry["name"]) or not Row.folder_of(entry["name"]):
        name = abridged(entry["name"])
        found.append(f"row {number} has the name {name}, with no letter or digit")
    if not isinstance(entry.get("changes", {}), dict):
        found.append(f"row {number} has the changes {abridged(entry['changes'])}, not a table")
    for key, most in (("psnr", 1000), ("ssim", 1)):
        value = entry.get(key)
        if key in entry and (value is None or not (is_number(value) and 0 <= value <= most)):
            found.append(f"row {number} has the {key} {abridged(value)}, not a number up to {most}")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def read(path: Path, vgg_file: str = "") -> Ablation:
    """An ablation from a TOML file.

    Args:
        path: of the file.
        vgg_file: weights of VGG for the rows whose loss looks at features; see `LossRecipe`.

    Raises:
        RecipeError: it cannot be read, or it has mistakes; those of all rows are named.
    """
    return parse(recipes.read_table(path), str(path), vgg_file)


def parse(table: dict[str, Any], origin: str, vgg_file: str = "") -> Ablation:
    """An ablation from a table as TOML gives it; see `read`."""
    errors = [f"unknown key '{abridged(key)[1:-1]}'" for key in sorted(table.keys() - _KEYS)]
    errors += [f"missing key '{key}'" for key in sorted(_KEYS - table.keys())]
    errors += [
        f"'{key}' is {abridged(table[key])}, not text"
        for key in ("title", "measured")
        if key in table and not _is_text(table[key])
    ]
    entries, shared = table.get("rows", []), table.get("recipe", {})
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_ROWS:
        errors.append(f"'rows' is {abridged(entries)}, not 1 to {_MAX_ROWS} tables ([[rows]])")
        entries = []
    rows: list[Row] = []
    for number, entry in enumerate(entries, 1):
        wrong = _row_problems(entry, number)
        errors += wrong
        try:
            if not wrong:
                rows.append(_row(entry, shared, vgg_file))
        except (RecipeError, OptionError) as error:
            errors.append(error.found)
    folders = [row.folder for row in rows]
    errors += [f"two rows are called '{row.name}'" for row in rows if folders.count(row.folder) > 1]
    if errors:
        raise RecipeError(
            f"ablation {origin} has {len(errors)} mistake(s):\n    " + recipes.listed(errors),
            expected="a title, what was measured, a recipe and rows, as in train/ablations/",
            hint="correct what is named above",
        )
    return Ablation(table["title"], table["measured"], tuple(rows))


def run(
    ablation: Ablation, pack: Pack, folder: Path, *, device: torch.device,
    max_minutes: float = math.inf, stopped: Callable[[], bool] = lambda: False,
) -> list[Result]:  # fmt: skip
    """Train every row that is not trained yet, each in a folder of its own, while the time lasts.

    A row whose training diverges has no outcome, and the others go on.

    Args:
        ablation: the rows.
        pack: to train and to validate on.
        folder: of all runs.
        device: to train on.
        max_minutes: of this call.
        stopped: asked after every step; True ends the call as the end of the time does.

    Raises:
        DataError: the pack does not fit, or a folder has a run of another recipe.
    """
    began = time.monotonic()
    results = []
    for row in ablation.rows:
        left = max_minutes - (time.monotonic() - began) / 60
        if row.recipe.loss.vgg_file == _NO_VGG:
            results.append(Result(row, None, "needs --vgg"))
            continue
        if (left <= 0 or stopped()) and not (folder / row.folder / checkpoints.NAME).exists():
            results.append(Result(row, None, "not trained yet"))
            continue
        print(f"{row.name}:", flush=True)
        try:
            outcome = trainer.train(
                row.recipe,
                pack,
                make_folder(folder / row.folder),
                trainer.TrainOptions(device, max_minutes=left, stopped=stopped),
            )
        except trainer.TrainingDiverged as error:  # the other rows can be trained nevertheless
            print(f"{row.name}: {error.found}", file=sys.stderr, flush=True)
            results.append(Result(row, None, f"diverged at step {error.step}"))
            continue
        missing = "" if outcome.finished else f"stopped at step {outcome.steps}"
        if outcome.exploded:
            missing = f"diverged by step {outcome.steps}"
        results.append(Result(row, outcome, missing))
    return results


def document(ablation: Ablation, results: list[Result], machine: str) -> dict[str, Any]:
    """The table for JSON: PSNR in dB, times in minutes."""
    return {
        "schema": SCHEMA,
        "title": ablation.title,
        "published_on": ablation.measured,
        "machine": machine,
        "torch": torch.__version__,
        "rows": [
            {
                "name": result.row.name,
                "parameters": result.row.parameters,
                "published": {"psnr": result.row.psnr, "ssim": result.row.ssim},
                "recipe": _shown(result.row.recipe),
                "missing": result.missing or None,
                **_measured(result.outcome),
            }
            for result in results
        ],
    }


def _shown(recipe: Recipe) -> dict[str, Any]:
    """The recipe's table without the folder of this machine that VGG's weights lie in."""
    table = recipes.as_table(recipe)
    table["loss"]["vgg_file"] = Path(recipe.loss.vgg_file).name
    return table


def _measured(outcome: trainer.Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"score": None, "steps": 0, "minutes": 0.0}
    return {"score": asdict(outcome.score), "steps": outcome.steps, "minutes": outcome.minutes}


def markdown(ablation: Ablation, results: list[Result], machine: str) -> str:
    """The table to read, in Markdown, the paper's figures beside ours."""
    recipe = ablation.rows[0].recipe
    side, batch = recipe.data.crop(0)
    lines = [
        f"**{ablation.title}.** Published: on {ablation.measured}. Here: "
        f"{recipe.optimiser.steps} steps of {batch} patches of {side}x{side} each, one seed, "
        f"{machine}; PSNR gain over the input and SSIM on {recipe.validation.patches} patches.",
        "",
        "| row | parameters | published PSNR | published SSIM | gain | SSIM | minutes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        row, outcome = result.row, result.outcome
        measured = [result.missing, "", ""]
        if outcome is not None and not result.missing:
            score = outcome.score
            measured = [
                f"{cells.gain(score.psnr - score.psnr_input)} dB",
                cells.similarity(score.ssim),
                f"{outcome.minutes:.1f}",
            ]
        published = [cells.decibels(row.psnr), cells.similarity(row.ssim)]
        line = [row.name, f"{row.parameters / 1e6:.2f} M", *published, *measured]
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines) + "\n"


def output_files(folder: Path) -> tuple[Path, Path]:
    """Where the table goes, for programs and for people."""
    return folder / "ablation.json", folder / "ablation.md"


def write(ablation: Ablation, results: list[Result], machine: str, folder: Path) -> None:
    """`ablation.json` and `ablation.md` in `folder`."""
    shown = encode(document(ablation, results, machine), indent=2) + "\n"
    document_file, markdown_file = output_files(make_folder(folder))
    write_text(document_file, shown)
    write_text(markdown_file, markdown(ablation, results, machine))
