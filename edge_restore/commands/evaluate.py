"""``edge-restore evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.commands.restorer_options import add_restorer_arguments, create_restorer
from edge_restore.errors import OptionError

if TYPE_CHECKING:
    from edge_restore.evaluation import Pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("pairs", nargs="?", type=Path, metavar="PAIRS", help="the pairs' folder")
    parser.add_argument(
        "--blurred", type=Path, metavar="PATH", help="an image or folder, instead of PAIRS"
    )
    parser.add_argument("--sharp", type=Path, metavar="PATH", help="its truth, with equal names")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line per image")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="write the restored images there, as PNG"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    add_restorer_arguments(parser)


def evaluate(options: argparse.Namespace) -> int:
    """Measure PSNR and SSIM on pairs of blurred and sharp images.

    PAIRS is a folder that holds the folders blurred (or blur, or input) and sharp (or gt, or
    target), with equal file names in both. Or name the two sides with --blurred and --sharp:
    two folders, or two images. Both metrics are computed in RGB on 8 bits, before and after
    restoration, per image; the mean counts each image once.
    """
    from edge_restore import evaluation
    from edge_restore.files import check_writable, write_text
    from edge_restore.progress import Progress

    pairs = _pairs(options)
    if options.csv:
        check_writable(options.csv)
    save = _save_folder(options.save, pairs)
    restorer = create_restorer(options)
    scores = []
    try:
        with Progress(len(pairs), "evaluating", unit="image") as progress:
            for score in evaluation.evaluate(pairs, restorer, save):
                scores.append(score)
                progress.advance()
    finally:
        restorer.close()
    if options.csv:
        write_text(options.csv, evaluation.as_csv(scores))
    if options.json:
        document = {
            "model": {"name": restorer.card.name, "sha256": restorer.card.onnx.sha256},
            "backend": restorer.name,
            "images": [_finite(asdict(score)) for score in scores],
            "mean": _finite(asdict(evaluation.mean(scores))),
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(evaluation.as_table(scores))
    for path in (options.csv, save):
        if path:
            print(f"wrote '{path}'", file=sys.stderr)
    return 0


def _pairs(options: argparse.Namespace) -> list[Pair]:
    from edge_restore.evaluation import find_pairs, match_pairs

    sides = (options.blurred, options.sharp)
    if options.pairs and not any(sides):
        return find_pairs(options.pairs)
    if all(sides) and not options.pairs:
        return match_pairs(*sides)
    raise OptionError(
        "it is not clear what to evaluate",
        expected="either PAIRS, or both --blurred and --sharp",
        mend="see `edge-restore evaluate --help`",
    )


def _save_folder(folder: Path | None, pairs: list[Pair]) -> Path | None:
    from edge_restore.files import make_folder

    if folder is None:
        return None
    inputs = {side.parent.resolve() for pair in pairs for side in (pair.blurred, pair.sharp)}
    if folder.resolve() in inputs:
        raise OptionError(
            f"the restored images would be written among the given ones, into '{folder}'",
            expected="a folder of their own",
            mend="give --save another folder",
        )
    return make_folder(folder)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of equal images becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
