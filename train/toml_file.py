"""TOML: the one reader of what comes from outside."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from edge_restore.storage.plain_file import Kind, read_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 256 << 10
MAX_DEPTH = 16
_MAX_KEY = 1024
_KEY_PART = re.compile(r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')([ \t]*\.[ \t]*)?""")


def read_toml(path: Path, kind: Kind, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The file's table. Its values have any type and size that TOML has: check each before use.

    Raises:
        kind.error: it cannot be read, is larger than `limit` bytes, is no TOML, or is nested deeper
            than `MAX_DEPTH` tables and arrays.
    """
    content = read_plain(path, kind, limit)
    try:
        text = content.decode("utf-8-sig")
        _check_keys(text)
        table = tomllib.loads(text)
        _check_depth(table)
    except UnicodeDecodeError as error:
        raise kind.unusable(path, f"it is not UTF-8 text ({error.reason})") from None
    except RecursionError:
        raise kind.unusable(path, f"it is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, ArithmeticError) as error:
        found = str(error)
        if "set_int_max_str_digits" in found:
            found = "it has an integer of thousands of digits"
        raise kind.unusable(path, found[:300]) from None
    return table


def _check_keys(text: str) -> None:
    """The parser takes time in the square of the parts of a dotted key."""
    parts = end = 0
    for match in _KEY_PART.finditer(text):
        parts = parts + 1 if match.start() == end and match[1] else 0
        end = match.end()
        if parts > MAX_DEPTH:
            raise ValueError(f"a key has more than {MAX_DEPTH} parts")


def _check_depth(table: dict[str, Any]) -> None:
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if any(len(key) > _MAX_KEY for key in one):
                    raise ValueError("it has a key of thousands of characters")
                deeper.extend(one.values())
            elif isinstance(one, list):
                deeper.extend(one)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
