"""``edge-restore models``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_restore.errors import CardError
from edge_restore.machine.streams import print_json

HELP = """\
List the models that ship with the package.

Each has a card, which tells where it comes from and how good it is, and holds the hash of the
file. "intact" means that the file still has that hash. Networks without a model are named
too: they can be trained, exported and run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print JSON, with the whole cards")


def models(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.models import zoo

    entries = [_entry(name, file) for name in zoo.names() for file in zoo.find(name)]
    missing = [{"name": name, "parameters": zoo.NETWORKS[name]} for name in zoo.without_weights()]
    if options.json:
        document = {"models": entries, "no_weights_shipped": missing}
        print_json(document)
    else:
        print(_listing(entries))
        for each in missing:
            size = f"{each['parameters']:,} parameters"
            print(f"{each['name']}: no weights shipped ({size}; docs/train_your_own.md)")
    return 0


def _entry(name: str, file: Path) -> dict[str, Any]:
    """A model file as a JSON object: its card, or what is wrong with it."""
    from edge_restore.models.cards import card_path, verify

    entry: dict[str, Any] = {"name": name, "file": file.name, "bytes": file.stat().st_size}
    try:
        return entry | {"intact": True, "card": verify(card_path(file)).to_json()}
    except CardError as error:
        return entry | {"intact": False, "error": error.found}


def _listing(entries: list[dict[str, Any]]) -> str:
    from edge_restore.report import cells

    if not entries:
        return "no models are shipped with this build of edge-restore"
    rows, scores = [], []
    for entry in entries:
        if not entry["intact"]:
            rows.append([entry["name"], entry["file"], f"unusable: {entry['error']}", "", "", ""])
            continue
        card = entry["card"]
        rows.append(
            [
                entry["name"],
                entry["file"],
                f"{card['form']}, {card['deformable']}",
                cells.count(card["parameters"]),
                cells.size(entry["bytes"]),
                "yes",
            ]
        )
        for score in card["scores"]:
            scores.append(
                [
                    entry["name"],
                    score["set"],
                    cells.count(score["images"]),
                    cells.decibels(score["psnr_input"]),
                    cells.decibels(score["psnr"]),
                    cells.similarity(score["ssim_input"]),
                    cells.similarity(score["ssim"]),
                ]
            )
    header = ["model", "file", "input, deformable", "parameters", "size", "intact"]
    parts = [cells.text_table(header, rows, left=3)]
    if scores:
        header = ["model", "set", "images", "PSNR in", "PSNR out", "SSIM in", "SSIM out"]
        unique = [row for i, row in enumerate(scores) if row not in scores[:i]]
        parts.append(cells.text_table(header, unique, left=2))
    return "\n\n".join(parts)
