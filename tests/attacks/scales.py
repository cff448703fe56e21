"""Scales files: what `calibration quantise --scales` makes of one.

A scales file has no checksum: another positive scale is another quantization. Silently wrong is a
graph that differs from the sound one where a scale is none in float32 (zero, infinite, not a
number), or where the file says what cannot be: a share beyond 1, other weights, a layer that is not
there.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class ScalesKind(Kind):
    """See the module."""

    name = "scales"
    imports = ("numpy", "cv2", "onnx", "torch")
    document: Any = None
    sound = ""

    def make(self) -> None:
        from calibration.__main__ import main
        from calibration.calibration_set import CalibrationSet
        from tests.edge_restore.clips import picture

        path = corpus.quantisable_model(self.corpus)
        frames = [(f"{i}.png", picture(i * 9, 48, 64)) for i in range(4)]
        CalibrationSet.of(frames).save(self.corpus / "set.npz")
        words = ["quantise", str(path), "--frames", str(self.corpus / "set.npz")]
        words += ["--out", str(self.corpus / "q.onnx"), "--scales-out", str(self.corpus / "s.json")]
        if main(words):
            raise RuntimeError("no scales could be made")

    def measure(self, sandbox: Sandbox) -> None:
        self.document = json.loads((self.corpus / "s.json").read_bytes())

        def attack(work: Path) -> Attack:
            (work / "s.json").write_text(json.dumps(self.document))
            return self._command(work, "nothing")

        self.sound = _digest(corpus.sound_run(self.name, attack, sandbox))

    def attack(self, rng: random.Random, work: Path) -> Attack:
        if rng.random() < 0.02:
            fed = f"a {corpus.odd_file(rng, work / 's.json')}"
            return self._command(work, fed, lambda _: (SILENT, "read from no plain file"))
        data, fed, _ = mutate.document(self.document, rng)
        if rng.random() < 0.15:
            layer = rng.choice(list(self.document["layers"]))
            value = rng.choice((1e-46, 1e39, 1e300, 5e-324, 1e-30, 1e30, 10**400, -1e-3, True))
            data = mutate.encoded(mutate.put(self.document, ("layers", layer), value))
            fed = f"the scale of {layer} is {value!r:.20}"
        (work / "s.json").write_bytes(data)
        return self._command(work, fed, self._judge)

    def _command(self, work: Path, fed: str, judge: Any = None) -> Attack:
        for name in ("small.onnx", "small.card.json"):
            corpus.link(self.corpus / name, work / name)
        words = ["quantise", "small.onnx", "--scales", "s.json", "--out", "q.onnx"]
        return Attack("calibration", words, fed, judge, outputs=("q.onnx", "q.card.json"))

    def _judge(self, outcome: Outcome) -> Verdict:
        try:
            found = json.loads((outcome.work / "s.json").read_bytes())
        except ValueError as error:
            return SILENT, f"Python's own reader refuses it: {error}"
        if problem := _impossible(found, self.document):
            return SILENT, problem
        return (EQUAL, "") if _digest(outcome) == self.sound else (CHANGED, "")


def _impossible(found: Any, sound: Any) -> str:
    for key in ("network", "weights_sha256"):
        if found[key] != sound[key]:
            return f"{key} is another network's"
    for layer, scale in found["layers"].items():
        if layer not in sound["layers"]:
            return f"there is no layer '{layer:.40}'"
        try:
            (single,) = struct.unpack("<f", struct.pack("<f", scale))
        except OverflowError:
            single = math.inf
        if isinstance(scale, bool) or not 1.2e-38 < single < math.inf:
            return f"the scale of {layer} is {scale!r:.40}"
    if set(found["skips"]) - set(sound["skips"]):
        return "there is no such skip"
    if not 0 <= found["macs_share"] <= 1:
        return f"a share of {found['macs_share']}"
    if not 1 <= found["frames"] < 2**31 or isinstance(found["frames"], bool):
        return f"{found['frames']!r:.30} frames"
    return ""


def _digest(outcome: Outcome) -> str:
    return hashlib.sha256((outcome.work / "q.onnx").read_bytes()).hexdigest()


KIND = ScalesKind
