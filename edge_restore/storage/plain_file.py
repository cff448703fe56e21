"""Reading a file from outside: a plain one, no larger than what its reader is made for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_restore.errors import DataError, UserError


@dataclass(frozen=True)
class Kind:
    """What sort of file a reader reads, for its messages.

    Attributes:
        what: with its article, e.g. "a card".
        expected: what would have been usable.
        hint: what to do about one that is not.
        error: what is raised.
    """

    what: str
    expected: str
    hint: str
    error: type[UserError] = DataError

    def unusable(self, path: str | Path, problem: str) -> UserError:
        """The error for a file of this kind."""
        return self.error(
            f"'{path}' cannot be read as {self.what}: {problem}",
            expected=self.expected,
            hint=self.hint,
        )


def open_unwaiting(path: str | Path) -> tuple[int, os.stat_result]:
    """A descriptor of the file, open for reading, and its status; a pipe is not waited for.

    The caller looks at the status before it reads: it may be no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return descriptor, os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise


@contextmanager
def open_plain(path: str | Path, kind: Kind) -> Iterator[tuple[BinaryIO, int]]:
    """The file, open for reading, and its size in bytes; an OSError inside is the kind's error.

    A pipe is not waited for and a device not opened for reading.

    Raises:
        kind.error: there is none, it cannot be opened or read, or it is not a plain file.
    """
    try:
        descriptor, status = open_unwaiting(path)
        try:
            if not stat.S_ISREG(status.st_mode):
                raise kind.unusable(path, "it is not a plain file")
            with open(descriptor, "rb", closefd=False) as file:
                yield file, status.st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise kind.unusable(path, error.strerror or str(error)) from error
    except ValueError as error:  # a name with a NUL byte, or what the file system cannot encode
        if "null" in str(error) or isinstance(error, UnicodeEncodeError):
            raise kind.unusable(repr(os.fspath(path))[1:-1], "no file has such a name") from error
        raise


def read_plain(path: str | Path, kind: Kind, limit: int) -> bytes:
    """The whole content of a file of at most `limit` bytes.

    Raises:
        kind.error: as `open_plain`, or it is larger.
    """
    with open_plain(path, kind) as (file, size):
        if size > limit:
            raise kind.unusable(path, f"it is {size} bytes large, and at most {limit} are read")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise kind.unusable(path, f"it grew beyond {limit} bytes while it was read")
    return content
