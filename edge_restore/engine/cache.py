"""Engines that were built before, found by what they were built from.

An engine's key is a hash over everything that its content depends on, so a changed model, library
version or kernel is another engine, and nothing in the cache is ever wrong, only unused. What has
not been used for longest goes when the folder grows beyond its limit.

Only what is the cache's own is ever removed: a plain file whose name has the pattern that the cache
gives, and whose content says the same (for an engine, the manifest that names it), in a folder that
the cache has made. A marker file, which also tells programs that make backups to leave the folder
out, says that it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_restore.engine.manifest import EngineManifest, manifest_path, names_engine, read_manifest
from edge_restore.errors import OptionError, SinkError, UserError
from edge_restore.storage.files import atomic_path, is_temporary, open_input, remove_leftovers
from edge_restore.storage.lock import is_held, locked

SUFFIX = ".engine"
RUNTIME_CACHE_SUFFIX = ".runtime_cache"
DEFAULT_LIMIT = 2 << 30
WAIT_SECONDS = 600.0

MARKER = "CACHEDIR.TAG"
_MARK = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder was made by edge-restore, which keeps engines in it and removes them again.
# See https://bford.info/cachedir/
"""
"""The first line is the convention's, the second one is ours."""

_STEM = r"[\w-]{1,40}-[0-9a-f]{24}"
_ENGINE = re.compile(rf"{_STEM}\.engine")
_BESIDE = re.compile(rf"{_STEM}\.(manifest\.json|layers\.json|runtime_cache|lock)")
_TIMINGS = re.compile(r"(tensorrt|rtx)-\w+-sm_\d+\.timing")
_OLD_TEMPORARY = re.compile(
    rf"\.({_STEM}(\.manifest|\.layers)?|(tensorrt|rtx)-\w+-sm_\d+)\.[0-9a-f]{{8}}"
    r"\.(engine|json|runtime_cache|timing)"
)
"""What earlier versions called a file while they wrote it."""

_ABANDONED_SECONDS = 3600.0
"""A file this old that belongs to nothing was left by a process that was killed."""


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/edge-restore/engines``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else _home() / ".cache"
    return root / "edge-restore" / "engines"


def _home() -> Path:
    """The user's home; one below /tmp for a user whom the system does not know, as in containers.

    What is loaded from there is checked as everywhere: a folder that others can write is refused.
    """
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no entry among the users
        home = Path()
    return home if home.is_absolute() else Path("/tmp", f"edge-restore-{os.getuid()}")


def key(parts: Mapping[str, Any]) -> str:
    """The content's key: SHA-256 of the parts as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An engine in the cache.

    Attributes:
        engine: the engine's path.
        bytes: of all its files together.
        used: when it was built or last used, seconds since 1970.
        manifest: what it is, or None when that cannot be read or trusted.
        problem: why there is no manifest; empty when there is one.
    """

    engine: Path
    bytes: int
    used: float
    manifest: EngineManifest | None
    problem: str = ""


class EngineCache:
    """A folder of engines.

    A folder that is not the cache's own, because it held something else before, is used like any
    other; only nothing in it is ever removed.

    Attributes:
        is_own: whether the cache has made the folder, or found it empty.

    Args:
        folder: created, for the user alone, when missing.
        limit: bytes that the engines may take together.
        wait_seconds: how long to wait for another process that builds the same engine.

    Raises:
        SinkError: the folder cannot be made.
        OptionError: the limit is negative.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        if limit < 0:
            raise OptionError(
                f"the cache's limit is {limit} bytes", expected="0 or more", hint="leave it out"
            )
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit, self.wait_seconds = limit, wait_seconds
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(
                f"the cache folder '{self.folder}' cannot be made: {error.strerror}",
                expected="a folder for engines",
                hint="choose another one with --cache",
            ) from error
        self.is_own = self._is_marked() or self._mark()

    def path(self, name: str, content_key: str) -> Path:
        """Where the engine with this key lies; `name` is for people who look into the folder."""
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:40]
        return self.folder / f"{plain}-{content_key[:24]}{SUFFIX}"

    @contextmanager
    def building(self, engine: Path) -> Iterator[None]:
        """Be the only process that builds this engine.

        Raises:
            BackendError: another process is still at it after `wait_seconds`.
        """
        with locked(engine.with_suffix(".lock"), wait_seconds=self.wait_seconds):
            yield

    def touch(self, engine: Path) -> None:
        """Note that an engine was used now."""
        with contextlib.suppress(OSError):  # somebody else's cache, which root filled
            os.utime(engine)

    def entries(self) -> list[Entry]:
        """What is in the cache, last used first.

        Raises:
            SinkError: the folder cannot be read.
        """
        found = [self._entry(path) for path in self._files() if _ENGINE.fullmatch(path.name)]
        kept = [entry for entry in found if entry is not None]
        return sorted(kept, key=lambda entry: (-entry.used, entry.engine.name))

    def prune(self, limit: int | None = None, *, keep: Path | None = None) -> list[Entry]:
        """Remove what was not used for longest until the rest fits into the limit.

        Also removed: engines that cannot be trusted, manifests without an engine, and what killed
        processes left half-written. An engine that is being built is left alone, and so is one
        that no manifest names: whose it is cannot be told. In a folder that is not the cache's
        own nothing is removed.

        Args:
            limit: bytes; the cache's own by default. 0 removes everything.
            keep: an engine that stays in any case.

        Returns:
            The engines that were removed.

        Raises:
            SinkError: the folder cannot be read.
        """
        if not self.is_own:
            return []
        limit = self.limit if limit is None else limit
        removed, total = [], 0
        for entry in self.entries():
            if not names_engine(entry.engine):
                continue
            total += entry.bytes
            wanted = entry.manifest is not None and total <= limit
            if (wanted or entry.engine == keep) or is_held(entry.engine.with_suffix(".lock")):
                continue
            if self._remove(entry.engine):
                total -= entry.bytes
                removed.append(entry)
        self._sweep()
        return removed

    def _is_marked(self) -> bool:
        try:
            with open_input(self.folder / MARKER, "the marker") as file:
                return file.read(4096).decode("utf-8", "replace").startswith(_MARK)
        except (UserError, OSError):
            return False

    def _mark(self) -> bool:
        """Mark the folder as the cache's own if nothing else is in it; whether it is now.

        Caches that were made before there were markers hold engines alone.
        """
        try:
            own = all(
                stat.S_ISREG(path.lstat().st_mode) and _is_ours(path.name)
                for path in self.folder.iterdir()
            )
            if own:
                with atomic_path(self.folder / MARKER) as temporary:
                    temporary.write_text(_MARK, encoding="utf-8")
        except (UserError, OSError):  # somebody else's cache, which root filled
            return False
        return own

    def _files(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError as error:
            raise SinkError(
                f"the cache folder '{self.folder}' cannot be read: {error.strerror}",
                expected="a folder for engines",
                hint="choose another one with --cache",
            ) from error

    def _entry(self, engine: Path) -> Entry | None:
        try:
            status = engine.lstat()
            if not stat.S_ISREG(status.st_mode):
                return None
            size = status.st_size + sum(f.lstat().st_size for f in _beside(engine) if f.exists())
        except OSError:
            return None  # pruned by another process in this moment
        try:
            return Entry(engine, size, status.st_mtime, read_manifest(engine))
        except UserError as error:
            problem = error.found
        except (OSError, ValueError, RecursionError) as error:
            problem = f"its manifest cannot be read: {error}"
        return Entry(engine, size, status.st_mtime, None, problem)

    def _remove(self, engine: Path) -> bool:
        """Remove an engine, then what belongs to it; False if the system refuses."""
        for path in (engine, *_beside(engine)):
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _sweep(self) -> None:
        """Remove what killed processes left, when that can be told."""
        remove_leftovers(self.folder, always=True)
        old = time.time() - _ABANDONED_SECONDS
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_mtime >= old:
                    continue
                if _OLD_TEMPORARY.fullmatch(path.name):
                    path.unlink()
                elif _BESIDE.fullmatch(path.name) and path.name.endswith(".manifest.json"):
                    engine = path.with_name(path.name.removesuffix(".manifest.json") + SUFFIX)
                    if not os.path.lexists(engine) and names_engine(engine):
                        self._remove(engine)


def _is_ours(name: str) -> bool:
    patterns = (_ENGINE, _BESIDE, _TIMINGS, _OLD_TEMPORARY)
    return is_temporary(name) or any(pattern.fullmatch(name) for pattern in patterns)


def layers_path(engine: Path) -> Path:
    """Where the engine inspector's JSON lies, when there is one."""
    return engine.with_suffix(".layers.json")


def files_of(engine: Path) -> tuple[Path, ...]:
    """The engine and everything that may lie beside it."""
    return engine, *_beside(engine)


def _beside(engine: Path) -> tuple[Path, ...]:
    """The files that belong to an engine; the last is what TensorRT-RTX compiled when it ran."""
    return manifest_path(engine), layers_path(engine), engine.with_suffix(RUNTIME_CACHE_SUFFIX)
