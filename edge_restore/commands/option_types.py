"""What command-line options may be: numbers within a range, paths, and never without an effect.

The types are for argparse's ``type=``. What is out of range is refused while the command line is
read, before any work, like a word where a number is asked for.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_restore.errors import OptionError, shown


def integer(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """The type of an integer from `minimum` to `maximum`, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also for more digits than Python converts
            value = minimum - 1
        if not minimum <= value <= maximum:
            limit = (
                f"from {minimum} to {maximum}" if maximum < 2**31 - 1 else f"of {minimum} or more"
            )
            raise argparse.ArgumentTypeError(f"'{text:.40}' is not an integer {limit}")
        return value

    return parse


def number(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    """The type of a number from `minimum` to `maximum`, both included; never "nan".

    Infinity is taken where `maximum` is infinite.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:  # false for nan
            limit = f"of {minimum:g} or more" if maximum == math.inf else (
                f"from {minimum:g} to {maximum:g}"
            )  # fmt: skip
            raise argparse.ArgumentTypeError(f"'{text:.40}' is not a number {limit}")
        return value

    return parse


def name(text: str) -> str:
    """The type of a name; never of nothing."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not a name")
    return text


def any_path(text: str) -> Path:
    """The type of a path; never of nothing, which a shell's unset variable gives."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not a path")
    return Path(text)


def file_path(text: str) -> Path:
    """The type of a file's path: it has a name."""
    found = any_path(text)
    if found.name in ("", ".."):
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is a folder, not a file")
    return found


def refuse_unused(options: argparse.Namespace, names: Iterable[str], *, beside: str) -> None:
    """Refuse options that would be taken and ignored, such as the name of a file to write.

    Args:
        options: what was given, with the parser of its command in the attribute `parser`.
        names: the options that have no effect, e.g. "--json".
        beside: what makes them so, e.g. "'bench compare'".

    Raises:
        OptionError: some have another value than the default.
    """
    parser: argparse.ArgumentParser = options.parser
    given = []
    for option in names:
        attribute = option.removeprefix("--").replace("-", "_")
        if getattr(options, attribute) != parser.get_default(attribute):
            given.append(option)
    if given:
        raise OptionError(
            f"{', '.join(given)} beside {beside}, where nothing uses it",
            expected="options that have an effect together",
            hint=f"leave {' and '.join(given)} out; see `{parser.prog} --help`",
        )
