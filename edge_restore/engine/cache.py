"""Engines that were built before, found by what they were built from.

An engine's key is a hash over everything that its content depends on, so a changed model, library
version or kernel is another engine, and nothing in the cache is ever wrong, only unused. What has
not been used for longest goes when the folder grows beyond its limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_restore.engine.lock import locked
from edge_restore.engine.manifest import EngineError, EngineManifest, manifest_path, read_manifest
from edge_restore.errors import OptionError, SinkError

SUFFIX = ".engine"
RUNTIME_CACHE_SUFFIX = ".runtime_cache"
DEFAULT_LIMIT = 2 << 30
WAIT_SECONDS = 600.0

_ABANDONED_SECONDS = 3600.0
"""A temporary file this old was left by a process that was killed while it wrote."""


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/edge-restore/engines``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "edge-restore" / "engines"


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
                f"the cache's limit is {limit} bytes", expected="0 or more", mend="leave it out"
            )
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit, self.wait_seconds = limit, wait_seconds
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(
                f"the cache folder '{self.folder}' cannot be made: {error.strerror}",
                expected="a folder for engines",
                mend="choose another one with --cache",
            ) from error

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
        """What is in the cache, last used first."""
        # A leading dot is a file that is being written.
        found = [self._entry(path) for path in self.folder.glob(f"[!.]*{SUFFIX}")]
        kept = [entry for entry in found if entry is not None]
        return sorted(kept, key=lambda entry: (-entry.used, entry.engine.name))

    def prune(self, limit: int | None = None, *, keep: Path | None = None) -> list[Entry]:
        """Remove what was not used for longest until the rest fits into the limit.

        Also removed: engines that cannot be trusted, manifests without an engine, and what killed
        processes left half-written. An engine that is being built is left alone.

        Args:
            limit: bytes; the cache's own by default. 0 removes everything.
            keep: an engine that stays in any case.

        Returns:
            The engines that were removed.
        """
        limit = self.limit if limit is None else limit
        removed, total = [], 0
        for entry in self.entries():
            total += entry.bytes
            wanted = entry.manifest is not None and total <= limit
            if (wanted or entry.engine == keep) or self._is_being_built(entry.engine):
                continue
            total -= entry.bytes
            self._remove(entry.engine)
            removed.append(entry)
        self._sweep()
        return removed

    def _entry(self, engine: Path) -> Entry | None:
        try:
            status = engine.lstat()
            size = status.st_size + sum(f.lstat().st_size for f in _beside(engine) if f.exists())
        except FileNotFoundError:
            return None  # pruned by another process in this moment
        try:
            return Entry(engine, size, status.st_mtime, read_manifest(engine))
        except EngineError as error:
            return Entry(engine, size, status.st_mtime, None, error.found)

    def _is_being_built(self, engine: Path) -> bool:
        return engine.with_suffix(".lock").exists()

    def _remove(self, engine: Path) -> None:
        for path in (engine, *_beside(engine)):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        old = time.time() - _ABANDONED_SECONDS
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                abandoned = path.name.startswith(".") and path.lstat().st_mtime < old
                engine = path.name.partition(".")[0] + SUFFIX
                belongs = path.suffix in (".json", RUNTIME_CACHE_SUFFIX)
                orphan = belongs and not (self.folder / engine).exists()
                if abandoned or (orphan and path.lstat().st_mtime < old):
                    path.unlink()


def layers_path(engine: Path) -> Path:
    """Where the engine inspector's JSON lies, when there is one."""
    return engine.with_suffix(".layers.json")


def _beside(engine: Path) -> tuple[Path, ...]:
    """The files that belong to an engine; the last is what TensorRT-RTX compiled when it ran."""
    return manifest_path(engine), layers_path(engine), engine.with_suffix(RUNTIME_CACHE_SUFFIX)
