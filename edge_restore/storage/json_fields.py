"""Reading typed fields out of JSON from outside, with every error found in one go."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edge_restore.storage.json_file import abridged

_T = TypeVar("_T")

MAX_INTEGER = 2**53
"""What every program that reads JSON keeps exactly."""

MAX_NUMBER = 1e18
"""Greater than every count, rate and time here; sums and squares of such numbers are finite."""

MAX_SIDE = 1 << 16
"""Of a picture, in pixels."""

MAX_TEXT = 1 << 12
MAX_COMMAND = 1 << 20
_MAX_ERRORS = 40
_MAX_NAME_BYTES = 255


class JsonFields:
    """Takes typed fields out of a decoded JSON object and collects what is wrong on the way.

    A bad field yields a harmless stand-in, so that reading goes on to find the next error.
    The caller looks at `errors` at the end and raises, so that the stand-ins never get out.
    Keys that nobody asks for are left alone.

    Args:
        document: what `json_file.read_json` gave.
        where: the path of this object in the document, e.g. "onnx.", for the messages.
        errors: the list to collect in; a new one by default.
    """

    def __init__(self, document: Any, where: str = "", errors: list[str] | None = None) -> None:
        self.errors: list[str] = [] if errors is None else errors
        self.document: dict[str, Any] = document if isinstance(document, dict) else {}
        self._where = where
        if not isinstance(document, dict):
            self.errors.append(f"{where.rstrip('.') or 'the document'} is not a JSON object")

    def listing(self) -> str:
        """The errors as an indented list, one a line, for an error message."""
        more = len(self.errors) - _MAX_ERRORS
        lines = "".join(f"\n    - {error}" for error in self.errors[:_MAX_ERRORS])
        return lines + (f"\n    - and {more} more" if more > 0 else "")

    def take(self, key: str, expected: str, accepts: Callable[[Any], bool], stand_in: _T) -> _T:
        """The field `key` if `accepts` it; otherwise note the error and give `stand_in`."""
        if key not in self.document:
            self.errors.append(f"{self._where}{key} is missing ({expected})")
            return stand_in
        value = self.document[key]
        if not accepts(value):
            self.errors.append(f"{self._where}{key} is {abridged(value)}, not {expected}")
            return stand_in
        return value  # type: ignore[no-any-return]

    def text(self, key: str, maximum: int = MAX_TEXT) -> str:
        """A string with something in it, of at most `maximum` characters."""
        value = self.take(key, "a non-empty string", lambda v: isinstance(v, str) and v != "", "")
        if len(value) > maximum:
            self.errors.append(f"{self._where}{key} has {len(value)} characters, over {maximum}")
            return ""
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of `choices`."""
        expected = " or ".join(f'"{choice}"' for choice in choices)
        return self.take(key, expected, lambda v: isinstance(v, str) and v in choices, choices[0])

    def boolean(self, key: str) -> bool:
        """True or false."""
        return self.take(key, "true or false", lambda v: isinstance(v, bool), False)

    def integer(self, key: str, minimum: int, maximum: int = MAX_INTEGER) -> int:
        """An integer of `minimum` or more, up to `maximum`."""
        expected = f"an integer of {minimum} or more"
        if maximum < MAX_INTEGER:
            expected = f"an integer from {minimum} to {maximum}"
        return self.take(
            key, expected, lambda v: is_integer(v) and minimum <= v <= maximum, minimum
        )

    def number(self, key: str, minimum: float = -MAX_NUMBER, maximum: float = MAX_NUMBER) -> float:
        """A finite number within the bounds."""
        expected = "a finite number"
        if minimum > -MAX_NUMBER or maximum < MAX_NUMBER:
            expected = f"a number from {minimum:g} to {maximum:g}"
        return self.take(key, expected, lambda v: is_number(v) and minimum <= v <= maximum, 0.0)

    def digest(self, key: str) -> str:
        """A SHA-256 in lower-case hexadecimal."""
        return self.take(
            key,
            "a SHA-256 of 64 lower-case hexadecimal digits",
            lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None,
            "",
        )

    def file_name(self, key: str) -> str:
        """A plain file name: a document must not be able to point outside its own folder."""
        return self.take(
            key,
            "a plain file name",
            lambda v: (
                isinstance(v, str)
                and re.fullmatch(r"[^/\\\0]+", v) is not None
                and len(v.encode("utf-8", "surrogateescape")) <= _MAX_NAME_BYTES
                and v not in (".", "..")
            ),
            "",
        )

    def items(self, key: str, accepts: Callable[[Any], bool], expected: str) -> list[Any]:
        """A list whose every item `accepts` takes."""
        empty: list[Any] = []
        return self.take(
            key,
            f"a list of {expected}",
            lambda v: isinstance(v, list) and all(accepts(item) for item in v),
            empty,
        )

    def child(self, key: str) -> JsonFields:
        """The object under `key`; its errors are collected here, under its path."""
        empty: dict[str, Any] = {}
        value = self.take(key, "a JSON object", lambda v: isinstance(v, dict), empty)
        return JsonFields(value, f"{self._where}{key}.", self.errors)

    def sequence(self, key: str, read: Callable[[JsonFields], _T]) -> tuple[_T, ...]:
        """The objects in the list under `key`, each read by `read`."""
        objects = self.items(key, lambda item: isinstance(item, dict), "JSON objects")
        return tuple(
            read(JsonFields(item, f"{self._where}{key}[{i}].", self.errors))
            for i, item in enumerate(objects)
        )


def is_integer(value: Any) -> bool:
    """Whether a decoded value is an integer; JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a decoded value is a finite number of a size that can be computed with."""
    if is_integer(value):
        return bool(abs(value) <= MAX_NUMBER)  # math.isfinite fails for one of 400 digits
    return isinstance(value, float) and math.isfinite(value) and abs(value) <= MAX_NUMBER
