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

Every `UserError` says three things: what was found, what was expected, how to mend it.
"""

from __future__ import annotations

from edge_restore.shown import shown_lines


class EdgeRestoreError(Exception):
    """Base of every exception that this project raises on purpose."""

    exit_code = 1


class UserError(EdgeRestoreError):
    """What the user gave cannot be used.

    Args:
        found: what is there, naming the file or the value.
        expected: what would have been usable.
        mend: what to do about it.
    """

    exit_code = 2

    def __init__(self, found: str, *, expected: str, mend: str) -> None:
        # They name files and quote libraries, whose control characters are shown.
        self.found = shown_lines(found)
        self.expected = shown_lines(expected)
        self.mend = shown_lines(mend)
        super().__init__(f"{self.found}\n  expected: {self.expected}\n  to mend:  {self.mend}")


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
            mend=hint or install,
        )


class InternalError(EdgeRestoreError):
    """A state that our own code should have made impossible."""
