"""Standard output and error of a command line, whose loss never costs the work.

Both may be closed, full, a pipe that nobody reads any more, or a terminal that went away. A print
must not end a run for that: what cannot be written is dropped, and the first reason is kept.
"""

from __future__ import annotations

import io
import os
import sys

from edge_restore.errors import harmless

TYPE_CHECKING = False  # `typing` itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """Writes to a descriptor that it does not own, and swallows what it cannot write."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        size = memoryview(data).nbytes
        while self.failure is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.failure = error
                break
            # None by a descriptor that another program set to non-blocking, and that is full.
            if written is not None:
                return written
            import select

            select.select([], [self.fileno()], [])
        return size


class SafeStream(io.TextIOWrapper):
    """A text stream on a descriptor: never fails, and shows control characters.

    Characters that its encoding lacks are written as backslash escapes.
    """

    def __init__(
        self, descriptor: int, *, encoding: str, line_buffering: bool, write_through: bool
    ) -> None:
        self._descriptor = _Descriptor(descriptor)
        super().__init__(
            io.BufferedWriter(self._descriptor),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=line_buffering,
            write_through=write_through,
        )

    @property
    def failure(self) -> OSError | None:
        """Why something was not written; None when everything was."""
        return self._descriptor.failure

    def write(self, text: str) -> int:
        """Write `text`, its control characters but line breaks, returns and tabs as escapes."""
        super().write(harmless(text))
        return len(text)


def make_safe() -> None:
    """Put safe streams in the place of this process's standard output and error."""
    _open_the_closed()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, SafeStream):
            continue
        safe = SafeStream(
            descriptor,
            encoding=getattr(stream, "encoding", None) or "utf-8",
            line_buffering=name == "stderr" or bool(getattr(stream, "line_buffering", False)),
            write_through=bool(getattr(stream, "write_through", False)),
        )
        setattr(sys, name, safe)


def failure_of_output() -> OSError | None:
    """Flush both streams; why standard output lacks something of what was printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SafeStream):
            stream.flush()
    return sys.stdout.failure if isinstance(sys.stdout, SafeStream) else None


def print_json(document: Any) -> None:
    """Print a JSON document, in ASCII where standard output has no UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    ascii_only = encoding.lower().replace("-", "").replace("_", "") != "utf8"
    print(json_text(document, ascii_only=ascii_only))


def json_text(document: Any, *, indent: int = 2, ascii_only: bool = False) -> str:
    """`document` as JSON that can be encoded and read back; see `json_file.encode`."""
    from edge_restore.storage.json_file import encode

    return encode(document, indent=indent, ascii_only=ascii_only)


def _open_the_closed() -> None:
    """Open /dev/null for the standard descriptors that are closed.

    Otherwise the next file that is opened gets such a number, and what a library writes to
    "standard error" goes into it.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return
