"""Reading a file whose content will be executed: who owns it, who may change it, is it itself."""

from __future__ import annotations

import errno
import grp
import hashlib
import os
import pwd
import stat
from pathlib import Path

from edge_restore.errors import BackendError

MODE = 0o644
"""Of engines and manifests: everybody may read, the owner alone may write."""


class EngineError(BackendError):
    """An engine, or its manifest, that must not be loaded. `auto` builds it again."""


def read(path: Path, what: str, hint: str, limit: int | None = None) -> bytes:
    """The file's content, read through one descriptor after that was checked.

    The file must be a plain file (no link), owned by this user or root, writable by its owner
    alone, in a folder where nobody else can put another in its place.

    Args:
        what: what the messages call it, e.g. "the engine".
        hint: what the messages advise.
        limit: bytes; a larger file is refused unread.

    Raises:
        EngineError: it is not; each reason has its own message.
    """
    check_folder(path.parent, what, hint)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise EngineError(
            f"{what} '{path}' does not exist", expected="an engine and its manifest", hint=hint
        ) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise EngineError(
                f"{what} '{path}' is a symbolic link to '{os.readlink(path)}'",
                expected="the file itself",
                hint=hint,
            ) from None
        raise EngineError(
            f"{what} '{path}' cannot be read: {error.strerror}", expected="a file", hint=hint
        ) from error
    try:
        status = os.fstat(descriptor)
        _check_status(status, path, what, hint)
        if limit is not None and status.st_size > limit:
            raise EngineError(
                f"{what} '{path}' is {status.st_size} bytes large",
                expected=f"at most {limit} bytes",
                hint=hint,
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def digest(content: bytes) -> str:
    """The SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def owners() -> tuple[int, ...]:
    """The users whose files are trusted: this one and root."""
    return os.geteuid(), 0


def _check_status(status: os.stat_result, path: Path, what: str, hint: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise EngineError(f"{what} '{path}' is not a plain file", expected="a file", hint=hint)
    if status.st_uid not in owners():
        raise EngineError(
            f"{what} '{path}' belongs to the user with the number {status.st_uid}",
            expected="a file of your own or of root",
            hint=hint,
        )
    for bit, who in ((stat.S_IWGRP, "its group"), (stat.S_IWOTH, "everybody")):
        if status.st_mode & bit:
            raise EngineError(
                f"{what} '{path}' can be changed by {who} (mode {stat.S_IMODE(status.st_mode):o})",
                expected=f"a file that its owner alone can write (mode {MODE:o})",
                hint=hint,
            )


def check_folder(folder: Path, what: str, hint: str) -> None:
    """Make sure that nobody else can put another file in the place of one in `folder`.

    A folder that everybody can write is good enough when it is sticky, as /tmp is; one that a
    group can write, when that is the user's own group, as many desktops make them.

    Raises:
        EngineError: others can, or it is somebody else's.
    """
    try:
        status = os.stat(folder)
    except OSError as error:
        raise EngineError(
            f"the folder of {what}, '{folder}', cannot be read: {error.strerror}",
            expected="a folder with an engine and its manifest",
            hint=hint,
        ) from error
    group = status.st_mode & stat.S_IWGRP and not is_private_group(status.st_gid)
    if (group or status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise EngineError(
            f"the folder of {what}, '{folder}', can be changed by others "
            f"(mode {stat.S_IMODE(status.st_mode):o})",
            expected="a folder that its owner alone can write",
            hint=f"chmod go-w '{folder}', then {hint}",
        )
    if status.st_uid not in owners():
        raise EngineError(
            f"the folder of {what}, '{folder}', belongs to the user with the number "
            f"{status.st_uid}",
            expected="a folder of your own or of root",
            hint=hint,
        )


def check_tree(folder: Path, what: str, hint: str) -> None:
    """Make sure that nobody else can write the folder, or anything below it.

    Raises:
        EngineError: somebody can, or there is a link, or something that is neither file nor folder.
    """
    check_folder(folder, what, hint)
    for place, folders, files in os.walk(folder, onerror=_unreadable):
        for name in folders:
            below = Path(place, name)
            if below.is_symlink():
                raise EngineError(f"'{below}' is a symbolic link", expected="a folder", hint=hint)
            check_folder(below, what, hint)
        for name in files:
            _check_status(os.lstat(os.path.join(place, name)), Path(place, name), what, hint)


def _unreadable(error: OSError) -> None:
    raise error


def is_private_group(number: int) -> bool:
    """Whether the group is called like this user and has no other members."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
