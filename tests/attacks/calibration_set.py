"""Calibration sets: what `calibration quantise --frames` makes of one.

Every frame has its hash in the header. So whatever is accepted has to give the sound set's scales;
other scales are silently wrong, apart from a set in which fewer frames are listed, and there.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class SetKind(Kind):
    """See the module."""

    name = "calibration_set"
    imports = ("numpy", "cv2", "onnx", "torch")
    header: Any = None
    sound: Any = None

    def make(self) -> None:
        from calibration.calibration_set import CalibrationSet
        from tests.edge_restore.clips import picture

        corpus.quantisable_model(self.corpus)
        frames = [(f"{i}.png", picture(i * 9, 48, 64)) for i in range(5)]
        CalibrationSet.of(frames).save(self.corpus / "set.npz")

    def measure(self, sandbox: Sandbox) -> None:
        import numpy as np

        self.whole = (self.corpus / "set.npz").read_bytes()
        with np.load(self.corpus / "set.npz") as archive:
            self.arrays = dict(archive)
        self.header = json.loads(bytes(self.arrays["header"]))

        def attack(work: Path) -> Attack:
            (work / "set.npz").write_bytes(self.whole)
            return self._command(work, "nothing")

        outcome = corpus.sound_run(self.name, attack, sandbox)
        self.sound = json.loads((outcome.work / "s.json").read_bytes())

    def attack(self, rng: random.Random, work: Path) -> Attack:
        if rng.random() < 0.02:
            fed = f"a {corpus.odd_file(rng, work / 'set.npz')}"
            return self._command(work, fed, lambda _: (SILENT, "read from no plain file"))
        how = rng.random()
        if how < 0.4:
            data, fed = mutate.damage(self.whole, rng)
        else:
            data, fed = corpus.archive_damage(
                self.arrays, rng, lambda: mutate.document(self.header, rng)[:2]
            )
        (work / "set.npz").write_bytes(data)
        return self._command(work, fed, self._judge)

    def _command(self, work: Path, fed: str, judge: Any = None) -> Attack:
        for name in ("small.onnx", "small.card.json"):
            corpus.link(self.corpus / name, work / name)
        words = ["quantise", "small.onnx", "--frames", "set.npz", "--out", "q.onnx"]
        words += ["--scales-out", "s.json", "--method", "minmax"]
        outputs = ("q.onnx", "q.card.json", "s.json")
        return Attack("calibration", words, fed, judge, outputs=outputs)

    def _judge(self, outcome: Outcome) -> Verdict:
        found = json.loads((outcome.work / "s.json").read_bytes())
        if found == self.sound:
            return EQUAL, ""
        fewer = found["frames"] < self.sound["frames"]
        return (CHANGED, "") if fewer else (SILENT, "other scales")


KIND = SetKind
