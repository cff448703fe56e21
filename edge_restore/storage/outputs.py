"""The one check of a command's outputs, before any of its work.

A command names every file that it will write and everything that it reads. No output may be an
input, under whatever name, nor another output; each must be new, or a plain file that may be
replaced, in a folder that takes new files. Nothing is created or changed by asking.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_restore.errors import SinkError, UserError
from edge_restore.storage.files import (
    check_folder,
    check_readable,
    check_writable,
    ignores_case,
    kind,
    unwritable,
)

_Identity = tuple[int, int]
"""Device and inode: the same for every name of a file."""

_LONGEST_NAME = 255


@dataclass(frozen=True)
class InputFolder:
    """A folder whose files are inputs.

    Attributes:
        path: the folder.
        suffixes: of the files that are read, in lower case. A new file with one of them would be
            an input the next time.
        below: whether folders in it are looked into, too.
    """

    path: Path
    suffixes: Collection[str]
    below: bool = False


@dataclass(frozen=True)
class _Place:
    """A file's place, alike for all its spellings.

    Attributes:
        present: the nearest folder above it that is there.
        identity: that folder's.
        names: of the folders below that are to be made, and of the file.
    """

    present: Path
    identity: _Identity
    names: tuple[str, ...]

    @property
    def folded(self) -> tuple[str, ...]:
        """The names, alike where a file system that ignores case takes them for one."""
        return tuple(unicodedata.normalize("NFC", name).casefold() for name in self.names)


Output = tuple[str, Path | None]
"""What messages call it (mostly the option), and the file; None where none is written."""

Input = tuple[str, Path | InputFolder | None]
"""What messages call it, and a file or folder of any kind; None where none is read."""


def check_outputs(
    outputs: Iterable[Output],
    inputs: Iterable[Input] = (),
    *,
    folders: Iterable[Output] = (),
    error: type[UserError] = SinkError,
) -> None:
    """Make sure that a command can write its outputs, and harms none of its inputs by it.

    Args:
        outputs: every file that will be written, derived ones (cards, manifests) among them.
        inputs: everything that is read; what is missing there is left to its reader. An input
            that is neither a plain file nor a folder is refused.
        folders: that will be made when they are missing; outputs may lie in them.
        error: raised for an output.

    Raises:
        error: an output cannot be written, is an input, or is another output.
        DataError: an input is a pipe, a device or the like, or cannot be looked at.
    """
    named = [(name, Path(path)) for name, path in outputs if path is not None]
    made = [(name, Path(path)) for name, path in folders if path is not None]
    read = [(name, path) for name, path in inputs if path is not None]
    for name, source in read:
        check_readable(source.path if isinstance(source, InputFolder) else source, name)
    for name, folder in made:
        _check_new_folder(name, folder, error)
    seen: dict[tuple[_Identity, tuple[str, ...]], list[tuple[str, Path, _Place]]] = {}
    for name, path in named:
        place = _check_place(path, made, error)
        alike = seen.setdefault((place.identity, place.folded), [])
        for other, first, theirs in alike:
            if theirs.names == place.names or ignores_case(place.present):
                raise error(
                    f"{name} '{path}' and {other} '{first}' are the same file",
                    expected="a file of its own for each",
                    hint="give one of them another name",
                )
        alike.append((name, path, place))
    _check_no_input(named, read, error)


def _check_new_folder(name: str, folder: Path, error: type[UserError]) -> None:
    """Make sure that `folder` can be written to, or could be made."""
    present, missing = _present(folder, folder, error)
    if not missing and not os.path.isdir(present):
        mode = os.stat(present).st_mode
        raise error(
            f"{name} '{folder}' is {kind(mode)}",
            expected="a folder, or a name that is not taken",
            hint="choose another one",
        )
    check_folder(present, error, for_file=folder)


def _check_place(path: Path, made: Collection[tuple[str, Path]], error: type[UserError]) -> _Place:
    """Where `path` is, once it is known that a file can be written there."""
    present, missing = _present(path.parent, path, error)
    if missing and any(_lies_in(path.parent, folder) for _, folder in made):
        check_folder(present, error, for_file=path)
    else:
        check_writable(path, error)
    names = (*missing, path.name)
    _check_lengths(path, names, present, error)
    status = os.stat(present)
    return _Place(present, (status.st_dev, status.st_ino), names)


def _present(folder: Path, path: Path, error: type[UserError]) -> tuple[Path, tuple[str, ...]]:
    """The nearest folder above `folder`, or it, that is there, and the names of those to make."""
    missing: list[str] = []
    try:
        here = Path(os.path.realpath(folder))
        while True:
            try:
                os.stat(here)
                return here, tuple(reversed(missing))
            except FileNotFoundError:
                missing.append(here.name)
                here = here.parent
            except NotADirectoryError:
                here = here.parent
                if os.path.lexists(here):
                    raise
    except (OSError, ValueError) as failure:
        raise unwritable(path, error, failure) from failure


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _check_lengths(path: Path, names: Iterable[str], folder: Path, error: type[UserError]) -> None:
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = _LONGEST_NAME
    for name in names:
        if len(os.fsencode(name)) > longest:
            raise error(
                f"the output '{path}' cannot be written: '{name[:40]}...' is "
                f"{len(os.fsencode(name))} bytes long",
                expected=f"names of at most {longest} bytes",
                hint="choose a shorter name",
            )


def _check_no_input(
    outputs: Collection[tuple[str, Path]],
    inputs: Collection[tuple[str, Path | InputFolder]],
    error: type[UserError],
) -> None:
    present: dict[_Identity, tuple[str, Path]] = {}
    absent: dict[tuple[_Identity | None, str], tuple[str, Path]] = {}
    homes: dict[_Identity, list[tuple[str, Path]]] = {}
    for name, path in outputs:
        if (identity := _identity(path)) is not None:
            present[identity] = name, path
        else:
            absent[_identity(path.parent), path.name] = name, path
        for home in _folders_above(path):
            homes.setdefault(home, []).append((name, path))
    for what, source in inputs:
        given = source.path if isinstance(source, InputFolder) else Path(source)
        clashes = [
            present[identity]
            for identity in _files_of(source, {inode for _, inode in present})
            if identity in present
        ]
        if not os.path.lexists(given) and (_identity(given.parent), given.name) in absent:
            clashes.append(absent[_identity(given.parent), given.name])
        for name, path in clashes:
            raise error(
                f"{name} '{path}' is {what} itself, or lies in it",
                expected="a file that is not read by the same command",
                hint="choose another name; inputs are never written to",
            )
        if isinstance(source, InputFolder):
            _check_no_future_input(what, source, homes, error)


def _check_no_future_input(
    what: str,
    source: InputFolder,
    homes: dict[_Identity, list[tuple[str, Path]]],
    error: type[UserError],
) -> None:
    identity = _identity(source.path)
    for name, path in homes.get(identity, []) if identity is not None else []:
        reached = source.below or _identity(path.parent) == identity
        if reached and _is_read(path.name, source):
            raise error(
                f"{name} '{path}' would lie among the files of {what}, '{source.path}', and be "
                "read as one of them the next time",
                expected="a place outside of the inputs",
                hint="choose another folder",
            )


def _identity(path: Path) -> _Identity | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _folders_above(path: Path) -> Iterator[_Identity]:
    for folder in Path(os.path.realpath(path.parent) + "/x").parents:
        if (identity := _identity(folder)) is not None:
            yield identity


def _files_of(source: Path | InputFolder, inodes: Collection[int]) -> Iterator[_Identity]:
    """The input's file; of a folder the files that are read and may have one of the inodes."""
    path = source.path if isinstance(source, InputFolder) else Path(source)
    if not os.path.isdir(path):
        if (identity := _identity(path)) is not None:
            yield identity
        return
    pending = [str(path)] if inodes else []
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not isinstance(source, InputFolder) or source.below:
                            pending.append(entry.path)
                        continue
                    if isinstance(source, InputFolder) and not _is_read(entry.name, source):
                        continue
                    candidate = entry.is_symlink() or entry.inode() in inodes
                    if candidate and (identity := _identity(Path(entry.path))) is not None:
                        yield identity
        except OSError:
            continue  # its reader will say what is wrong


def _is_read(name: str, folder: InputFolder) -> bool:
    return Path(name).suffix.lower() in folder.suffixes
