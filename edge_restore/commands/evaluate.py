"""``edge-restore evaluate``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.commands.option_types import any_path, file_path
from edge_restore.commands.restorer_options import (
    add_restorer_arguments,
    create_restorer,
    model_inputs,
)
from edge_restore.errors import DataError, OptionError, UserError
from edge_restore.machine import process
from edge_restore.machine.streams import print_json

if TYPE_CHECKING:
    from edge_restore.backends.restorer import Restorer
    from edge_restore.evaluation.lpips import Lpips
    from edge_restore.evaluation.pairs import Pair
    from edge_restore.evaluation.protocols import EvaluationProtocol
    from edge_restore.evaluation.scoring import ImageScore, Shortfall

INTERRUPTED = "interrupted"
_SHOWN = 8
"""Images that a message names."""

HELP = """\
Measure PSNR and SSIM on pairs of blurred and sharp images.

PAIRS is a folder that holds the folders blurred (or blur, input) and sharp (or gt, or
target), with equal file names in both. Or name the two sides with --blurred and --sharp:
two folders, or two images. Both metrics are computed in RGB on 8 bits, or as --protocol says,
before and after restoration, per image; the mean counts each image once.

An image that cannot be read is left out and named, and the exit code is 2. When interrupted,
the scores so far are printed and written, marked as incomplete.

Where PAIRS holds subfolders of pairs instead, such as light, medium and heavy, or a pairs.json
of `python -m train blur`, there is a mean for each of these severities.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "pairs", nargs="?", type=any_path, metavar="PAIRS", help="the pairs' folder"
    )
    parser.add_argument(
        "--blurred", type=any_path, metavar="PATH", help="an image or folder, instead of PAIRS"
    )
    parser.add_argument(
        "--sharp", type=any_path, metavar="PATH", help="its truth, with equal names"
    )
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
        type=file_path,
        metavar="FILE",
        help="also measure LPIPS, with the weights in this .safetensors file: VGG16 as torchvision "
        "names it (features.N.weight, .bias) and lpips.lin0.weight to lpips.lin4.weight",
    )
    parser.add_argument(
        "--csv", type=file_path, metavar="FILE", help="write one line per image, and per severity"
    )
    parser.add_argument(
        "--save", type=any_path, metavar="DIR", help="write the restored images there, as PNG"
    )
    parser.add_argument(
        "--sheet",
        type=file_path,
        metavar="FILE.png",
        help="draw the worst, the median and the best image: blurred, restored, sharp",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    add_restorer_arguments(parser)


def evaluate(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.evaluation import protocols

    protocol = protocols.find(options.protocol)
    pairs = _pairs(options, protocol)
    save = _checked(options, pairs)
    lpips = _lpips(options.lpips, protocol)
    restorer = create_restorer(options)
    try:
        with process.stop_on_signal() as stop:
            outcome = _measured(pairs, restorer, save, protocol, lpips, stop.event.is_set)
            if outcome.scores:
                _report(outcome, options, pairs, restorer, protocol)
    finally:
        restorer.close()
    interrupted = outcome.shortfall.stopped == INTERRUPTED and outcome.failure is None
    errors = outcome.errors()
    for error in errors if interrupted else errors[1:]:
        print(f"edge-restore: error: {error}", file=sys.stderr)
    if interrupted:
        print("edge-restore: interrupted; the scores so far are kept", file=sys.stderr)
        return stop.exit_code
    if errors:
        raise errors[0]
    return 0


@dataclass
class _Outcome:
    """What came of it: scores, and what stands in the way of calling it a success."""

    shortfall: Shortfall
    scores: list[ImageScore] = field(default_factory=list)
    failure: BaseException | None = None
    problems: list[UserError | OSError] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def attempt(self, write: Callable[[], None], path: Path | None = None) -> None:
        """Write one of the results; that it cannot be is no reason to go without the others."""
        try:
            write()
        except (UserError, OSError) as problem:
            self.problems.append(problem)
            return
        if path is not None:
            self.written.append(path)

    def errors(self) -> list[BaseException]:
        """Everything that went wrong, the worst first."""
        errors: list[BaseException] = [self.failure] if self.failure else []
        errors += self.problems
        return [*errors, self._left_out()] if self.shortfall.left_out else errors

    def _left_out(self) -> DataError:
        named = self.shortfall.left_out
        more = f"\n    and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return DataError(
            f"{len(named)} of {self.shortfall.images} images were left out:"
            + "".join(f"\n    {name}: {reason}" for name, reason in named[:_SHOWN])
            + more,
            expected="pairs of images that can be read, of one size and large enough",
            hint="correct or remove these pairs; the scores are those of the others",
        )


def _measured(
    pairs: Sequence[Pair], restorer: Restorer, save: Path | None, protocol: EvaluationProtocol,
    lpips: Lpips | None, stopped: Callable[[], bool],
) -> _Outcome:  # fmt: skip
    """The scores of the pairs, as far as it came."""
    from edge_restore.evaluation import scoring as evaluation
    from edge_restore.media.images import ImageError
    from edge_restore.progress import Progress

    outcome = _Outcome(evaluation.Shortfall(len(pairs)))
    left_out = outcome.shortfall.left_out
    with Progress(len(pairs), "evaluating", unit="image") as progress:

        def leave_out(pair: Pair, error: DataError) -> None:
            whole = error.found if isinstance(error, ImageError) else _sentence(error)
            left_out.append((pair.name, whole))
            progress.advance()

        try:
            for score in evaluation.evaluate(
                pairs, restorer, save, protocol=protocol, lpips=lpips, on_left_out=leave_out,
                on_unsaved=outcome.problems.append,
            ):  # fmt: skip
                outcome.scores.append(score)
                progress.advance()
                if stopped() and len(outcome.scores) + len(left_out) < len(pairs):
                    outcome.shortfall.stopped = INTERRUPTED
                    break
        except BaseException as failure:
            # Whatever it is, the scores so far have cost their time; it is raised after them.
            outcome.failure = failure
            outcome.shortfall.stopped = _reason(failure)
    if save is not None and not outcome.problems:
        outcome.written.append(save)
    return outcome


def _sentence(error: UserError) -> str:
    return f"{error.found}; expected: {error.expected}"


def _reason(failure: BaseException) -> str:
    if isinstance(failure, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(failure, UserError):
        return failure.found.splitlines()[0]
    return f"{type(failure).__name__}: {failure}".splitlines()[0]


def _report(
    outcome: _Outcome, options: argparse.Namespace, pairs: Sequence[Pair], restorer: Restorer,
    protocol: EvaluationProtocol,
) -> None:  # fmt: skip
    """Write and print the scores, the cheapest first: each whether or not the others can be."""
    from edge_restore.evaluation import scoring as evaluation
    from edge_restore.storage.files import write_text

    scores, shortfall = outcome.scores, outcome.shortfall

    def show() -> None:
        if options.json:
            document = _document(restorer, protocol, scores, shortfall)
            print_json(document)
            return
        print(evaluation.as_table(scores))
        print(evaluation.below_input_line(scores))
        if shortfall:
            print(shortfall.line(len(scores)))
        sys.stdout.flush()

    if options.csv:
        text = evaluation.as_csv(scores, shortfall)
        outcome.attempt(lambda: write_text(options.csv, text), options.csv)
    outcome.attempt(show)
    if options.sheet:

        def draw() -> None:
            _write_sheet(options.sheet, pairs, scores, restorer, protocol)

        try:
            outcome.attempt(draw, options.sheet)
        except Exception as error:
            if outcome.failure is None:
                raise
            # The restorer failed before, and does so again.
            print(f"no sheet was drawn: {error}", file=sys.stderr)
    for path in outcome.written:
        print(f"wrote '{path}'", file=sys.stderr)


def _document(
    restorer: Restorer, protocol: EvaluationProtocol, scores: Sequence[ImageScore],
    shortfall: Shortfall,
) -> dict[str, Any]:  # fmt: skip
    from edge_restore.evaluation import scoring as evaluation

    below = evaluation.below_input(scores)
    document = {
        "model": {"name": restorer.card.name, "sha256": restorer.card.onnx.sha256},
        "backend": restorer.name,
        "protocol": protocol.name,
        "complete": not shortfall,
        "images": [_finite({**asdict(score), "gain": score.gain}) for score in scores],
        "severities": {
            level: _finite({**asdict(mean), "gain": mean.gain})
            for level, mean in evaluation.by_severity(scores).items()
        },
        "mean": _finite({**asdict(mean := evaluation.mean(scores)), "gain": mean.gain}),
        "below_input": {"count": len(below), "names": below},
    }
    if shortfall:
        left_out = [{"name": name, "reason": reason} for name, reason in shortfall.left_out]
        document["incomplete"] = {
            "images": shortfall.images, "measured": len(scores), "left_out": left_out,
            "stopped": shortfall.stopped,
        }  # fmt: skip
    return document


def _write_sheet(
    path: Path,
    pairs: Sequence[Pair],
    scores: Sequence[ImageScore],
    restorer: Restorer,
    protocol: EvaluationProtocol,
) -> None:
    """Restore the chosen images once more: keeping every picture would take too much memory."""
    from edge_restore.evaluation import quality_sheet
    from edge_restore.evaluation import scoring as evaluation
    from edge_restore.media.images import write_png

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
    from edge_restore.evaluation.lpips import Lpips

    if weights is None:
        return None
    if protocol.aligns:
        raise OptionError(
            f"LPIPS is asked for with the protocol '{protocol.name}'",
            expected="a protocol that leaves the pictures where they are: LPIPS of aligned and "
            "masked ones has no published definition",
            hint="add --protocol mprnet, or leave --lpips out",
        )
    return Lpips(weights)


def _pairs(options: argparse.Namespace, protocol: EvaluationProtocol) -> list[Pair]:
    from edge_restore.evaluation.pairs import find_pairs, match_pairs

    sides = (options.blurred, options.sharp)
    if options.pairs and not any(sides):
        return find_pairs(options.pairs, trajectories=protocol.trajectory)
    if all(sides) and not options.pairs:
        return match_pairs(*sides, trajectories=protocol.trajectory)
    raise OptionError(
        "it is not clear what to evaluate",
        expected="either PAIRS, or both --blurred and --sharp",
        hint="see `edge-restore evaluate --help`",
    )


def _checked(options: argparse.Namespace, pairs: list[Pair]) -> Path | None:
    """The folder of --save, made, after all outputs were compared with all inputs."""
    from edge_restore.evaluation.pairs import as_inputs
    from edge_restore.media.images import output_names
    from edge_restore.storage.files import make_folder
    from edge_restore.storage.outputs import check_outputs

    save: Path | None = options.save
    saved = output_names(pair.name for pair in pairs) if save is not None else {}
    whole = options.blurred is None or options.blurred.is_dir()
    check_outputs(
        [
            ("--csv", options.csv),
            ("--sheet", options.sheet),
            *((f"--save, for '{name}':", save / file) for name, file in saved.items() if save),
        ],
        [*as_inputs(pairs, folders=whole), ("--lpips", options.lpips), *model_inputs(options)],
        folders=[("--save", save)],
    )
    return None if save is None else make_folder(save)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of equal images becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
