"""Writing files so that a half-written one never stands where a good one was, and reading inputs.

What the user has is safe: a result replaces a plain file or nothing, so a device, a pipe or a
symbolic link under its name is refused. Whatever goes wrong on the way, a full disk or a missing
permission, is one `SinkError`; the old file stays, and no temporary file is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_restore.errors import DataError, SinkError, UserError
from edge_restore.storage import temporaries
from edge_restore.storage.plain_file import open_unwaiting

_TEMPORARY = re.compile(r"\.edge-restore-[0-9a-f]{16}\.tmp(\.[^./]+)?")
_LONGEST_SUFFIX = 32
"""Bytes; a longer one chooses no format, and with it the name could get longer than 255 bytes."""

_SWEEP_SHARE = 0.01
"""Of the time, that looking for leftovers may take: listing a folder of 100,000 files is slow."""

_swept: dict[str, tuple[float, float]] = {}
"""When a folder was last looked through and how long that took, in seconds."""


@contextmanager
def atomic_path(
    path: str | Path, *, durable: bool = False, mode: int | None = None
) -> Iterator[Path]:
    """Lend a temporary name beside `path`; publish it under `path` when the block succeeds.

    The temporary file exists already, empty, and is locked for as long as the block runs. Its name
    keeps the suffix, because encoders choose a container by it. When the block raises, it is
    removed and whatever stood at `path` is untouched. What a killed process left in the folder is
    recognized by its name, and by its lock being free, and removed.

    Args:
        path: where the result is to stand.
        durable: wait until the content is on the disk before it gets its name.
        mode: of the result; by default that of the file that it replaces, or of any new file.

    Raises:
        SinkError: the system refused to write (any OSError of the block), `path` is something
            other than a plain file, or the file could not be moved there.
    """
    target = Path(path)
    old = _plain_or_missing(target, SinkError)
    remove_leftovers(target.parent)
    try:
        temporary, descriptor = _create(target)
    except OSError as error:
        raise unwritable(target, SinkError, error) from error
    with temporaries.temporary(temporary):
        try:
            yield temporary
            if mode is None and old is not None:
                mode = stat.S_IMODE(old.st_mode) & 0o777
            if mode is not None:
                temporary.chmod(mode)
            if durable:
                os.fsync(descriptor)
            _plain_or_missing(target, SinkError)
            os.replace(temporary, target)
        except OSError as error:
            raise unwritable(target, SinkError, error, temporary) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            os.close(descriptor)


def write_text(path: str | Path, text: str, *, mode: int | None = None) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; `mode` as for `atomic_path`.

    Raises:
        SinkError: the file cannot be written.
    """
    check_writable(path)
    with atomic_path(path, durable=True, mode=mode) as temporary:
        # Undecodable bytes of names become escapes, which in JSON are JSON's.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one of `atomic_path`'s, being written or left."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path, *, always: bool = False) -> None:
    """Remove the temporary files of processes that were killed while they wrote into `folder`.

    Args:
        folder: is not looked into below.
        always: look even if that was done a moment ago.
    """
    key = os.path.abspath(folder)
    started = time.monotonic()
    when, took = _swept.get(key, (-1e9, 0.0))
    if not always and started - when < took / _SWEEP_SHARE:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if is_temporary(entry.name)]:
            _remove_if_left(folder / name)
    _swept[key] = time.monotonic(), time.monotonic() - started


def sha256(path: str | Path) -> str:
    """The file's SHA-256 as 64 lower-case hexadecimal digits; OSError when it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_writable(path: str | Path, error: type[UserError] = SinkError) -> None:
    """Make sure, before any work is done, that a file can be written at `path`.

    The folder is asked by creating a nameless file in it: permission bits say nothing of read-only
    mounts, and they do not bind root.

    Raises:
        error: the folder is missing or refuses new files, or `path` is something other than a
            plain file that may be replaced.
    """
    target = Path(path)
    check_folder(target.parent, error, for_file=target)
    old = _plain_or_missing(target, error)
    if old is not None:
        _check_replaceable(target, old, error)


def check_folder(folder: Path, error: type[UserError] = SinkError, *, for_file: Path) -> None:
    """Make sure that new files can be made in `folder`.

    Args:
        for_file: what is to be written there, for the message.

    Raises:
        error: the folder is missing, cannot be searched, or refuses new files.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
        problem = "" if is_folder else "is not a directory"
    except FileNotFoundError:
        problem = "does not exist"
    except NotADirectoryError:
        problem = "is not a directory"
    except (OSError, ValueError) as failure:
        raise unwritable(for_file, error, failure) from failure
    if problem:
        raise error(
            f"the output '{for_file}' cannot be written: the folder '{folder}' {problem}",
            expected="an existing folder",
            hint=f"mkdir -p {folder}" if problem == "does not exist" else "choose another folder",
        )
    remove_leftovers(folder, always=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        raise unwritable(for_file, error, failure) from failure


def ignores_case(folder: Path) -> bool:
    """Whether names in `folder` that differ in their case alone are one; asked by making a file."""
    try:
        temporary, descriptor = _create(folder / "case")
    except OSError:
        return False
    try:
        return os.path.lexists(folder / temporary.name.upper())
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        os.close(descriptor)


def check_input(path: str | Path, what: str, error: type[UserError] = DataError) -> None:
    """Make sure that an input is a plain file; one that is missing is left to its reader.

    A pipe or a device is refused unopened: opening one may wait for ever, and reading one takes
    away what it held.

    Args:
        what: what the message calls it, e.g. "the model".

    Raises:
        error: it is something else, or cannot be looked at.
    """
    _plain_input(Path(path), what, error)


def check_readable(path: str | Path, what: str, error: type[UserError] = DataError) -> None:
    """As `check_input`, for what may also be a folder; its names must be readable.

    Raises:
        error: it is neither, or cannot be looked at.
    """
    with reading(what, path, error):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(mode):
            # To be listed and to be searched are two permissions.
            with os.scandir(path) as entries:
                next(entries, None)
            os.stat(Path(path) / ".")
        elif not stat.S_ISREG(mode):
            raise _no_plain_input(Path(path), what, mode, error)


@contextmanager
def reading(what: str, path: str | Path, error: type[UserError] = DataError) -> Iterator[None]:
    """Turn an OSError of the block, which reads the input `path`, into a message.

    Raises:
        error: the system refused to read it, or something in it.
    """
    try:
        yield
    except (OSError, ValueError) as failure:
        if isinstance(failure, ValueError) and "null byte" not in str(failure):
            raise
        name = getattr(failure, "filename", None)
        within = f" ('{os.fsdecode(name)}')" if name and os.fsdecode(name) != str(path) else ""
        raise error(
            f"{what} '{path}' cannot be read: {_reason(failure)}{within}",
            expected="something that this user can read",
            hint="check the path and its permissions",
        ) from failure


def open_input(path: str | Path, what: str, error: type[UserError] = DataError) -> BinaryIO:
    """The plain file `path`, open for reading: see `check_input`.

    Raises:
        error: it is missing, something else than a plain file, or cannot be read.
    """
    try:
        descriptor, status = open_unwaiting(path)
    except (OSError, ValueError) as failure:
        if isinstance(failure, FileNotFoundError):
            reason = "does not exist"
        else:
            _plain_input(Path(path), what, error)
            reason = f"cannot be read: {_reason(failure)}"
        raise error(
            f"{what} '{path}' {reason}", expected="a file that can be read", hint="check the path"
        ) from failure
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _no_plain_input(Path(path), what, status.st_mode, error)
    return open(descriptor, "rb")


def make_folder(path: str | Path) -> Path:
    """The folder `path`, created with its parents when missing.

    Raises:
        SinkError: it cannot be created, or something that is not a folder has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as failure:
        raise SinkError(
            f"the folder '{folder}' cannot be created: {_reason(failure)}",
            expected="a folder for the results",
            hint="choose another folder",
        ) from failure
    check_folder(folder, for_file=folder / "a file")
    return folder


def kind(mode: int) -> str:
    """What a file that is no plain one is, in words."""
    for matches, words in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if matches(mode):
            return words
    return "a plain file" if stat.S_ISREG(mode) else "no plain file"


def unwritable(
    target: Path, error: type[UserError], failure: Exception, temporary: Path | None = None
) -> UserError:
    """The error for what the system said while `target` was written."""
    reason = _reason(failure)
    name = getattr(failure, "filename", None)
    if isinstance(name, str | bytes | os.PathLike) and os.fsdecode(name) not in (
        str(target), str(target.parent), str(temporary)
    ):  # fmt: skip
        reason += f" ('{os.fsdecode(name)}')"
    number = getattr(failure, "errno", None)
    return error(
        f"the output '{target}' cannot be written: {reason}",
        expected=_EXPECTED.get(number or 0, "a folder that accepts new files"),
        hint=_HINTS.get(number or 0, "choose another place, or free space and permissions there"),
    )


_EXPECTED = {
    errno.ENOSPC: "space on the disk",
    errno.EDQUOT: "space within the quota",
    errno.EFBIG: "a limit that leaves room for the file",
    errno.ENAMETOOLONG: "a name that the file system takes, mostly of 255 bytes or less",
}
_HINTS = {
    errno.ENOSPC: "free space there, or choose another place",
    errno.EDQUOT: "free space there, or choose another place",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`), or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure)


def _temporary_name(suffix: str) -> str:
    return f".edge-restore-{secrets.token_hex(8)}.tmp{suffix}"


def _create(target: Path) -> tuple[Path, int]:
    """A new file beside `target` and its descriptor, which holds the lock on it."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _LONGEST_SUFFIX else ""
    while True:
        temporary = target.parent / _temporary_name(suffix)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody takes it for a leftover, and removes it now
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks, where nobody removes leftovers
            return temporary, descriptor
        if is_named(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def is_named(path: Path, descriptor: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False


def _remove_if_left(path: Path) -> None:
    """Remove a temporary file if it is a plain one that no process has locked."""
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        descriptor = os.open(path, flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and is_named(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _plain_or_missing(target: Path, error: type[UserError]) -> os.stat_result | None:
    """The status of the plain file `target`; None where there is nothing."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as failure:
        raise unwritable(target, error, failure) from failure
    if stat.S_ISREG(status.st_mode):
        return status
    found, hint = kind(status.st_mode), "name a file that does not exist yet"
    if stat.S_ISLNK(status.st_mode):
        to = os.readlink(target)
        found, hint = f"{found} to '{to}'", f"name '{to}' itself, or remove the link"
    elif stat.S_ISDIR(status.st_mode):
        hint = f"name a file in it, e.g. {target / 'restored.mp4'}"
    raise error(
        f"the output '{target}' is {found}",
        expected="the name of a plain file to write",
        hint=hint,
    )


def _check_replaceable(target: Path, old: os.stat_result, error: type[UserError]) -> None:
    """Refuse what could be seen to be protected, or could not be replaced in the end."""
    reason = ""
    try:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(target, flags))
        folder = os.stat(target.parent)
    except OSError as failure:
        reason = _reason(failure)
    else:
        user = os.geteuid()
        if folder.st_mode & stat.S_ISVTX and user not in (0, old.st_uid, folder.st_uid):
            reason = "it belongs to another user, and the folder is sticky"
        elif folder.st_dev != old.st_dev:
            reason = "something is mounted there"
    if reason:
        raise error(
            f"the output '{target}' exists and cannot be replaced: {reason}",
            expected="a file that may be written",
            hint="choose another name, or make the file writable",
        )


def _plain_input(path: Path, what: str, error: type[UserError]) -> None:
    with reading(what, path, error):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
    if not stat.S_ISREG(mode):
        raise _no_plain_input(path, what, mode, error)


def _no_plain_input(path: Path, what: str, mode: int, error: type[UserError]) -> UserError:
    return error(
        f"{what} '{path}' is {kind(mode)}",
        expected="a plain file",
        hint="name a file in it" if stat.S_ISDIR(mode) else "write what it gives into a file first",
    )
