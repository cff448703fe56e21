"""A lock between processes, so that two do not build the same engine at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_restore.errors import BackendError, SinkError
from edge_restore.storage.files import is_named

_PAUSE_SECONDS = 0.05
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


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
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # before it is let go: see `_acquire`
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process that lives holds the lock file `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's, or no lock: nothing that would be safe to pass over
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, deadline: float, wait_seconds: float) -> int:
    while True:
        try:
            descriptor = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise _unmakeable(path, error.strerror or str(error)) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _unmakeable(path, "something that is no plain file has its name")
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
                    hint="wait for it, or give --wait more seconds; a process that is gone holds "
                    "no lock",
                ) from None
            time.sleep(_PAUSE_SECONDS)
            continue
        except OSError as error:  # some network file systems have no locks
            os.close(descriptor)
            raise _unmakeable(path, error.strerror or str(error)) from error
        if is_named(path, descriptor):
            with contextlib.suppress(OSError):  # a full disk; the number is for people
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        os.close(descriptor)  # who held it has removed it since; a new file is the lock now


def _unmakeable(path: Path, reason: str) -> SinkError:
    return SinkError(
        f"the lock '{path}' cannot be made: {reason}",
        expected="a folder that accepts new files",
        hint="choose another folder with --cache",
    )
