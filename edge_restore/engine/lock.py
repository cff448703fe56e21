"""A lock between processes, so that two do not build the same engine at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_restore.errors import BackendError, SinkError

_PAUSE_SECONDS = 0.05


@contextmanager
def locked(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. The system frees it when a process dies.

    Args:
        wait_seconds: how long to wait for another process.

    Raises:
        BackendError: another process still holds it; names its number.
        SinkError: the file cannot be made.
    """
    descriptor = _acquire(path, time.monotonic() + wait_seconds, wait_seconds)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: see `_acquire`
        os.close(descriptor)


def _acquire(path: Path, deadline: float, wait_seconds: float) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SinkError(
                f"the lock '{path}' cannot be made: {error.strerror}",
                expected="a folder that accepts new files",
                mend="choose another folder with --cache",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise BackendError(
                    f"another process (pid {holder}) is building this engine, and did not finish "
                    f"within {wait_seconds:g} s",
                    expected="one build of an engine at a time",
                    mend="wait for it, or give --wait more seconds; a process that is gone holds "
                    "no lock",
                ) from None
            time.sleep(_PAUSE_SECONDS)
            continue
        if _is_still_there(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        os.close(descriptor)  # who held it has removed it since; a new file is the lock now


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        named, held = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)
