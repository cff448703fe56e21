"""JSON: the one reader of what comes from outside, and the one writer.

What the reader gives is safe to use: text in UTF-8 (a byte order mark is passed over), objects
without duplicate keys, nesting of at most `MAX_DEPTH`, integers of at most 64 bits, finite numbers,
and strings that can be printed and written again. What the writer makes, the reader takes.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from edge_restore.errors import InternalError
from edge_restore.storage.plain_file import Kind, read_plain

MAX_DEPTH = 64
MAX_BYTES = 16 << 20
"""Of a file, where its reader does not say otherwise."""

_MAX_DIGITS = 400
_MAX_KEY = 1024
_INT64 = 2**63
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_json(path: str | Path, kind: Kind, limit: int = MAX_BYTES) -> Any:
    """What the JSON file holds.

    Raises:
        kind.error: it cannot be read, is larger than `limit` bytes, or is not JSON as above.
    """
    content = read_plain(path, kind, limit)
    try:
        return decode(content)
    except ValueError as error:
        raise kind.unusable(path, str(error)) from None


def decode(content: bytes | str) -> Any:
    """The value that the text describes.

    Raises:
        ValueError: it is not JSON as this module's docstring describes it; says why.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check(value)
    return value


def encode(document: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """The document as JSON text; what stands for bytes of a file name that is not UTF-8 becomes �.

    Args:
        document: what `decode` gives back.
        indent: as for `json.dumps`.
        ascii_only: write other characters as JSON's escapes.

    Raises:
        InternalError: a number in it is not finite, or something in it is no JSON. Whoever makes
            documents must know before the work begins that they can be written.
    """
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InternalError(f"a document cannot be written as JSON: {error}") from error
    text = _SURROGATES.sub("\ufffd", text)
    if ascii_only:  # such characters are in strings alone
        text = _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return text


def abridged(value: Any, limit: int = 60) -> str:
    """A decoded value for a message, at most about `limit` characters of it."""
    text = _abridged(value, limit, 3)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _abridged(value: Any, limit: int, depth: int) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        digits = int(value.bit_length() * math.log10(2)) + 1
        return str(value) if digits <= limit else f"an integer of {digits} digits"
    if isinstance(value, float):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(_SURROGATES.sub("\ufffd", value[: limit + 1]), ensure_ascii=False)
    if isinstance(value, list | tuple):
        inner = ", ".join(_abridged(v, limit, depth - 1) for v in value[:8]) if depth else "..."
        return f"[{inner}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        pairs = [f"{_abridged(k, limit, 0)}: {_abridged(v, limit, depth - 1) if depth else '...'}"
                 for k, v in list(value.items())[:8]]  # fmt: skip
        return f"{{{', '.join(pairs)}{', ...' if len(value) > 8 else ''}}}"
    return repr(value)[: limit + 1]


def _integer(digits: str) -> int:
    # Python itself refuses integers of more than 4300 digits, with a hint at its own settings.
    if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
        raise ValueError(f"it has an integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits) if len(digits) <= _MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"it has a number that is too large: {digits[:40]}")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"it has {name} for a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it has the key {abridged(twice)} twice in one object")
    return found


def _check(value: Any) -> None:
    """Depth and strings; without recursion, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key in one:
                    if len(key) > _MAX_KEY:
                        raise ValueError(f"it has a key of {len(key)} characters")
                    _check_text(key)
                deeper.extend(one.values())
            elif isinstance(one, list):
                deeper.extend(one)
            elif isinstance(one, str):
                _check_text(one)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if not text.isascii() and _SURROGATES.search(text):
        raise ValueError(f"it has half a character (a lone surrogate) in {abridged(text)}")
