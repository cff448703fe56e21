"""Sizes on the command line: height first, and what is none is named."""

import pytest

from edge_restore.commands import frame_size
from edge_restore.errors import OptionError


def test_height_comes_first():
    assert frame_size.parse("720x1280") == (720, 1280)
    assert frame_size.parse("1x5") == (1, 5)


@pytest.mark.parametrize(
    "text", ["", "720", "x5", "7x", "7*5", "-7x5", "7x5\n", "0x5", "5x0", "123456x7", "\u0667x5"]
)
def test_what_is_no_size(text):
    with pytest.raises(OptionError, match="is not a size"):
        frame_size.parse(text)


def test_the_least_side():
    assert frame_size.parse("8x8", least=8) == (8, 8)
    with pytest.raises(OptionError, match=r"write it like --size 2x2"):
        frame_size.parse("7x8", least=8, example="2x2")
