"""``edge-restore bench``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.commands.option_types import file_path, refuse_unused
from edge_restore.commands.restorer_options import (
    add_restorer_arguments,
    create_restorer,
    model_inputs,
)
from edge_restore.errors import OptionError
from edge_restore.storage.json_file import encode

if TYPE_CHECKING:
    from edge_restore.backends.restorer import Restorer
    from edge_restore.bench.document import BenchReport, Run
    from edge_restore.bench.peaks import Peaks
    from edge_restore.bench.tables import Table
    from edge_restore.storage.outputs import Input

_SIZES = "360x640"

_OF_MEASURING = (
    "--sizes", "--samples", "--seconds", "--html", "--model", "--backend", "--threads",
    "--memory-budget",
)  # fmt: skip
"""The options that the other actions have no use for."""

HELP = """\
Measure how long restoring takes here, and what that says of published claims.

Without an ACTION the model is timed at each size in three ways: the network alone, host to
host, and through the pipeline from a source to a sink. Everything is synchronised, warmed up
until it is stable, and measured in three rounds that take turns; p50 comes with its 95 %
interval, p90 with the bound that MLPerf's rules give. Where the rounds disagree, or other
programs ran, the result says so. docs/benchmark.md has the method.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "action",
        nargs="*",
        metavar="ACTION",
        help="nothing to measure; 'claims [REPORT.json]' for the papers' figures; 'compare A.json "
        "B.json' for two reports",
    )
    parser.add_argument(
        "--sizes",
        default=_SIZES,
        metavar="HxW[,HxW...]",
        help=f"of the frames; 'all' for 360x640,720x1280,1080x1920; default: {_SIZES}",
    )
    parser.add_argument(
        "--samples", type=int, default=0, metavar="N", help="frames of each way; default: 64"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="the longest that one way at one size may take; default: 60",
    )
    parser.add_argument("--json", type=file_path, metavar="FILE", help="write every single time")
    parser.add_argument("--html", type=file_path, metavar="FILE", help="write a page with charts")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    add_restorer_arguments(parser)


def bench(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    words = list(options.action)
    action = words.pop(0) if words else "measure"
    actions = {"measure": _measure, "claims": _claims, "compare": _compare}
    if action not in actions:
        raise OptionError(
            f"there is no action '{action}'",
            expected="nothing, claims or compare",
            hint="see `edge-restore bench --help`",
        )
    return actions[action](options, words)


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    from edge_restore.bench import page, tables
    from edge_restore.storage.files import write_text

    if not 0 <= options.samples < 2**31 or not 0 < options.seconds < math.inf:
        raise OptionError(
            f"--samples is {options.samples}, --seconds {options.seconds:g}",
            expected="a positive, finite number of each",
            hint="leave both out for 64 frames, or as many as fit into a minute",
        )
    if words:
        raise _too_many("measure", "no report")
    _check_outputs(options, model_inputs(options))
    report = _run_all(options, _sizes(options.sizes))
    if options.json is not None:
        report.write(options.json)
        print(f"wrote '{options.json}'", file=sys.stderr)
    if options.html is not None:
        write_text(options.html, page.html_page(report))
        print(f"wrote '{options.html}'", file=sys.stderr)
    _show(tables.results(report), options)
    print()
    for note in tables.notes(report):
        print(note)
    return 0


def _claims(options: argparse.Namespace, words: Sequence[str]) -> int:
    from edge_restore.bench import tables
    from edge_restore.bench.document import BenchReport

    if len(words) > 1:
        raise _too_many("claims", "no or one report")
    _check_outputs(options, [("the report", Path(word)) for word in words])
    report = BenchReport.read(words[0]) if words else None
    refuse_unused(options, _OF_MEASURING, beside="'bench claims'")
    judgements = tables.verdicts(report)
    if options.json is not None:
        from edge_restore.storage.files import write_text

        entries = [
            {"claim": j.claim.id, "verdict": j.verdict, "because": j.why,
             "floor_ms": None if j.floor is None else j.floor.milliseconds,
             "measured_ms": None if j.measured is None else dict(j.measured)}
            for j in judgements
        ]  # fmt: skip
        write_text(options.json, encode(entries, indent=1) + "\n")
    _show(tables.claims_table(judgements), options)
    if report is None:
        print("\nNothing was measured here: `edge-restore bench --sizes all --json R.json`, then "
              "`edge-restore bench claims R.json`.")  # fmt: skip
    return 0


def _compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    from edge_restore.bench import tables
    from edge_restore.bench.document import BenchReport

    if len(words) != 2:
        raise _too_many("compare", "two reports")
    _check_outputs(options, [("the report", Path(word)) for word in words])
    a, b = (BenchReport.read(word) for word in words)
    refuse_unused(options, ("--json", *_OF_MEASURING), beside="'bench compare'")
    table = tables.comparison(a, b, (Path(words[0]).stem, Path(words[1]).stem))
    if not table[1]:
        raise OptionError(
            f"'{words[0]}' and '{words[1]}' have no run in common",
            expected="runs of one network at one size in both",
            hint="measure both with the same --model and --sizes",
        )
    _show(table, options)
    if a.machine != b.machine:
        print("\nThe reports are of different machines.")
    return 0


def _check_outputs(options: argparse.Namespace, inputs: Sequence[Input]) -> None:
    from edge_restore.storage.outputs import check_outputs

    check_outputs([("--json", options.json), ("--html", options.html)], inputs)


def _run_all(options: argparse.Namespace, sizes: Sequence[tuple[int, int]]) -> BenchReport:
    from edge_restore.backends.cpu import CpuRestorer
    from edge_restore.bench import conditions, peaks
    from edge_restore.bench.document import BenchReport
    from edge_restore.machine.describe import library_versions, this_machine
    from edge_restore.progress import Progress

    machine = this_machine()
    restorer = create_restorer(options)
    on_cpu = isinstance(restorer, CpuRestorer)
    processor = peaks.of_this_cpu(machine.cpu) if on_cpu else _gpu_peaks(restorer)
    before = conditions.now(gpu=not on_cpu)
    runs = []
    with Progress(len(sizes), "measuring", unit="size") as progress:
        for height, width in sizes:
            runs.append(_run_one(options, restorer, height, width))
            progress.advance()
    after = conditions.now(gpu=not on_cpu)
    return BenchReport(
        machine=machine.to_json(),
        versions=library_versions(),
        peaks=processor,
        runs=tuple(runs),
        background=conditions.background(before, after, machine.cores),
        warnings=tuple(conditions.warnings(before, after, machine.cores)),
        readings=conditions.readings(before, after),
    )


def _gpu_peaks(restorer: Restorer) -> Peaks:
    from edge_restore.backends.tensorrt import FLAVOURS
    from edge_restore.bench import gpu_peaks
    from edge_restore.engine import flavour
    from edge_restore.engine.gpu import this_gpu

    gpu = this_gpu()
    return gpu_peaks.of_this_gpu(gpu.name if gpu else "GPU", flavour.load(FLAVOURS[restorer.name]))


def _run_one(options: argparse.Namespace, restorer: Restorer, height: int, width: int) -> Run:
    from edge_restore.bench import timing, ways
    from edge_restore.bench.document import Run
    from edge_restore.media import photo

    found = ways.measure(
        restorer,
        photo.scaled(height, width),
        samples=options.samples or timing.FEWEST,
        max_seconds=options.seconds,
    )
    card = restorer.card
    return Run(
        network=card.network,
        model=card.onnx.file,
        model_sha256=card.onnx.sha256,
        backend=restorer.name,
        precision=restorer.precision,
        height=height,
        width=width,
        ways=found,
    )


def _sizes(text: str) -> list[tuple[int, int]]:
    from edge_restore.bench.costs import SIZES
    from edge_restore.commands import frame_size

    if text == "all":
        return list(SIZES)
    return [frame_size.parse(part) for part in text.split(",")]


def _show(table: Table, options: argparse.Namespace) -> None:
    from edge_restore.bench import tables

    print(tables.as_markdown(table) if options.markdown else tables.as_text(table))


def _too_many(action: str, expected: str) -> OptionError:
    return OptionError(
        f"'bench {action}' was given another number of reports",
        expected=expected,
        hint="see `edge-restore bench --help`",
    )
