"""Numbers on the command line, and what is none."""

from __future__ import annotations

import argparse

import pytest

from edge_restore import option_types


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
