"""Weights, their cards, and a training's checkpoint.

With a card, the file's hash is known: other weights that are accepted are silently wrong. Without
one (`--init`), safetensors have no checksum: another finite number is another weight, one that is
not finite is silently wrong. A checkpoint is a zip file with checksums: what resumes from a
damaged one and gives other weights is silently wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate, training
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_FILE, _CARD = "lmfn.safetensors", "lmfn.card.json"
_WAYS = ("init", "init", "average", "card", "card", "checkpoint", "export")


class WeightsKind(Kind):
    """See the module."""

    name = "weights"
    imports = ("numpy", "cv2", "torch", "safetensors.torch")

    def make(self) -> None:
        training.make(self.corpus, trained=True)

    def measure(self, sandbox: Sandbox) -> None:
        run = self.corpus / "run"
        self.whole = (run / _FILE).read_bytes()
        self.card = json.loads((run / _CARD).read_bytes())
        self.checkpoint = (run / "checkpoint.pt").read_bytes()
        self.sound = {}
        for way in ("init", "average", "checkpoint"):

            def attack(work: Path, way: str = way) -> Attack:
                self._write(work)
                return self._command(work, way, "nothing")

            outcome = corpus.sound_run(way, attack, sandbox)
            self.sound[way] = sandbox.call(_tensors, outcome)
        self.sound["card"] = self.sound["average"]

    def _write(
        self, work: Path, weights: bytes | None = None, card: bytes | None = None,
        checkpoint: bytes | None = None,
    ) -> None:  # fmt: skip
        (work / _FILE).write_bytes(self.whole if weights is None else weights)
        (work / _CARD).write_bytes(json.dumps(self.card).encode() if card is None else card)
        (work / "run").mkdir()
        self.resumed = self.checkpoint if checkpoint is None else checkpoint

    def attack(self, rng: random.Random, work: Path) -> Attack:
        way = rng.choice(_WAYS)
        if way == "card":
            card, fed, _ = mutate.document(self.card, rng)
            self._write(work, card=card)
        elif way == "checkpoint":
            data, fed = mutate.damage(self.checkpoint, rng)
            self._write(work, checkpoint=data)
        else:
            data, fed = _weights(self.whole, rng)
            while way == "export" and data == self.whole:  # an export of sound ones takes a minute
                data, fed = _weights(self.whole, rng)
            self._write(work, data)
            if rng.random() < 0.03:
                (work / _FILE).unlink()
                fed = f"a {corpus.odd_file(rng, work / _FILE)}"
        return self._command(work, way, f"{way}: {fed}", lambda outcome: self._judge(outcome, way))

    def _command(self, work: Path, way: str, fed: str, judge: Any = None) -> Attack:
        data = str(self.corpus / "pack.npz")
        if way in ("average", "card"):
            other = str(self.corpus / "run" / _FILE)
            words = ["average", _FILE, other, "--data", data, "--out", "mean.safetensors"]
            return Attack("train", words, fed, judge, ("mean.safetensors", "mean.card.json"))
        if way == "export":
            words = ["lmfn", "--weights", _FILE, "--out", "m.onnx"]
            return Attack("export", words, fed, judge, ("m.onnx", "m.card.json"))
        corpus.link(self.corpus / "recipe.toml", work / "recipe.toml")
        words = ["recipe.toml", "--data", data, "--out", "run", *training.WORDS, "0"]
        if way == "init":
            words += ["--init", _FILE]
        else:
            (work / "run" / "checkpoint.pt").write_bytes(self.resumed)
        return Attack("train", words, fed, judge, outputs=("run",))

    def _judge(self, outcome: Outcome, way: str) -> Verdict:
        if way == "export":
            return SILENT, "exported though the hash is not the card's"
        found = _tensors(outcome)
        if found == self.sound[way]:
            return EQUAL, ""
        if way == "init":
            return (SILENT, "a weight is not finite") if not _finite(outcome) else (CHANGED, "")
        if way == "checkpoint":
            path = outcome.work / "run" / "checkpoint.pt"
            if not zipfile.is_zipfile(path) or zipfile.ZipFile(path).testzip():
                return SILENT, "the checkpoint's checksums are wrong, and the weights are others"
            return (SILENT, "other weights from a damaged checkpoint")
        return SILENT, "other weights than those that the card has the hash of"


def _tensors(outcome: Outcome) -> dict[str, str]:
    """The hash of each tensor of the result."""
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in _load(outcome).items()
    }


def _load(outcome: Outcome) -> Any:
    import safetensors.torch

    names = ("mean.safetensors", f"run/{_FILE}")
    (path,) = (outcome.work / name for name in names if (outcome.work / name).exists())
    return safetensors.torch.load_file(str(path))


def _finite(outcome: Outcome) -> bool:
    import torch

    return all(bool(torch.isfinite(tensor).all()) for tensor in _load(outcome).values())


def _weights(data: bytes, rng: random.Random) -> mutate.Damage:
    how = rng.random()
    if how < 0.4:
        return mutate.damage(data, rng)
    length = int.from_bytes(data[:8], "little")
    header, payload = data[8 : 8 + length], data[8 + length :]
    if how < 0.8:
        changed, what, _ = mutate.document(json.loads(header), rng)
        return struct.pack("<Q", len(changed)) + changed + payload, what
    if how < 0.9:
        number = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))
        return struct.pack("<Q", number) + data[8:], f"says that its header has {number} bytes"
    value = rng.choice((float("nan"), float("inf"), -float("inf"), 3e38))
    at = 4 * rng.randrange(len(payload) // 4)
    changed = payload[:at] + struct.pack("<f", value) + payload[at + 4 :]
    return data[: 8 + length] + changed, f"holds {value}"


KIND = WeightsKind
