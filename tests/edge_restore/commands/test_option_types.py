"""Numbers and paths on the command line, and what is none."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edge_restore.commands import option_types
from edge_restore.errors import OptionError


def test_numbers_within_the_range_are_taken() -> None:
    assert option_types.integer(1)("1") == 1
    assert option_types.integer(0, 51)("51") == 51
    assert option_types.number(0)("0") == 0.0
    assert option_types.number(0)("inf") == float("inf")


@pytest.mark.parametrize("text", ["0", "-1", "", "x", "1.5", "nan", "1e3", "9" * 6000, str(2**31)])
def test_integer_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not an integer of 1 or more"):
        option_types.integer(1)(text)


@pytest.mark.parametrize("text", ["-0.5", "nan", "-inf", "", "x", "1,5"])
def test_number_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of 0 or more"):
        option_types.number(0)(text)


def test_both_ends_of_a_range_are_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'52' is not an integer from 0 to 51"):
        option_types.integer(0, 51)("52")
    with pytest.raises(argparse.ArgumentTypeError, match="'inf' is not a number from 0 to 100"):
        option_types.number(0, 100)("inf")


def test_an_empty_path_is_refused() -> None:
    assert option_types.any_path("a/b") == Path("a/b")
    assert option_types.any_path("..") == Path("..")
    with pytest.raises(argparse.ArgumentTypeError, match="'' is not a path"):
        option_types.any_path("")


@pytest.mark.parametrize("text", [".", "./", "/", "..", "a/..", "//"])
def test_a_file_has_a_name(text: str) -> None:
    assert option_types.file_path("a/b.mp4") == Path("a/b.mp4")
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder, not a file"):
        option_types.file_path(text)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="prog")
    made.add_argument("--json")
    made.add_argument("--memory-budget", type=int, default=3)
    made.set_defaults(parser=made)
    return made


@pytest.mark.parametrize("words", [[], ["--memory-budget", "3"]])
def test_options_at_their_defaults_pass(words: list[str]) -> None:
    given = parser().parse_args(words)
    option_types.refuse_unused(given, ("--json", "--memory-budget"), beside="x")


def test_options_without_an_effect_are_refused_by_name() -> None:
    given = parser().parse_args(["--memory-budget", "0", "--json", ""])
    with pytest.raises(OptionError, match=r"--json, --memory-budget beside x, .*\n.*\n.*prog --h"):
        option_types.refuse_unused(given, ("--json", "--memory-budget"), beside="x")
