"""The command line: ``edge-restore COMMAND ...``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from edge_restore import __version__
from edge_restore.commands import bench, build, demo, doctor, engines, evaluate, models, run
from edge_restore.machine import process

PROGRAM = "edge-restore"

_Command = Callable[[argparse.Namespace], int]
_Arguments = Callable[[argparse.ArgumentParser], None]

_COMMANDS: tuple[tuple[_Command, str, _Arguments], ...] = (
    (demo.demo, demo.HELP, demo.add_arguments),
    (run.run, run.HELP, run.add_arguments),
    (evaluate.evaluate, evaluate.HELP, evaluate.add_arguments),
    (models.models, models.HELP, models.add_arguments),
    (bench.bench, bench.HELP, bench.add_arguments),
    (build.build, build.HELP, build.add_arguments),
    (engines.engines, engines.HELP, engines.add_arguments),
    (doctor.doctor, doctor.HELP, doctor.add_arguments),
)
"""Each with its help, which is no docstring: `python -OO` has none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (the process's arguments by default).

    Returns:
        0 on success, 2 when what was given cannot be used (the reason is on standard error), 130
        when interrupted, or another code that the command's help states. Our own bugs are raised.
    """
    options = _parser().parse_args(argv)
    command: _Command = options.command
    return process.run(PROGRAM, lambda: command(options), kept="no half-written file was left")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Restores blurred video, and measures how fast and how well."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, text, add_arguments in _COMMANDS:
        subparser = commands.add_parser(
            command.__name__,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_arguments(subparser)
        subparser.set_defaults(command=command, parser=subparser)
    return parser
