"""Pictures in every format, as `evaluate`, `collect`, `pack` and `blur` read them.

What each command makes of a picture is compared with what it made of the sound one: the scores, the
pack, the set of frames, the pair. Silently wrong is another result where

- bytes are missing at the end, or in the middle of a file whose header says how many there are,
- the file is a PNG, whose checksums cover everything,
- Pillow refuses to read the file to its end, or libjpeg says that it is corrupt, or
- a picture of a folder was left out and its name was not said.

A flipped bit in an entropy-coded or plain picture that Pillow reads too is another picture.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_FORMATS = (
    "rgb.png", "rgba.png", "grey.png", "palette.png", "deep.png", "interlaced.png", "rgb.jpg",
    "progressive.jpg", "grey.jpg", "rgb.bmp", "rgb.tif", "packed.tif", "lossy.webp",
    "lossless.webp",
)  # fmt: skip
_COMMANDS = ("evaluate", "evaluate", "evaluate", "collect", "pack", "blur")


class PictureKind(Kind):
    """See the module."""

    name = "picture"
    imports = ("numpy", "cv2", "av", "onnx")

    def make(self) -> None:
        import cv2
        import numpy as np

        from tests.edge_restore.onnx_models import write_model

        write_model(self.corpus)
        for seed in range(4):
            random = np.random.default_rng(seed)
            picture = np.full((200, 208, 3), 128, np.uint8)
            for _ in range(60):
                y, x = random.integers(0, 200), random.integers(0, 208)
                picture[y : y + 14, x : x + 10] = random.integers(0, 256, 3)
            cv2.imwrite(str(self.corpus / f"good{seed}.png"), picture)
        write = {
            "rgb.png": (picture, []),
            "rgba.png": (cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA), []),
            "grey.png": (picture[..., 0], []),
            "deep.png": (picture.astype(np.uint16) * 257, []),
            "rgb.jpg": (picture, [cv2.IMWRITE_JPEG_QUALITY, 90]),
            "progressive.jpg": (picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
            "grey.jpg": (picture[..., 0], []),
            "rgb.bmp": (picture, []),
            "rgb.tif": (picture, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
            "packed.tif": (picture, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
            "lossy.webp": (picture, [cv2.IMWRITE_WEBP_QUALITY, 80]),
            "lossless.webp": (picture, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        }
        for name, (pixels, options) in write.items():
            cv2.imwrite(str(self.corpus / name), pixels, options)
        (self.corpus / "palette.png").write_bytes(_palette_png(picture[..., 0]))
        (self.corpus / "interlaced.png").write_bytes(_interlaced_png())

    def measure(self, sandbox: Sandbox) -> None:
        self.content = {name: (self.corpus / name).read_bytes() for name in _FORMATS}
        self.sound: dict[tuple[str, str], Any] = {}
        for name in _FORMATS:
            for command in sorted(set(_COMMANDS)):

                def attack(work: Path, name: str = name, command: str = command) -> Attack:
                    return self._command(work, name, self.content[name], command, "nothing")

                outcome = corpus.sound_run(f"{name}-{command}", attack, sandbox)
                self.sound[name, command] = sandbox.call(_result, outcome, command)

    def attack(self, rng: random.Random, work: Path) -> Attack:
        name, command = rng.choice(_FORMATS), rng.choice(_COMMANDS)
        if rng.random() < 0.02:
            attack = self._command(work, name, None, command, "")
            attack.fed = f"{name} is a {corpus.odd_file(rng, next(_places(work, name)))}"
            attack.judge = lambda outcome: self._odd(outcome, name)
            return attack
        whole = self.content[name]
        data, fed = _damage(name, whole, rng)
        # Within a JPEG nothing says how long it is; its decoder notices, or nobody does.
        lost = len(data) < len(whole) and not (name.endswith(".jpg") and data.endswith(whole[-2:]))
        attack = self._command(work, name, data, command, f"{name}: {fed}")
        wrong = name.endswith(".png") and not _has_right_checksums(data)
        attack.judge = lambda outcome: self._judge(outcome, name, command, lost, wrong)
        return attack

    def _command(self, work: Path, name: str, data: bytes | None, command: str, fed: str) -> Attack:
        """The command with the picture `name` among sound ones where it takes a folder."""
        folder = work / "pictures"
        folder.mkdir()
        if data is not None:
            (folder / name).write_bytes(data)
        if command == "evaluate":
            corpus.link(self.corpus / "good3.png", work / "sharp.png")
            words = ["evaluate", "--blurred", f"pictures/{name}", "--sharp", "sharp.png", "--json"]
            words += ["--model", str(self.corpus / "small.onnx"), "--backend", "onnxruntime"]
            return Attack("edge-restore", [*words, "--threads", "1"], fed)
        if command == "blur":
            words = ["blur", "pictures", "--out", "pairs", "--severity", "light"]
            return Attack("train", words, fed, outputs=("pairs",))
        for seed in range(4):
            corpus.link(self.corpus / f"good{seed}.png", folder / f"good{seed}.png")
        if command == "collect":
            words = ["collect", "pictures", "--out", "set.npz", "--count", "8"]
            return Attack("calibration", words, fed, outputs=("set.npz",))
        words = ["pack", "pictures", "--out", "pack.npz", "--validation", "good0.png"]
        return Attack("train", words, fed, outputs=("pack.npz",))

    def _odd(self, outcome: Outcome, name: str) -> Verdict:
        if name in outcome.out + outcome.err:
            return CHANGED, ""
        return SILENT, "left out without a word"

    def _judge(self, outcome: Outcome, name: str, command: str, lost: bool, wrong: bool) -> Verdict:
        found = _result(outcome, command)
        if found == self.sound[name, command]:
            return EQUAL, ""
        if command in ("collect", "pack") and len(found) < len(self.sound[name, command]):
            said = name in outcome.out + outcome.err
            return (CHANGED, "") if said else (SILENT, f"'{name}' is left out without a word")
        if lost:
            return SILENT, "bytes are missing, and the result is another"
        if wrong:
            return SILENT, "the checksums are wrong, and the result is another"
        if problem := _refused(outcome.work / "pictures" / name):
            return SILENT, problem
        return CHANGED, ""


def _places(work: Path, name: str) -> Any:
    yield work / "pictures" / name


def _result(outcome: Outcome, command: str) -> Any:
    """What the command made of its pictures, comparable."""
    import cv2
    import numpy as np

    if command == "evaluate":
        scores = json.loads(outcome.out)["images"][0]
        return {key: scores[key] for key in ("width", "height", "psnr_input", "ssim_input", "psnr")}
    if command == "blur":
        files = sorted(outcome.work.glob("pairs/*/*.png"))
        return [hashlib.sha256(cv2.imread(str(file)).tobytes()).hexdigest() for file in files]
    with np.load(outcome.work / ("set.npz" if command == "collect" else "pack.npz")) as archive:
        if command == "collect":
            return sorted(hashlib.sha256(f.tobytes()).hexdigest() for f in archive["frames"])
        return sorted(
            hashlib.sha256(archive[key].tobytes()).hexdigest() for key in archive if key != "header"
        )


def _refused(path: Path) -> str:
    """Why Pillow cannot read the file to its end; "" where it can, or where there is no Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return ""
    try:
        with Image.open(path) as picture:
            picture.load()
    except Exception as error:  # it raises many kinds
        return f"Pillow refuses the file: {type(error).__name__}: {error}"[:100]
    return _jpeg_complaint(path) if path.suffix == ".jpg" else ""


def _jpeg_complaint(path: Path) -> str:
    """What libjpeg writes to standard error."""
    import tempfile

    import cv2

    with tempfile.TemporaryFile(dir=path.parent.parent.parent / "tmp") as said:
        os.dup2(said.fileno(), 2)
        cv2.imread(str(path))
        said.seek(0)
        text = said.read().decode(errors="replace")
    return text.strip()[:100] if "orrupt" in text or "remature" in text else ""


def _damage(name: str, data: bytes, rng: random.Random) -> mutate.Damage:
    how = rng.random()
    if how < 0.7:
        return mutate.damage(data, rng)
    if how < 0.85:
        return mutate.truncate(data, rng)
    if name.endswith(".png"):
        return _png(data, rng)
    return _sizes(data, rng)


def _png(data: bytes, rng: random.Random) -> mutate.Damage:
    """A chunk changed with its checksum made anew, lost, repeated, or with another size."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    how, index = rng.randrange(5), rng.randrange(len(chunks))
    kind, body = chunks[index]
    if how == 0:
        width, height = (rng.choice((0, 1, 64, 60000, 2**31 - 1, 2**32 - 1)) for _ in range(2))
        chunks[0] = (b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:])
        what = f"says {width}x{height}"
    elif how == 1:
        del chunks[index]
        what = f"without its {kind!r}"
    elif how == 2:
        chunks.insert(index, (kind, body))
        what = f"with its {kind!r} twice"
    elif how == 3:
        changed = bytearray(body or b"\0")
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        chunks[index] = (kind, bytes(changed))
        what = f"with a bit flipped in {kind!r} and its checksum made anew"
    else:
        bomb = zlib.compress(bytes(30_000_000))
        name = rng.choice((b"iCCP", b"zTXt", b"eXIf", b"iTXt"))
        chunks.insert(1, (name, b"x\0\0" + bomb))
        what = f"with 30 MB packed into {name!r}"
    return data[:8] + b"".join(_chunk(*chunk) for chunk in chunks), what


def _has_right_checksums(data: bytes) -> bool:
    """Whether each chunk of a PNG has the checksum of its content."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        at = end + 4
    return True


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _palette_png(grey: Any) -> bytes:
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = bytes(value for i in range(256) for value in (i, 255 - i, i // 2))
    chunks = ((b"IHDR", head), (b"PLTE", colours), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _interlaced_png() -> bytes:
    """208x200, Adam7."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = b""
    for left, top, across, down in passes:
        for y in range(top, 200, down):
            rows += b"\0" + b"".join(bytes((x, y, x ^ y)) for x in range(left, 208, across))
    head = struct.pack(">IIBBBBB", 208, 200, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _sizes(data: bytes, rng: random.Random) -> mutate.Damage:
    """Large numbers where a header may have sizes and offsets."""
    at = rng.randrange(2, min(len(data) - 4, 200))
    width = rng.choice((1, 2, 4))
    number = rng.choice((0, 1, 255, 60000, 2**31 - 1, 2**32 - 1)) & ((1 << 8 * width) - 1)
    order = rng.choice(("little", "big"))
    patch = number.to_bytes(width, order)  # type: ignore[arg-type]
    return data[:at] + patch + data[at + width :], f"{number} at {at}"


KIND = PictureKind
