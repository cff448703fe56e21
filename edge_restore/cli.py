"""The command line: ``edge-restore COMMAND ...``."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence

from edge_restore import __version__
from edge_restore.commands import bench, build, demo, doctor, engines, evaluate, models, run
from edge_restore.errors import UserError

PROGRAM = "edge-restore"
INTERRUPTED = 130

_Command = Callable[[argparse.Namespace], int]
_Arguments = Callable[[argparse.ArgumentParser], None]

_COMMANDS: tuple[tuple[_Command, _Arguments], ...] = (
    (demo.demo, demo.add_arguments),
    (run.run, run.add_arguments),
    (evaluate.evaluate, evaluate.add_arguments),
    (models.models, models.add_arguments),
    (bench.bench, bench.add_arguments),
    (build.build, build.add_arguments),
    (engines.engines, engines.add_arguments),
    (doctor.doctor, doctor.add_arguments),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (the process's arguments by default).

    Returns:
        0 on success, 2 when what was given cannot be used (the reason is on standard error), 130
        when interrupted, or another code that the command's help states. Our own bugs are raised.
    """
    options = _parser().parse_args(argv)
    command: _Command = options.command
    try:
        return command(options)
    except UserError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; no half-written file was left", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Restores blurred video, and measures how fast and how well."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, add_arguments in _COMMANDS:
        text = inspect.cleandoc(command.__doc__ or "")
        subparser = commands.add_parser(
            command.__name__,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser
