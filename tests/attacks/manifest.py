"""Manifests of engines: what is accepted before TensorRT would see the engine.

An engine is code. So whatever is changed in the engine's bytes has to be refused, and so does a
manifest that says another library, GPU, size, precision or hash. A field that nothing depends on
(the command, the driver) may be changed; then the very same bytes are given.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_DECIDES = (
    "schema", "engine", "onnx", "kernel_sha256", "flavour", "flavour_version", "targets", "height",
    "width", "precision",
)  # fmt: skip


class ManifestKind(Kind):
    """See the module."""

    name = "manifest"
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
        self._write(work, self.engine, json.dumps(self.manifest).encode())
        return Attack("load-engine", ["svdn.engine"], "nothing")

    def attack(self, rng: random.Random, work: Path) -> Attack:
        how = rng.random()
        if how < 0.6:
            data, fed, at = mutate.document(self.manifest, rng)
            self._write(work, self.engine, data)
            judge = self._judge(at)
        elif how < 0.8:
            data, fed = mutate.damage(self.engine, rng)
            while data == self.engine:
                data, fed = mutate.damage(self.engine, rng)
            self._write(work, data, json.dumps(self.manifest).encode())
            judge = _refuse("another engine than the manifest's")
        else:
            self._write(work, self.engine, json.dumps(self.manifest).encode())
            fed = _strange(rng, work)
            judge = _refuse("files that others can change, or that are none")
        return Attack("load-engine", ["svdn.engine"], fed, judge)

    def _write(self, work: Path, engine: bytes, manifest: bytes) -> None:
        for name, content in (("svdn.engine", engine), ("svdn.manifest.json", manifest)):
            (work / name).write_bytes(content)
            (work / name).chmod(0o644)

    def _judge(self, at: tuple[Any, ...] | None) -> Any:
        sound = self.manifest

        def judge(outcome: Outcome) -> Verdict:
            if outcome.out.strip() != hashlib.sha256(self.engine).hexdigest():
                return SILENT, "other bytes than the sound engine's"
            found = json.loads((outcome.work / "svdn.manifest.json").read_bytes())
            # The graph is known by its hash; another name of a file is as good.
            found["onnx"]["file"] = sound["onnx"]["file"]
            other = [key for key in _DECIDES if found.get(key) != sound[key]]
            if other == ["engine"] and {**found["engine"], "bytes": 0} == {
                **sound["engine"],
                "bytes": 0,
            }:
                return SILENT, "another number of bytes"
            return (SILENT, f"{other} differ") if other else (EQUAL, "")

        return judge


def _refuse(what: str) -> Any:
    return lambda _: (SILENT, f"accepted: {what}")


def _strange(rng: random.Random, work: Path) -> str:
    """The sound bytes in files that are not to be trusted; what is strange about them."""
    name = rng.choice(("svdn.engine", "svdn.manifest.json"))
    path = work / name
    how = rng.randrange(6)
    if how == 0:
        mode = rng.choice((0o666, 0o664, 0o777, 0o646, 0o662))
        path.chmod(mode)
        return f"{name} has the mode {mode:o}"
    if how == 1:
        path.rename(work / "real")
        path.symlink_to("real")
        return f"{name} is a link"
    if how == 2:
        work.chmod(rng.choice((0o777, 0o757)))
        return "others can write to the folder"
    if how == 3 and os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        return f"{name} is somebody else's"
    path.unlink()
    if how == 4:
        return f"{name} is missing"
    return f"{name} is a {corpus.odd_file(rng, path)}"


KIND = ManifestKind
