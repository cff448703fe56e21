"""``edge-restore evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.commands.restorer_options import add_restorer_arguments, create_restorer
from edge_restore.errors import OptionError

if TYPE_CHECKING:
    from edge_restore.backends.restorer import Restorer
    from edge_restore.evaluation import ImageScore
    from edge_restore.lpips import Lpips
    from edge_restore.pairs import Pair
    from edge_restore.protocols import EvaluationProtocol


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("pairs", nargs="?", type=Path, metavar="PAIRS", help="the pairs' folder")
    parser.add_argument(
        "--blurred", type=Path, metavar="PATH", help="an image or folder, instead of PAIRS"
    )
    parser.add_argument("--sharp", type=Path, metavar="PATH", help="its truth, with equal names")
    parser.add_argument(
        "--protocol",
        default="mprnet",
        metavar="NAME",
        help="how to compare: mprnet (8-bit RGB), mimo-unet (clamped float, needs a model of the "
        "form float), realblur (aligned by ECC, masked), koehler (best over a folder of sharp "
        "frames, with a translation search); default: mprnet",
    )
    parser.add_argument(
        "--lpips",
        type=Path,
        metavar="FILE",
        help="also measure LPIPS, with the weights in this .safetensors file: VGG16 as torchvision "
        "names it (features.N.weight, .bias) and lpips.lin0.weight to lpips.lin4.weight",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write one line per image, and per severity"
    )
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="write the restored images there, as PNG"
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="draw the worst, the median and the best image: blurred, restored, sharp",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    add_restorer_arguments(parser)


def evaluate(options: argparse.Namespace) -> int:
    """Measure PSNR and SSIM on pairs of blurred and sharp images.

    PAIRS is a folder that holds the folders blurred (or blur, input) and sharp (or gt, or
    target), with equal file names in both. Or name the two sides with --blurred and --sharp:
    two folders, or two images. Both metrics are computed in RGB on 8 bits, or as --protocol says,
    before and after restoration, per image; the mean counts each image once.

    Where PAIRS holds subfolders of pairs instead, such as light, medium and heavy, or a pairs.json
    of `python -m train blur`, there is a mean for each of these severities.
    """
    from edge_restore import evaluation, protocols
    from edge_restore.files import check_writable, write_text
    from edge_restore.progress import Progress

    protocol = protocols.find(options.protocol)
    pairs = _pairs(options, protocol)
    for path in (options.csv, options.sheet):
        if path:
            check_writable(path)
    save = _save_folder(options.save, pairs)
    lpips = _lpips(options.lpips, protocol)
    restorer = create_restorer(options)
    scores = []
    try:
        with Progress(len(pairs), "evaluating", unit="image") as progress:
            for score in evaluation.evaluate(pairs, restorer, save, protocol=protocol, lpips=lpips):
                scores.append(score)
                progress.advance()
        if options.sheet:
            _write_sheet(options.sheet, pairs, scores, restorer, protocol)
    finally:
        restorer.close()
    if options.csv:
        write_text(options.csv, evaluation.as_csv(scores))
    if options.json:
        print(json.dumps(_document(restorer, protocol, scores), ensure_ascii=False, indent=2))
    else:
        print(evaluation.as_table(scores))
        print(evaluation.below_input_line(scores))
    for path in (options.csv, save, options.sheet):
        if path:
            print(f"wrote '{path}'", file=sys.stderr)
    return 0


def _document(
    restorer: Restorer, protocol: EvaluationProtocol, scores: Sequence[ImageScore]
) -> dict[str, Any]:
    from edge_restore import evaluation

    below = evaluation.below_input(scores)
    return {
        "model": {"name": restorer.card.name, "sha256": restorer.card.onnx.sha256},
        "backend": restorer.name,
        "protocol": protocol.name,
        "images": [_finite({**asdict(score), "gain": score.gain}) for score in scores],
        "severities": {
            level: _finite({**asdict(mean), "gain": mean.gain})
            for level, mean in evaluation.by_severity(scores).items()
        },
        "mean": _finite({**asdict(mean := evaluation.mean(scores)), "gain": mean.gain}),
        "below_input": {"count": len(below), "names": below},
    }


def _write_sheet(
    path: Path,
    pairs: Sequence[Pair],
    scores: Sequence[ImageScore],
    restorer: Restorer,
    protocol: EvaluationProtocol,
) -> None:
    """Restore the chosen images once more: keeping every picture would take too much memory."""
    from edge_restore import evaluation
    from edge_restore.images import write_png
    from edge_restore.report import quality_sheet

    by_name = {pair.name: pair for pair in pairs}
    rows = []
    for rank, score in quality_sheet.choose(scores).items():
        blurred, sharp = evaluation.read_pair(by_name[score.name])
        restorer.open(*blurred.shape[:2])
        restored = evaluation.to_levels(evaluation.restored(restorer, blurred, protocol))
        truth = sharp[len(sharp) // 2]  # of a trajectory, the middle
        rows.append(quality_sheet.SheetRow(rank, score, blurred, restored, truth))
    title = f"{restorer.card.name}, {len(scores)} images, protocol {protocol.name}"
    write_png(path, quality_sheet.draw(rows, title))


def _lpips(weights: Path | None, protocol: EvaluationProtocol) -> Lpips | None:
    from edge_restore.lpips import Lpips

    if weights is None:
        return None
    if protocol.aligns:
        raise OptionError(
            f"LPIPS is asked for with the protocol '{protocol.name}'",
            expected="a protocol that leaves the pictures where they are: LPIPS of aligned and "
            "masked ones has no published definition",
            mend="add --protocol mprnet, or leave --lpips out",
        )
    return Lpips(weights)


def _pairs(options: argparse.Namespace, protocol: EvaluationProtocol) -> list[Pair]:
    from edge_restore.pairs import find_pairs, match_pairs

    sides = (options.blurred, options.sharp)
    if options.pairs and not any(sides):
        return find_pairs(options.pairs, trajectories=protocol.trajectory)
    if all(sides) and not options.pairs:
        return match_pairs(*sides, trajectories=protocol.trajectory)
    raise OptionError(
        "it is not clear what to evaluate",
        expected="either PAIRS, or both --blurred and --sharp",
        mend="see `edge-restore evaluate --help`",
    )


def _save_folder(folder: Path | None, pairs: list[Pair]) -> Path | None:
    from edge_restore.files import make_folder

    if folder is None:
        return None
    sides = [side for pair in pairs for side in (pair.blurred, pair.sharp)]
    inputs = {(side if side.is_dir() else side.parent).resolve() for side in sides}
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
