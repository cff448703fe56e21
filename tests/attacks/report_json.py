"""Reports of `edge-restore bench`, read by `bench claims` and `bench compare`.

A report has no checksum: another positive time is another report. Silently wrong is what no report
can hold: a text for a number, a time that is not positive or not finite, a size of nothing, an
unknown way; where the tables that are printed differ from those of the sound report.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class ReportKind(Kind):
    """See the module."""

    name = "report_json"
    imports = ("numpy",)
    document: Any = None

    def make(self) -> None:
        run = {
            "network": "svdn", "model": "svdn.onnx", "model_sha256": "a" * 64,
            "backend": "onnxruntime-cpu", "precision": "fp32", "height": 360, "width": 640,
            "ways": {},
        }  # fmt: skip
        from edge_restore.bench.claims import WAYS

        rng = random.Random(1)
        for way in WAYS:
            rounds = [[round(10 + rng.random(), 4) for _ in range(8)] for _ in range(3)]
            run["ways"][way] = {"warm_up": 4, "settled": True, "rounds_ms": rounds}  # type: ignore[index]
        report = {
            "schema": "edge_restore.bench/1",
            "machine": {"cpu": "a processor", "cores": 2, "memory_mib": 4096, "gpus": []},
            "versions": {"numpy": "2"},
            "background": 0.01,
            "warnings": ["a warning"],
            "readings": {"clock": "3 GHz"},
            "peaks": {
                "name": "a processor", "source": "measured", "fp32": 1e11, "fp16": None,
                "int8": 4e11, "bandwidth": 2e10,
            },
            "runs": [run],
        }  # fmt: skip
        (self.corpus / "r.json").write_text(json.dumps(report))

    def measure(self, sandbox: Sandbox) -> None:
        self.document = json.loads((self.corpus / "r.json").read_bytes())
        self.sound = {}
        for action in ("claims", "compare"):

            def attack(work: Path, action: str = action) -> Attack:
                (work / "r.json").write_text(json.dumps(self.document))
                return self._command(work, action, "nothing")

            self.sound[action] = corpus.sound_run(action, attack, sandbox).out

    def attack(self, rng: random.Random, work: Path) -> Attack:
        action = "compare" if rng.random() < 0.2 else "claims"  # which takes a second
        if rng.random() < 0.03:
            return self._command(
                work, action, f"a {corpus.odd_file(rng, work / 'r.json')}",
                lambda _: (SILENT, "read from no plain file"),
            )  # fmt: skip
        data, fed, _ = mutate.document(self.document, rng)
        (work / "r.json").write_bytes(data)
        return self._command(work, action, fed, lambda outcome: self._judge(outcome, action))

    def _command(self, work: Path, action: str, fed: str, judge: Any = None) -> Attack:
        words = ["bench", "claims", "r.json"]
        if action == "compare":
            corpus.link(self.corpus / "r.json", work / "sound.json")
            words = ["bench", "compare", "r.json", "sound.json"]
        return Attack("edge-restore", words, fed, judge)

    def _judge(self, outcome: Outcome, action: str) -> Verdict:
        if outcome.out == self.sound[action]:
            return EQUAL, ""
        try:
            document = json.loads((outcome.work / "r.json").read_bytes())
        except ValueError as error:
            return SILENT, f"Python's own reader refuses it: {error}"
        problem = _impossible(document)
        return (SILENT, problem) if problem else (CHANGED, "")


def _impossible(document: Any) -> str:
    """What no report can hold; "" where it holds none of it."""
    for run in document["runs"]:
        for side in ("height", "width"):
            if (
                not isinstance(run[side], int)
                or isinstance(run[side], bool)
                or not 1 <= run[side] < 2**31
            ):
                return f"{side} is {run[side]!r:.40}"
        for text in ("network", "model", "backend", "precision"):
            if not isinstance(run[text], str) or not run[text]:
                return f"{text} is {run[text]!r:.40}"
        for way in run["ways"].values():
            for one in way["rounds_ms"]:
                if any(
                    isinstance(t, bool) or not math.isfinite(t) or not 0 < t < 1e12 for t in one
                ):
                    return f"the times are {one!r:.60}"
    for name, peak in (document.get("peaks") or {}).items():
        if name not in ("name", "source") and peak is not None and not 0 < peak < math.inf:
            return f"the peak {name} is {peak!r:.40}"
    return ""


KIND = ReportKind
