"""Options: the command lines of all four packages with values that make no sense.

A command line is a sound one in which one or two values are replaced. Values that are numbers,
sizes and words name no file; values that are files are made here, inside the case's folder, and
`Sandbox.check_arguments` looks at them once more. Silently wrong is a value marked as bad that is
taken without a word. Whatever is taken must not change an input, and leave what it says it wrote.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.attacks import corpus, training
from tests.attacks.kind import EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_NO_NUMBER = ("", "x", "nan", "1e3", "0x10", "2.5", "--", "1 2", "1,5", "9" * 5000, "-")
_NO_FLOAT = ("", "x", "nan", "0x10", "--", "1 2", "1,5", "-")
_NO_SIZE = (
    "0x0", "-1x5", "axb", "1x", "x", "", "99999999x99999999", "16x16x16", "\uff11\uff16x16",
    "16*16", "nanxnan", "1e3x1e3", "16x16 ", "0x16",
)  # fmt: skip
_COUNT = ("0", "-1", "-9223372036854775809", *_NO_NUMBER)
_AMOUNT = ("-1", "-0.5", "inf", "-inf", *_NO_FLOAT)
_NO_WORD = ("", " ", "nope", "auto,", "../x", "svdn\0"[:4] + "?", "\u202e", "a" * 3000, "-")


@dataclass(frozen=True)
class Command:
    """A sound command line: words, of which ``{name}`` is replaced.

    Attributes:
        inputs: files of the corpus by their name in the case's folder: what it reads.
        beside: more of them, which it may be told to read though it cannot.
        values: by name: the sound value, and bad ones.
        outs: by name: the suffix of an output; "/" for a folder.
    """

    program: str
    words: tuple[str, ...]
    inputs: tuple[str, ...]
    values: dict[str, tuple[str, tuple[str, ...]]]
    outs: dict[str, str]
    beside: tuple[str, ...] = ()


_MODEL = ("small.onnx", "small.card.json")
_RESTORER = ("--model", "{model}", "--backend", "{backend}", "--threads", "{threads}",
             "--memory-budget", "{budget}")  # fmt: skip
_RESTORER_VALUES = {
    "model": ("small.onnx", ("nope.onnx", "in.mkv", "small.card.json", *_NO_WORD)),
    "backend": ("onnxruntime", _NO_WORD),
    "threads": ("1", _COUNT),
    "budget": ("64", _COUNT),
}
COMMANDS = (
    Command(
        "edge-restore",
        ("run", "{source}", "--out", "{out}", "--report", "{report}", "--max-frames", "{frames}",
         *_RESTORER),
        ("in.mkv", *_MODEL),
        {"source": ("in.mkv", ("nope.mkv", "small.onnx", "", "rtsp:/x", "folder")),
         "frames": ("2", _COUNT), **_RESTORER_VALUES},
        {"out": ".mp4", "report": ".json"},
    ),
    Command(
        "edge-restore",
        ("evaluate", "--blurred", "{blurred}", "--sharp", "pairs.png", "--csv", "{csv}", "--sheet",
         "{sheet}", "--save", "{save}", "--protocol", "{protocol}", *_RESTORER),
        ("pairs.png", *_MODEL),
        {"blurred": ("pairs.png", ("nope.png", "in.mkv", "small.onnx", "folder")),
         "protocol": ("mprnet", _NO_WORD), **_RESTORER_VALUES},
        {"csv": ".csv", "sheet": ".png", "save": "/"},
        ("in.mkv",),
    ),
    Command(
        "edge-restore", ("engines", "--cache", "{cache}", "--prune", "--limit", "{limit}"), (),
        {"limit": ("1", ("-1", *_NO_NUMBER))}, {"cache": "/"},
    ),
    Command(
        "edge-restore",
        ("bench", "--sizes", "{sizes}", "--samples", "{samples}", "--seconds", "{seconds}",
         "--json", "{json}", *_RESTORER),
        _MODEL,
        {"sizes": ("16x16", _NO_SIZE), "samples": ("1", ("-1", *_NO_NUMBER)),
         "seconds": ("0.05", ("0", *_AMOUNT)), **_RESTORER_VALUES},
        {"json": ".json"},
    ),
    Command(
        "edge-restore",
        ("demo", "--out", "{out}", "--frames", "{frames}", "--size", "{size}", *_RESTORER),
        _MODEL,
        {"frames": ("1", _COUNT), "size": ("64x64", (*_NO_SIZE, "63x64", "2x2")),
         **_RESTORER_VALUES},
        {"out": "/"},
    ),
    Command(
        "edge-restore",
        ("build", "{model}", "--size", "{size}", "--precision", "{precision}", "--flavour",
         "tensorrt", "-o", "{out}", "--wait", "{wait}", "--target", "{target}"),
        _MODEL,
        {"model": ("small.onnx", _RESTORER_VALUES["model"][1]), "size": ("16x16", _NO_SIZE),
         "precision": ("fp32", _NO_WORD), "wait": ("1", _AMOUNT),
         "target": ("sm_86", ("sm_", "86", *_NO_WORD))},
        {"out": ".engine"},
    ),
    Command(
        "calibration",
        ("collect", "{source}", "--out", "{out}", "--count", "{count}", "--size", "{size}"),
        ("in.mkv",),
        {"source": ("in.mkv", ("nope.mkv", "small.onnx", "", "folder")),
         "count": ("4", ("3", *_COUNT)), "size": ("16x16", _NO_SIZE)},
        {"out": ".npz"},
        ("small.onnx",),
    ),
    Command(
        "calibration",
        ("quantise", "{model}", "--frames", "set.npz", "--out", "{out}", "--scales-out", "{scales}",
         "--method", "{method}", "--percentile", "{percentile}"),
        ("set.npz", *_MODEL),
        {"model": ("small.onnx", _RESTORER_VALUES["model"][1]), "method": ("percentile", _NO_WORD),
         "percentile": ("99.9", ("0", "100.1", "-5", *_AMOUNT))},
        {"out": ".onnx", "scales": ".json"},
    ),
    Command(
        "calibration",
        ("check", "{model}", "--reference", "small.onnx", "--pairs", "{pairs}", "--images",
         "{images}", "--min-psnr", "{drop}", "--max-shift", "{shift}"),
        ("set.npz", *_MODEL),
        {"model": ("nope.onnx", _NO_WORD), "pairs": ("folder", ("nope",)), "images": ("1", _COUNT),
         "drop": ("0.2", _AMOUNT), "shift": ("0.1", _AMOUNT)},
        {},
    ),
    Command(
        "train",
        ("pack", "photos", "--out", "{out}", "--longest", "{longest}", "--frames", "{frames}",
         "--validation", "photo2.png"),
        ("photos",),
        {"longest": ("1600", _COUNT), "frames": ("6", _COUNT)},
        {"out": ".npz"},
    ),
    Command(
        "train",
        ("blur", "photos", "--out", "{out}", "--severity", "{severity}", "--seed", "{seed}",
         "--count", "{count}", "--task", "{task}", "--trajectory", "{trajectory}", "--longest",
         "{longest}", "--h264", "{crf}"),
        ("photos",),
        {"severity": ("light", _NO_WORD), "seed": ("0", _NO_NUMBER), "count": ("1", _COUNT),
         "task": ("deblur", _NO_WORD), "trajectory": ("walk", _NO_WORD),
         "longest": ("192", _COUNT), "crf": ("23", ("-1", "52", "99", *_NO_NUMBER))},
        {"out": "/"},
    ),
    Command(
        "train",
        ("run", "recipe.toml", "--data", "{data}", "--out", "{out}", "--max-minutes", "{minutes}",
         "--device", "{device}", "--threads", "{threads}"),
        ("recipe.toml", "pack.npz"),
        {"data": ("pack.npz", ("nope.npz", "recipe.toml", "folder")),
         "minutes": ("0", ("-1", "-inf", *_NO_FLOAT)), "device": ("cpu", _NO_WORD),
         "threads": ("1", _COUNT)},
        {"out": "/"},
    ),
    Command(
        "train", ("networks", "--size", "{size}"), (), {"size": ("64x64", _NO_SIZE)}, {},
    ),
    Command(
        "train", ("curves", "{log}", "--out", "{out}"), ("run.log",),
        {"log": ("run.log", ("nope.log", "folder", "small.onnx"))}, {"out": ".png"},
    ),
    Command(
        "export",
        ("{network}", "--weights", "nope.safetensors", "--out", "{out}", "--size", "{size}",
         "--opset", "{opset}"),
        (),
        {"network": ("lmfn", _NO_WORD), "size": ("16x16", _NO_SIZE),
         "opset": ("20", ("0", "-1", "99", *_NO_NUMBER))},
        {"out": ".onnx"},
    ),
)  # fmt: skip


class OptionsKind(Kind):
    """See the module."""

    name = "options"
    imports = ("numpy", "cv2", "av", "onnx", "torch")

    def make(self) -> None:
        import cv2
        import numpy as np

        from calibration.calibration_set import CalibrationSet
        from tests.edge_restore.clips import picture

        corpus.quantisable_model(self.corpus)
        corpus.clip(self.corpus / "in.mkv", frames=6)
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(self.corpus / "pairs.png"), noise)
        frames = [(f"{i}.png", picture(i * 9, 48, 64)) for i in range(4)]
        CalibrationSet.of(frames).save(self.corpus / "set.npz")
        training.make(self.corpus)
        (self.corpus / "run.log").write_text(
            "step       0      0.1 min  loss nan  rate 1.00e-03  PSNR 19.39 dB (+0.0)  SSIM 0.7\n"
            "step       1      0.1 min  loss 0.002  rate 1.00e-06  PSNR 19.41 dB (+0.1)  SSIM 0.7\n"
        )

    def measure(self, sandbox: Sandbox) -> None:
        for number, command in enumerate(COMMANDS):

            def attack(work: Path, command: Command = command) -> Attack:
                self._inputs(command, work)
                sound = {name: value for name, (value, _) in command.values.items()}
                outs = {name: f"{name}{suffix.strip('/')}" for name, suffix in command.outs.items()}
                return self._attack(command, {**sound, **outs}, "nothing", None)

            lacks = command.words[0] in ("build", "check", "{network}")  # a GPU, or minutes
            case = sandbox.root / f"sound-{self.name}-{number}-{os.getpid()}"
            (case / "work").mkdir(parents=True)
            outcome = sandbox.learn(attack(case / "work"), case)
            if outcome.code != (2 if lacks else 0):
                raise RuntimeError(f"{command.words} gives {outcome.code}:\n{outcome.err}")

    def _inputs(self, command: Command, work: Path) -> None:
        (work / "folder").mkdir()
        for name in (*command.inputs, *command.beside):
            source = self.corpus / name
            if source.is_dir():
                (work / name).mkdir()
                for file in source.iterdir():
                    corpus.link(file, work / name / file.name)
            else:
                corpus.link(source, work / name)

    def attack(self, rng: random.Random, work: Path) -> Attack:
        command = rng.choice(COMMANDS)
        self._inputs(command, work)
        given = {name: value for name, (value, _) in command.values.items()}
        given |= {name: f"{name}{suffix.strip('/')}" for name, suffix in command.outs.items()}
        said, bad = [], []
        for name in rng.sample(sorted(given), min(len(given), rng.choice((1, 1, 1, 2)))):
            if name in command.values:
                given[name] = rng.choice(command.values[name][1])
                bad.append(f"{name} {given[name]!r:.40}")
            else:
                given[name], what, refuse = _out(command, name, given[name], rng, work)
                bad += [f"{name}: {what}"] if refuse else []
                said.append(f"{name}: {what}")
        outs = [given[name] for name in command.outs]
        if len(set(outs)) == len(outs):  # the other output was given another name afterwards
            bad = [what for what in bad if not what.endswith(", too")]
        fed = f"{command.program} {command.words[0]}: {'; '.join(said + bad)}"
        return self._attack(command, given, fed, "; ".join(bad))

    def _attack(self, command: Command, given: dict[str, str], fed: str, bad: str | None) -> Attack:
        words = [word.format(**given) for word in command.words]
        outs = [given[name].removesuffix("/") for name in command.outs]
        cards = [os.path.splitext(out)[0] + ".card.json" for out in outs]

        def judge(outcome: Outcome) -> Verdict:
            if bad:
                return SILENT, f"accepted: {bad}"
            lacking = [out for out in outs if out and not (outcome.work / out).exists()]
            return (SILENT, f"'{lacking[0]}' was not written") if lacking else (EQUAL, "")

        if any(out.startswith("missing/") for out in outs):
            cards.append("missing")  # a folder is made with its parents
        outputs = tuple(os.path.normpath(out) for out in (*outs, *cards) if out)
        return Attack(command.program, words, fed, judge, outputs=outputs, codes=(1,))


def _out(
    command: Command, name: str, sound: str, rng: random.Random, work: Path
) -> tuple[str, str, bool]:
    """A place for an output: as it is given, what it is, and whether it has to be refused."""
    suffix = command.outs[name]
    ways: list[Callable[[], tuple[str, str, bool]]] = [
        lambda: _inside(work, f"missing/{sound}", "in a missing folder", suffix != "/"),
        lambda: _long(suffix, rng),
        lambda: (f"{'n' * 300}{suffix.strip('/')}", "a name too long", True),
        lambda: (f"2024-05-01T10:30:00{suffix.strip('/')}", "a name with colons", False),
        lambda: (f"ünï\u202e 中{suffix.strip('/')}", "a name in Unicode", False),
        lambda: (f"a\x1b[31mb{suffix.strip('/')}", "a name with an escape", False),
        lambda: (f"a\nb{suffix.strip('/')}", "a name of two lines", False),
        lambda: (f"./{sound}", "another spelling", False),
        lambda: _made(work, sound, rng),
        lambda: _made(work, sound, rng),
    ]
    files = [word for word in command.inputs if (work / word).is_file()]
    if files:
        ways += [lambda: _input(work, rng.choice(files), suffix, rng)] * 3
    others = [other for other in command.outs if other != name and command.outs[other] != "/"]
    if others and suffix != "/":
        other = rng.choice(others)
        ways.append(lambda: (f"{other}{command.outs[other]}", f"the output {other}, too", True))
    return rng.choice(ways)()


def _inside(work: Path, path: str, what: str, refuse: bool) -> tuple[str, str, bool]:
    return path, what, refuse


def _long(suffix: str, rng: random.Random) -> tuple[str, str, bool]:
    """A legal name of 255 bytes, or so many that a longer temporary one would be too long."""
    end = suffix.strip("/")
    length = rng.choice((255, 250, 244))
    # A card or a manifest beside it has a longer suffix, which would be too long.
    if end in (".onnx", ".engine"):
        length = 255 - len(".manifest.json") + len(end)
    return f"{'n' * (length - len(end))}{end}", f"a name of {length} bytes", False


def _input(work: Path, name: str, suffix: str, rng: random.Random) -> tuple[str, str, bool]:
    """An input of the same command under some name."""
    alias = f"alias{suffix.strip('/')}"
    how = rng.randrange(5)
    if how == 0:
        return name, f"the input {name}", True
    if how == 1:
        return f"folder/../{name}", f"the input {name} in another spelling", True
    if how == 2:
        os.link(work / name, work / alias)
        return alias, f"a hard link to {name}", True
    if how == 3:
        (work / alias).symlink_to(name)
        return alias, f"a symbolic link to {name}", True
    (work / "way").symlink_to("folder")
    (work / "folder" / alias).symlink_to(f"../{name}")
    return f"way/{alias}", f"a link through a link to {name}", True


def _made(work: Path, name: str, rng: random.Random) -> tuple[str, str, bool]:
    """Something that is there already where the output should go."""
    path = work / name
    folder = not Path(name).suffix
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(path)
        return name, "a pipe", True
    if how == 1:
        before = os.getcwd()
        os.chdir(work)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
        os.chdir(before)
        return name, "a socket", True
    if how == 2:
        path.symlink_to("nowhere")
        return name, "a dangling link", True
    if how == 3 and not folder:
        path.mkdir()
        return name, "a folder", True
    if how == 4:
        path.write_text("what was there before")
        return name, "a file that is there", folder
    path.symlink_to(path.name)
    return name, "a loop of links", True


KIND: Any = OptionsKind
