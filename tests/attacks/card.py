"""Cards of models: what `edge-restore run` makes of a model whose card was changed.

A card carries its model's hash, and no hash of its own. So a changed field that nothing checks (the
license, a score) is no fault, as long as the pictures are the sound card's. Whatever changes the
pictures or lets a file run whose hash is another's is silently wrong.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class CardKind(Kind):
    """See the module."""

    name = "card"
    imports = ("numpy", "cv2", "av", "onnx")
    sound: Any = None
    document: Any = None

    def make(self) -> None:
        from tests.edge_restore.onnx_models import write_model

        write_model(self.corpus)
        corpus.clip(self.corpus / "clip.mkv", frames=3, audio="")

    def measure(self, sandbox: Sandbox) -> None:
        self.document = json.loads((self.corpus / "small.card.json").read_bytes())
        corpus.sound_run("listing", self._sound_layers, sandbox)
        outcome = corpus.sound_run(self.name, self._sound_run, sandbox)
        self.sound = sandbox.call(corpus.video_facts, outcome.work / "o.mp4")

    def attack(self, rng: random.Random, work: Path) -> Attack:
        corpus.link(self.corpus / "small.onnx", work / "small.onnx")
        data, fed, _ = mutate.document(self.document, rng)
        name = "small.card.json"
        if rng.random() < 0.03:
            fed = f"the card is a {corpus.odd_file(rng, work / name)}"
        else:
            (work / name).write_bytes(data)
        if rng.random() < 0.25:
            command = ["layers", "small.onnx"]
            return Attack("calibration", command, fed, lambda _: (EQUAL, "only listed"))
        return self._run(work, fed)

    def _run(self, work: Path, fed: str) -> Attack:
        corpus.link(self.corpus / "clip.mkv", work / "clip.mkv")
        command = ["run", "clip.mkv", "--out", "o.mp4", "--model", "small.onnx"]
        command += ["--backend", "onnxruntime", "--threads", "1"]
        return Attack("edge-restore", command, fed, self._judge, outputs=("o.mp4",))

    def _sound_layers(self, work: Path) -> Attack:
        for name in ("small.onnx", "small.card.json"):
            corpus.link(self.corpus / name, work / name)
        return Attack("calibration", ["layers", "small.onnx"], "nothing")

    def _sound_run(self, work: Path) -> Attack:
        self._sound_layers(work)
        return self._run(work, "nothing")

    def _judge(self, outcome: Outcome) -> Verdict:
        found = corpus.video_facts(outcome.work / "o.mp4")
        if found == self.sound:
            return EQUAL, ""
        return SILENT, "the pictures are not those that the sound card gives"


KIND = CardKind
