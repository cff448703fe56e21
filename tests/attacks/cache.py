"""Caches of engines: what `edge-restore engines` lists and what `--prune` removes.

Silently wrong is

- a file that is not the cache's own that is changed or gone,
- a sound engine that is not listed because of a bad one beside it, and
- an engine that is listed as usable though its manifest is not sound.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import EQUAL, SILENT, UNCLEAN, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox, snapshot

_FOREIGN = (
    ".env", "package.json", "notes.txt", ".git", "photo.engine.jpg", "engine", "mine.json",
    "my.engine", "model.manifest.json", "x.runtime_cache", ".hidden.engine", "build.lock",
    "svdn.layers.json", "a.tmp", ".bashrc", "Документ.json", "svdn-0123456789abcdef01234567.txt",
)  # fmt: skip
_SOUND = "svdn-0123456789abcdef01234567.engine"


class CacheKind(Kind):
    """See the module."""

    name = "cache"
    imports = ("numpy",)
    manifest: Any = None
    engine = b""

    def make(self) -> None:
        from tests.edge_restore.engine.manifests import write_engine

        write_engine(self.corpus)

    def measure(self, sandbox: Sandbox) -> None:
        self.engine = (self.corpus / "svdn.engine").read_bytes()
        self.manifest = json.loads((self.corpus / "svdn.manifest.json").read_bytes())
        corpus.sound_run(self.name, self._sound, sandbox)

    def _sound(self, work: Path) -> Attack:
        made = self._cache(work)
        self._entry(made, _SOUND)
        return Attack(
            "edge-restore", ["engines", "--cache", "P", "--json"], "nothing", outputs=("P",)
        )

    def _cache(self, work: Path) -> Path:
        """A folder that the cache itself made."""
        folder = work / "P"
        from edge_restore.engine.cache import EngineCache

        EngineCache(folder)
        return folder

    def _entry(self, folder: Path, name: str, manifest: bytes | None = None) -> None:
        (folder / name).write_bytes(self.engine)
        document = {**self.manifest, "engine": {**self.manifest["engine"], "file": name}}
        data = json.dumps(document).encode() if manifest is None else manifest
        path = (folder / name).with_suffix(".manifest.json")
        path.write_bytes(data)
        for one in (folder / name, path):
            one.chmod(0o644)

    def attack(self, rng: random.Random, work: Path) -> Attack:
        fed = []
        if rng.random() < 0.5:
            folder = self._cache(work)
        else:
            folder = work / "P"
            folder.mkdir(mode=0o755)
            fed.append("a folder of the user's")
        sound = rng.random() < 0.7
        if sound:
            self._entry(folder, _SOUND)
        for number in range(rng.randint(0, 3)):
            name = f"svdn-{number}{'f' * 23}.engine"
            document = {**self.manifest, "engine": {**self.manifest["engine"], "file": name}}
            data, what, _ = mutate.document(document, rng)
            self._entry(folder, name, data)
            fed.append(f"a manifest: {what}")
            if rng.random() < 0.2:
                (folder / name).unlink()
                fed.append(f"as an engine a {corpus.odd_file(rng, folder / name)}")
        foreign = rng.sample(_FOREIGN, rng.randint(1, 5))
        for name in foreign:
            if rng.random() < 0.2:
                (folder / name).mkdir()
                (folder / name / "kept").write_text("the user's")
            else:
                (folder / name).write_text("the user's")
        fed.append(f"beside {', '.join(foreign)}")
        old = time.time() - rng.choice((0, 7200, 10**9))
        for path in folder.iterdir():
            if rng.random() < 0.8 and not path.is_symlink():
                os.utime(path, (old, old))
        prune = rng.random() < 0.7
        words = ["engines", "--cache", "P", "--json"]
        if prune:
            words += ["--prune", *rng.choice(([], ["--limit", "0"], ["--limit", "1"]))]
        kept = {
            name: what for name, what in snapshot(folder).items() if name.split("/")[0] in foreign
        }

        def inspect(outcome: Outcome) -> Verdict | None:
            after = snapshot(outcome.work / "P")
            for name, what in kept.items():
                if after.get(name) != what:
                    return UNCLEAN, f"the user's '{name}' is changed or gone"
            if outcome.code == 2 and sound:
                return SILENT, f"one bad file hides the others: {outcome.err.strip()[:80]}"
            return None

        def judge(outcome: Outcome) -> Verdict:
            listed = {entry["file"]: entry for entry in json.loads(outcome.out)["engines"]}
            if sound and not prune and not listed.get(_SOUND, {}).get("usable"):
                return SILENT, "the sound engine is not listed as usable"
            for name, entry in listed.items():
                if entry["usable"] and name != _SOUND:
                    problem = self._unsound(outcome.work / "P", name)
                    if problem:
                        return SILENT, f"'{name}' is listed as usable: {problem}"
            return EQUAL, ""

        return Attack("edge-restore", words, "; ".join(fed), judge, outputs=("P",), inspect=inspect)

    def _unsound(self, folder: Path, name: str) -> str:
        path = (folder / name).with_suffix(".manifest.json")
        try:
            document = json.loads(path.read_bytes())
        except ValueError as error:
            return str(error)
        if document.keys() != self.manifest.keys():
            return "it has other fields"
        if document["engine"]["file"] != name:
            return "its manifest is another engine's"
        return ""


KIND = CacheKind
