"""``edge-restore run``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.commands.option_types import file_path
from edge_restore.commands.restorer_options import add_restorer_arguments
from edge_restore.errors import OptionError, SinkError, UserError, shown, shown_lines
from edge_restore.machine import process
from edge_restore.machine.streams import print_json

if TYPE_CHECKING:
    from edge_restore.pipeline.run import StreamResult
    from edge_restore.report.latency_report import LatencyReport

DAMAGED_SOURCE = 2
"""Exit code when the source could not be read to its end; what could be read was restored."""

HELP = """\
Restore a video.

Size, frame times, rotation, colours, sound and tags are those of SOURCE. The output appears
under its name when it is complete.

A run that ends early keeps the frames restored so far as a playable file: on Ctrl-C, SIGTERM or
a terminal that goes away, and with exit code 2 when SOURCE cannot be read further, the disk is
full or the model fails. Where an older file has the output's name, it stays and the part is put
beside it (out.partial.mp4). A second Ctrl-C ends at once and keeps nothing.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", metavar="SOURCE", help="the video to restore")
    parser.add_argument(
        "--out",
        required=True,
        type=file_path,
        metavar="FILE",
        help="the video to write (.mp4, .mov)",
    )
    parser.add_argument(
        "--report",
        type=file_path,
        metavar="FILE",
        help="write the latency report: .json for programs, .html for people",
    )
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--json", action="store_true", help="print the latency report as JSON, not as a table"
    )
    add_restorer_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore import api
    from edge_restore.pipeline.latency import table
    from edge_restore.progress import Progress

    _check_report(options)
    said: list[str] = []
    with process.stop_on_signal() as stop, ExitStack() as stack:
        progress: Progress

        def start(frames: int | None, warnings: list[str]) -> None:
            nonlocal progress
            said.extend(warnings)
            _warn(warnings)  # now, not after hours of work
            progress = stack.enter_context(Progress(frames, "restoring"))

        done = api.run_file(
            options.source,
            options.out,
            api.RunOptions(
                options.model,
                options.backend,
                options.threads,
                options.memory_budget,
                options.max_frames,
            ),
            report=options.report,
            on_start=start,
            on_frame=lambda _: progress.advance(),
            stop=stop.event,
        )
    result, report, restorer = done.result, done.report, done.restorer
    unwritten = _write_report(report, options.report) if options.report else None
    _warn([warning for warning in result.warnings if warning not in said])
    if result.failure is not None:
        print(
            f"edge-restore: error: the run ended early at frame {result.failure.frame}: "
            f"{shown_lines(str(result.failure.error))}",
            file=sys.stderr,
        )
    print(_outcome(options.out, result), file=sys.stderr)
    if unwritten is not None:
        print(f"edge-restore: error: {shown_lines(str(unwritten))}", file=sys.stderr)
    if options.json:
        print_json(report.to_json())
    else:
        print(table(result.stages))
        print(f"{report.frames_per_second:.2f} frames/s by {restorer.name}, {restorer.card.name}")
        _print_accounts(report)
    if result.failure is not None or unwritten is not None:
        return UserError.exit_code
    if result.interrupted:
        return stop.exit_code
    return DAMAGED_SOURCE if done.damaged else 0


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"edge-restore: warning: {shown_lines(warning)}", file=sys.stderr)


def _check_report(options: argparse.Namespace) -> None:
    path: Path | None = options.report
    if path is None:
        return
    if path.suffix.lower() not in (".json", ".html"):
        raise OptionError(
            f"the report '{path}' has the suffix '{path.suffix}'",
            expected=".json or .html, which chooses the report's form",
            hint="name it, for example, report.html",
        )


def _write_report(report: LatencyReport, path: Path) -> UserError | None:
    """Write the report; why it cannot be written, which does not concern the video."""
    from edge_restore.report.page import html_page
    from edge_restore.storage.files import write_text

    try:
        if path.suffix.lower() == ".json":
            report.write(path)
        else:
            write_text(path, html_page(report, title="Restoration report"))
    except UserError as error:
        return error
    except OSError as error:
        return SinkError(
            f"the report '{path}' cannot be written: {error.strerror or error}",
            expected="a folder with room for it",
            hint="the video stands; free space there and measure again if you need the report",
        )
    return None


def _print_accounts(report: LatencyReport) -> None:
    dropped = "".join(f", {n} dropped ({cause})" for cause, n in report.drops.items())
    print(f"{report.frames_in} frames in, {report.frames_out} out{dropped}")


def _outcome(out: Path, result: StreamResult) -> str:
    """What stands at the output's place now, in words."""
    frames = "1 frame" if result.frames_out == 1 else f"{result.frames_out} frames"
    early = "ended early" if result.failure is not None else "interrupted"
    if result.failure is None and not result.interrupted:
        return f"wrote '{shown(out)}': {frames}"
    if result.output is None:
        return f"{early} before the first frame was written: '{shown(out)}' was not written"
    text = f"{early}: '{shown(result.output)}' is complete and playable, with the first {frames}"
    if result.output != out:
        text += f"; the older '{shown(out)}' is untouched"
    return text
