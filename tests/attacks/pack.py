"""Training packs: what `python -m train` makes of one.

A pack is a zip file, so every picture has a checksum. Silently wrong is a pack that is accepted
though Python's zipfile finds a wrong checksum, or numpy refuses a member. Another picture with its
checksum made anew is another pack.
"""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate, training
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class PackKind(Kind):
    """See the module."""

    name = "pack"
    imports = ("numpy", "cv2", "torch", "safetensors.torch")

    def make(self) -> None:
        training.make(self.corpus)

    def measure(self, sandbox: Sandbox) -> None:
        import numpy as np

        self.whole = (self.corpus / "pack.npz").read_bytes()
        with np.load(self.corpus / "pack.npz") as archive:
            self.arrays = dict(archive)
        self.header = json.loads(bytes(self.arrays["header"]))
        self.sound = sandbox.call(_pictures, self.corpus / "pack.npz")

        def attack(work: Path) -> Attack:
            (work / "pack.npz").write_bytes(self.whole)
            return self._command(work, "nothing")

        corpus.sound_run(self.name, attack, sandbox)

    def attack(self, rng: random.Random, work: Path) -> Attack:
        if rng.random() < 0.02:
            fed = f"a {corpus.odd_file(rng, work / 'pack.npz')}"
            return self._command(work, fed, lambda _: (SILENT, "read from no plain file"))
        if rng.random() < 0.5:
            data, fed = mutate.damage(self.whole, rng)
        else:
            data, fed = corpus.archive_damage(
                self.arrays, rng, lambda: mutate.document(self.header, rng)[:2]
            )
        (work / "pack.npz").write_bytes(data)
        return self._command(work, fed, self._judge)

    def _command(self, work: Path, fed: str, judge: Any = None) -> Attack:
        corpus.link(self.corpus / "recipe.toml", work / "recipe.toml")
        words = ["recipe.toml", "--data", "pack.npz", "--out", "run", *training.WORDS, "0"]
        return Attack("train", words, fed, judge, outputs=("run",))

    def _judge(self, outcome: Outcome) -> Verdict:
        path = outcome.work / "pack.npz"
        try:
            with zipfile.ZipFile(path) as archive:
                if wrong := archive.testzip():
                    return SILENT, f"the checksum of {wrong} is wrong"
            found = _pictures(path)
        except Exception as error:  # whatever a reader says of it
            return SILENT, f"numpy refuses it: {error!r:.100}"
        return (EQUAL if found == self.sound else CHANGED), ""


def _pictures(path: Path) -> dict[str, str]:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {
            name: hashlib.sha256(archive[name].tobytes()).hexdigest()
            for name in archive
            if name != "header"
        }


KIND = PackKind
