"""The folders where Triton and torch.compile keep what they compiled, and execute again.

Both load machine code, and libraries, from a folder below the home or /tmp without a look at who
wrote it. So before either is used, its folder is looked through: where somebody else can write, it
gets a new one that only this user can, for as long as the process lives.
"""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import re
import shutil
import tempfile
from pathlib import Path

from edge_restore.storage import trusted_file
from edge_restore.storage.trusted_file import EngineError


@functools.cache
def use_trusted() -> None:
    """Give Triton and torch.compile folders that nobody else can write; before their first use."""
    for variable, folder in (
        ("TRITON_CACHE_DIR", _of_triton()), ("TORCHINDUCTOR_CACHE_DIR", _of_inductor()),
    ):  # fmt: skip
        if folder is not None and is_trusted(folder):
            os.environ[variable] = str(folder)
            continue
        fresh = tempfile.mkdtemp(prefix="edge-restore-compiled-")  # mode 700
        atexit.register(shutil.rmtree, fresh, ignore_errors=True)
        os.environ[variable] = fresh


def is_trusted(folder: Path) -> bool:
    """Whether a folder, made for this user alone where it is missing, holds only what can be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trusted_file.check_tree(folder, "what was compiled", "remove it")
    except (OSError, EngineError):
        return False
    return True


def _of_triton() -> Path | None:
    if given := os.environ.get("TRITON_CACHE_DIR"):
        return Path(given)
    home = os.environ.get("TRITON_HOME")
    try:
        return (Path(home) if home else Path.home()) / ".triton" / "cache"
    except RuntimeError:
        return None


def _of_inductor() -> Path | None:
    if given := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(given)
    try:
        user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (OSError, KeyError):  # no name for this user
        return None
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"
