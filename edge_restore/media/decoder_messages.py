"""What the C libraries of image formats print while they decode.

libjpeg, libpng and libtiff give a picture for a damaged file and say so on standard error alone;
OpenCV does not pass it on. So the descriptor is lent to a file in memory for the while.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = 2
_MOST_BYTES = 1 << 16
_lock = threading.Lock()

_OF_A_DECODER = re.compile(
    r"JPEG|JFIF|jpeg|libpng|TIFF|tiff|WebP|WEBP|EXIF|\[ ?(WARN|ERROR|INFO|DEBUG):|Adobe|SOS"
    r"|progression|OpenCV|^>"
)


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Collect the lines that decoders print within the block, into the list it gives.

    Nothing of them reaches standard error; other lines, of another thread, are passed on after it.
    Without a standard error, or a file to keep them in, the list stays empty.
    """
    messages: list[str] = []
    with _lock:
        try:
            before = os.dup(_STANDARD_ERROR)
        except OSError:  # it is closed
            yield messages
            return
        try:
            caught = _file()
        except OSError:
            os.close(before)
            yield messages
            return
        try:
            os.dup2(caught, _STANDARD_ERROR)
            yield messages
        finally:
            os.dup2(before, _STANDARD_ERROR)
            length = os.lseek(caught, 0, os.SEEK_END)
            if length:
                _sort(os.pread(caught, min(length, _MOST_BYTES), 0), messages)
            os.close(caught)
            os.close(before)


def _sort(printed: bytes, messages: list[str]) -> None:
    for line in printed.decode("utf-8", "replace").splitlines():
        if _OF_A_DECODER.search(line):
            messages.append(line.strip())
        elif line:
            os.write(_STANDARD_ERROR, line.encode() + b"\n")


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("messages")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
