"""The one exception tree.

::

    EdgeRestoreError
    ├── UserError            what was given cannot be used; exit code 2, no traceback
    │   ├── SourceError      a video, camera or folder that cannot be read
    │   ├── SinkError        an output that cannot be written
    │   ├── ModelError       a model file or name that is not ours
    │   ├── CardError        a card that is malformed or does not match its file
    │   ├── BackendError     a backend that is unknown or cannot run here
    │   │   └── EngineError  an engine or manifest that must not be loaded (engine/trusted_file.py)
    │   ├── DataError        training or evaluation data that cannot be used
    │   │   └── ImageError   a picture that cannot be read, or only in part (images.py)
    │   ├── RecipeError      a training recipe with unknown, missing or bad keys
    │   ├── OptionError      an option's value that makes no sense
    │   └── DependencyError  an optional package that is missing or cannot be loaded
    │       └── MissingLibrary  a TensorRT library (engine/flavour.py)
    └── InternalError        our own bug; exit code 1, with a traceback

Every `UserError` says what was found and what was expected, and mostly has a hint.
"""

from __future__ import annotations

import os

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_BREAKS = (0x85, 0x2028, 0x2029)

_OBEYED: dict[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)},
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *_BIDI, *_BREAKS)},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}

# The bytes of a name that are not UTF-8, as Python carries them in a str, and other surrogates.
_UNDECODABLE = {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}
_SURROGATES = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}

_NAMES = {**_OBEYED, **_SURROGATES, **_UNDECODABLE}
_LINES = {code: text for code, text in _NAMES.items() if code != ord("\n")}

# What a stream lets pass besides: lines, columns, and the bar that is redrawn in its line. Beyond
# ASCII the escapes are JSON's, so that a JSON document stays one.
_STREAM = {
    code: text for code, text in {**_OBEYED, **_SURROGATES}.items() if chr(code) not in "\n\r\t"
}


def shown(text: str | os.PathLike[str]) -> str:
    r"""One line of valid Unicode: control characters and undecodable bytes as ``\x1b``, ``\n``."""
    return os.fspath(text).translate(_NAMES)


def shown_lines(text: str) -> str:
    """`shown` for a text of several lines: a line break stays where an indented line follows.

    Messages indent the lines after the first by two spaces or more; a line break in a file's name
    has no indented text after it.
    """
    lines = text.translate(_LINES).split("\n")
    joined = lines[0]
    for line in lines[1:]:
        joined += ("\n" if line.startswith("  ") else "\\n") + line
    return joined


def harmless(text: str) -> str:
    """What a stream may be given: all but line breaks, returns and tabs is shown."""
    return text.translate(_STREAM)


class EdgeRestoreError(Exception):
    """Base of every exception that this project raises on purpose."""

    exit_code = 1


class UserError(EdgeRestoreError):
    """What the user gave cannot be used.

    Args:
        found: what is there, naming the file or the value.
        expected: what would have been usable.
        hint: what to do about it; empty when there is nothing to say.
    """

    exit_code = 2

    def __init__(self, found: str, *, expected: str, hint: str = "") -> None:
        # They name files and quote libraries, whose control characters are shown.
        self.found = shown_lines(found)
        self.expected = shown_lines(expected)
        self.hint = shown_lines(hint)
        text = f"{self.found}\n  expected: {self.expected}"
        super().__init__(text + (f"\n  hint:     {self.hint}" if hint else ""))


class SourceError(UserError):
    """A video, camera or folder that cannot be read."""


class SinkError(UserError):
    """An output that cannot be written."""


class ModelError(UserError):
    """A model file or name that is not ours."""


class CardError(UserError):
    """A card that is malformed or does not match its file."""


class BackendError(UserError):
    """A backend that is unknown or cannot run on this machine."""


class DataError(UserError):
    """Training or evaluation data that cannot be used."""


class RecipeError(UserError):
    """A training recipe with unknown, missing or bad keys."""


class OptionError(UserError):
    """An option's value that makes no sense."""


class DependencyError(UserError):
    """An optional package that is not installed, or cannot be loaded; see `optional.require`.

    Args:
        package: what pip calls it.
        needed_for: what needs it.
        extra: of edge-restore, which brings it; empty for a package of its own.
        reason: why it cannot be loaded though it is installed; empty when it is not.
        hint: what to do about that.
    """

    def __init__(
        self, package: str, *, needed_for: str, extra: str, reason: str = "", hint: str = ""
    ) -> None:
        self.package = package
        state = f"is installed and cannot be loaded: {reason}" if reason else "is not installed"
        install = f"pip install 'edge-restore[{extra}]'" if extra else f"pip install {package}"
        super().__init__(
            f"the package '{package}' {state}",
            expected=f"'{package}', which {needed_for} needs",
            hint=hint or install,
        )


class InternalError(EdgeRestoreError):
    """A state that our own code should have made impossible."""
