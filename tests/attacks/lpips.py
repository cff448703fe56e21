"""Weights of LPIPS: a safetensors file that `edge-restore evaluate --lpips` reads.

The format has no checksum, so another finite number is another weight. Silently wrong is a
distance that differs from the sound file's where the file is shorter, a tensor overlaps another or
reaches beyond the end, the sizes contradict one another, or a weight is not finite; and any
distance that is not finite.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox


class LpipsKind(Kind):
    """See the module."""

    name = "lpips"
    imports = ("numpy", "cv2", "av", "onnx")
    header: Any = None
    sound: Any = None

    def make(self) -> None:
        import cv2
        import numpy as np

        from edge_restore.evaluation.lpips import shapes
        from tests.edge_restore.onnx_models import write_model

        write_model(self.corpus)
        random = np.random.default_rng(0)
        for name in ("blurred.png", "sharp.png"):
            cv2.imwrite(str(self.corpus / name), random.integers(0, 255, (16, 16, 3), np.uint8))
        header, at = {}, 0
        with (self.corpus / "payload").open("wb") as stream:
            for name, shape in shapes().items():
                size = 2 * math.prod(shape)
                header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
                at += size
                scale = 0.5 / math.sqrt(math.prod(shape[1:]) or 1)
                values = np.abs(random.standard_normal(math.prod(shape), np.float32)) * scale
                stream.write(values.astype(np.float16).tobytes())
        (self.corpus / "header.json").write_text(json.dumps(header))

    def measure(self, sandbox: Sandbox) -> None:
        self.header = json.loads((self.corpus / "header.json").read_bytes())
        self.size = (self.corpus / "payload").stat().st_size

        def attack(work: Path) -> Attack:
            self._write(work, json.dumps(self.header).encode())
            return self._command(work, "nothing")

        self.sound = _distance(corpus.sound_run(self.name, attack, sandbox))

    def attack(self, rng: random.Random, work: Path) -> Attack:
        plain = json.dumps(self.header).encode()
        how = rng.random()
        if how < 0.02:
            fed = f"a {corpus.odd_file(rng, work / 'w.safetensors')}"
            return self._command(work, fed, lambda _: (SILENT, "read from no plain file"))
        if how < 0.5:
            header, fed, _ = mutate.document(self.header, rng)
            self._write(work, header)
        elif how < 0.6:
            header, fed = mutate.damage(plain, rng)
            self._write(work, header)
        elif how < 0.7:
            length = rng.choice((0, 1, 2, len(plain) - 1, len(plain) + 1, 2**31, 2**63, 2**64 - 1))
            fed = f"says that its header has {length} bytes"
            self._write(work, plain, length)
        else:
            path = self._write(work, plain)
            fed = self._payload(path, 8 + len(plain), rng)
        return self._command(work, fed, self._judge)

    def _payload(self, path: Path, start: int, rng: random.Random) -> str:
        name = rng.choice(list(self.header))
        begin = start + self.header[name]["data_offsets"][0]
        how = rng.randrange(3)
        if how == 0:
            size = start + rng.randrange(self.size) if rng.random() < 0.5 else start + self.size - 1
            with path.open("r+b") as stream:
                stream.truncate(size)
            return f"cut to {size} bytes"
        if how == 1:
            value = rng.choice((math.nan, math.inf, -math.inf))
            with path.open("r+b") as stream:
                stream.seek(begin)
                stream.write(struct.pack("<e", value))
            return f"{name} holds {value}"
        with path.open("ab") as stream:
            stream.write(bytes(rng.choice((1, 2, 4096))))
        return "longer than it says"

    def _write(self, work: Path, header: bytes, length: int | None = None) -> Path:
        path = work / "w.safetensors"
        with path.open("wb") as stream, (self.corpus / "payload").open("rb") as payload:
            stream.write(struct.pack("<Q", len(header) if length is None else length) + header)
            shutil.copyfileobj(payload, stream, 1 << 22)
        return path

    def _command(self, work: Path, fed: str, judge: Any = None) -> Attack:
        for name in ("blurred.png", "sharp.png"):
            corpus.link(self.corpus / name, work / name)
        words = ["evaluate", "--blurred", "blurred.png", "--sharp", "sharp.png", "--json"]
        words += ["--lpips", "w.safetensors", "--model", str(self.corpus / "small.onnx")]
        words += ["--backend", "onnxruntime", "--threads", "1"]
        return Attack("edge-restore", words, fed, judge)

    def _judge(self, outcome: Outcome) -> Verdict:
        found = _distance(outcome)
        if found == self.sound:
            return EQUAL, ""
        if any(value is None or not math.isfinite(value) for value in found):
            return SILENT, f"the distances are {found}"
        problem = self._contradiction(outcome.work / "w.safetensors")
        return (SILENT, problem) if problem else (CHANGED, "")

    def _contradiction(self, path: Path) -> str:
        """What in the file cannot be, by the format's own rules."""
        import numpy as np

        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
            room = path.stat().st_size - 8 - length
            last = 0
            its = [entry for name, entry in header.items() if name != "__metadata__"]
            for entry in sorted(its, key=lambda entry: entry["data_offsets"][0]):
                begin, end = entry["data_offsets"]
                if begin < last:
                    return "two tensors overlap"
                if end > room:
                    return "a tensor reaches beyond the file"
                stream.seek(8 + length + begin)
                content = stream.read(end - begin)
                if entry["dtype"] == "F16" and not np.isfinite(np.frombuffer(content, "<f2")).all():
                    return "a weight is not finite"
                last = end
        return ""


def _distance(outcome: Outcome) -> Any:
    score = json.loads(outcome.out)["images"][0]
    return score["lpips_input"], score["lpips"]


KIND = LpipsKind
