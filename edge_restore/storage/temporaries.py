"""Files and folders that are not to outlive the work that makes them.

What ends the process without unwinding it (`machine.process`, by a signal) removes them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # `typing` itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator

_made: dict[str, None] = {}  # in the order of their making


@contextmanager
def temporary(path: str | os.PathLike[str]) -> Iterator[None]:
    """While the block runs, the file or folder `path` is removed when a signal ends the process."""
    name = os.path.abspath(path)
    _made[name] = None
    try:
        yield
    finally:
        _made.pop(name, None)


def remove_all() -> None:
    """Remove what is there, the latest first; what cannot be removed stays."""
    for path in reversed(list(_made)):
        _remove(path)


def forget_all() -> None:
    """Leave them to another process: this one was forked from the one that made them."""
    _made.clear()


def _remove(path: str) -> None:
    with suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            import shutil

            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
