"""Writing files so that a half-written one never stands where a good one was."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_restore.errors import SinkError, UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lend a temporary name beside `path`; publish it under `path` when the block succeeds.

    The temporary name keeps the suffix, because encoders choose a container by it. When the
    block raises, the temporary file is removed and whatever stood at `path` is untouched.

    Raises:
        SinkError: the block succeeded but the file could not be moved to `path`.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise _unwritable(target, SinkError, error.strerror or str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    Raises:
        SinkError: the file cannot be written.
    """
    check_writable(path)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """The file's SHA-256 as 64 lower-case hexadecimal digits; OSError when it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_writable(path: str | Path, error: type[UserError] = SinkError) -> None:
    """Make sure, before any work is done, that a file can be written at `path`.

    The folder is asked by creating a nameless file in it: permission bits say nothing of
    read-only mounts, and they do not bind root.

    Raises:
        error: the folder is missing or refuses new files, or `path` is a directory.
    """
    target = Path(path)
    if target.is_dir():
        raise error(
            f"the output '{target}' is a directory",
            expected="the name of a file to write",
            mend=f"name a file in it, e.g. {target / 'restored.mp4'}",
        )
    folder = target.parent
    if not folder.is_dir():
        problem = "is not a directory" if folder.exists() else "does not exist"
        raise error(
            f"the output '{target}' cannot be written: the folder '{folder}' {problem}",
            expected="an existing folder",
            mend=f"mkdir -p {folder}" if problem == "does not exist" else "choose another folder",
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        raise _unwritable(target, error, failure.strerror or str(failure)) from failure


def make_folder(path: str | Path) -> Path:
    """The folder `path`, created with its parents when missing.

    Raises:
        SinkError: it cannot be created, or something that is not a folder has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise SinkError(
            f"the folder '{folder}' cannot be created: {reason}",
            expected="a folder for the results",
            mend="choose another folder with --out",
        ) from failure
    check_writable(folder / "probe")
    return folder


def _unwritable(target: Path, error: type[UserError], reason: str) -> UserError:
    return error(
        f"the output '{target}' cannot be written: {reason}",
        expected="a folder that accepts new files",
        mend="choose another place, or free space and permissions there",
    )
