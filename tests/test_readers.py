"""Every reader of the four packages, given what is damaged: a message, or it is sound after all.

Never another exception, and never longer than a second. What a reader makes of values that are
plausible is for its own tests.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_restore
from edge_restore.backends import autoselect as choice
from edge_restore.bench import claims, costs
from edge_restore.bench.document import BenchReport
from edge_restore.engine import manifest
from edge_restore.engine.plugin import kernels
from edge_restore.errors import UserError
from edge_restore.evaluation import lpips, pairs
from edge_restore.models import cards
from edge_restore.report.latency_report import LatencyReport
from edge_restore.storage import tensor_file
from tests.edge_restore.clips import picture
from tests.edge_restore.engine.manifests import write_engine

SHIPPED = Path(edge_restore.__file__).parent
TRAIN = SHIPPED.parent / "train"

MOST_SECONDS = 5.0
MOST_PATHS = 30
"""Of one document; of longer ones so many are drawn."""

_ABLATION = """\
title = "A table"
measured = "a set"
[recipe]
network = "lmfn"
[recipe.optimiser]
steps = 3
[[rows]]
name = "narrow"
psnr = 28.3
changes = {arguments = {width = 4}}
"""

ODD = (None, True, -1, 0, 2**63, "", "x" * 100_000, [], {})

Read = Callable[[Path], object]
Patch = pytest.MonkeyPatch


@dataclasses.dataclass
class Reader:
    """`make` writes a sound file into a folder; `read` reads it, or what took its place."""

    make: Callable[[Path], Path]
    read: Read
    constant: tuple[Any, str] | None = None
    """The module's constant that names the file, where the reader takes no path."""


def _copied(source: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(source, folder))


def _written(name: str, document: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return make


def _bench_report() -> dict[str, Any]:
    ways = {way: {"warm_up": 4, "settled": True, "rounds_ms": [[1.5, 2.5]]} for way in claims.WAYS}
    return {
        "schema": "edge_restore.bench/1",
        "machine": {"cpu": "a processor"}, "versions": {"numpy": "2"}, "background": 0.01,
        "warnings": ["a warning"], "readings": {"clock": "3 GHz"},
        "peaks": {
            "name": "a processor", "source": "measured", "fp32": 1e11, "fp16": None, "int8": 4e11,
            "bandwidth": 2e10,
        },
        "runs": [
            {
                "network": "svdn", "model": "svdn.onnx", "model_sha256": "a" * 64,
                "backend": "onnxruntime-cpu", "precision": "fp32", "height": 360, "width": 640,
                "ways": ways,
            }
        ],
    }  # fmt: skip


def _latency_report(folder: Path) -> Path:
    from edge_restore.report.latency_report import Quality
    from tests.edge_restore.report.test_latency_report import report

    path = folder / "report.json"
    report(Quality(24.5, 26.25, 0.75, 0.875)).write(path)
    return path


def _manifest(folder: Path) -> Path:
    return manifest.manifest_path(write_engine(folder))


def _tensors(folder: Path) -> Path:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = folder / "w.safetensors"
    safetensors.save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}, path)
    return path


def _lpips(folder: Path) -> Path:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = folder / "l.safetensors"
    safetensors.save_file({k: np.ones(s, np.float16) for k, s in lpips.shapes().items()}, path)
    return path


def _core() -> dict[str, Reader]:
    return {
        "model card": Reader(_copied(SHIPPED / "models/zoo/svdn-int8.card.json"), cards.read_card),
        "weights card": Reader(_copied(TRAIN / "released/svdn.card.json"), cards.read_card),
        "manifest": Reader(
            _manifest,
            lambda path: manifest.read_manifest(
                path.with_name(path.name.replace("manifest.json", "engine"))
            ),
        ),
        "kernel index": Reader(
            _copied(SHIPPED / "engine/plugin/ptx/index.json"),
            lambda path: kernels.load_index(path.parent),
        ),
        "bench report": Reader(_written("bench.json", _bench_report()), BenchReport.read),
        "latency report": Reader(_latency_report, LatencyReport.read),
        "claims": Reader(
            _copied(SHIPPED / "bench/claims.json"),
            lambda _: (claims.claims(), claims.hardware()),
            (claims, "FILE"),
        ),
        "costs": Reader(
            _copied(SHIPPED / "bench/costs.json"),
            lambda _: costs.frame_cost("svdn", 360, 640),
            (costs, "FILE"),
        ),
        "choice memory": Reader(
            _written("choice.json", {"chosen": "openvino", "measured": [{"psnr": 1.5}]}),
            lambda path: choice._read(path, ["openvino"]),
        ),
        "pairs.json": Reader(
            _written("pairs.json", {"severity": "light", "seed": 1}), pairs._severity
        ),
        "tensors": Reader(_tensors, lambda path: tensor_file.read_floats(path, ["a", "b"])),
        "LPIPS": Reader(_lpips, lpips.Lpips),
    }


def _of_calibration() -> dict[str, Reader]:
    pytest.importorskip("onnx", reason="onnx is not installed")
    from calibration.calibration_set import CalibrationSet
    from calibration.scales import SCHEMA, Scales

    scales = {
        "network": "svdn", "weights_sha256": "a" * 64, "layers": {"head": 0.5, "tail": 1.5},
        "skips": ["x"], "method": "minmax", "frames": 3, "set_sha256": "b" * 64,
        "macs_share": 0.5, "schema": SCHEMA,
    }  # fmt: skip

    def a_set(folder: Path) -> Path:
        path = folder / "set.npz"
        CalibrationSet.of([(f"{i}.png", picture(9 * i, 48, 64)) for i in range(4)]).save(path)
        return path

    return {
        "scales": Reader(_written("scales.json", scales), Scales.read),
        "calibration set": Reader(a_set, CalibrationSet.load),
    }


def _of_training() -> dict[str, Reader]:
    pytest.importorskip("torch", reason="torch is not installed")
    from train import ablation, curves, datasets, packing, recipe, weights
    from train import pack as packs

    def pack(folder: Path) -> Path:
        from edge_restore.media.images import write_png

        (folder / "photos").mkdir()
        for seed in range(3):
            noise = np.random.default_rng(seed).integers(0, 256, (192, 192, 3), np.uint8)
            write_png(folder / "photos" / f"{seed}.png", noise)
        packing.make([folder / "photos"], folder / "p.npz", packing.Names(validation={"2.png"}))
        return folder / "p.npz"

    log = "step 100 1.0 min  loss 0.5  rate 1e-03  PSNR 21.0 dB (+1.5)  SSIM 0.6\n"
    return {
        "recipe": Reader(_copied(min((TRAIN / "recipes").glob("*.toml"))), recipe.read),
        "ablation": Reader(_written("ablation.toml", _ABLATION), ablation.read),
        "weights": Reader(_tensors, weights.read_tensors),
        "pack": Reader(pack, packs.load),
        "log": Reader(_written("log.txt", log), curves.read),
        "RealBlur list": Reader(
            _written("RealBlur_J_train_list.txt", "a.png b.png\n"),
            lambda path: datasets.read("realblur_j", path.parent),
        ),
    }


def _of_export() -> dict[str, Reader]:
    pytest.importorskip("onnx", reason="onnx is not installed")
    from export.deform_conv import blocks

    shape = {
        "tile_height": 8, "tile_width": 8, "block_in": 16, "unroll": 1, "block_out": 64, "warps": 4
    }  # fmt: skip
    measured = {"sm_89": {"fp16": {"blocks": shape, "gpu": "a GPU", "median_ms": 0.5}}}
    return {
        "measured shapes": Reader(
            _written("measured.json", measured),
            lambda _: blocks.choose_blocks(89, "fp16"),
            (blocks, "MEASURED"),
        )
    }


PACKAGES = {
    "edge_restore": (_core, ("model card", "weights card", "manifest", "kernel index",
                             "bench report", "latency report", "claims", "costs", "choice memory",
                             "pairs.json", "tensors", "LPIPS")),
    "calibration": (_of_calibration, ("scales", "calibration set")),
    "train": (_of_training, ("recipe", "ablation", "weights", "pack", "log", "RealBlur list")),
    "export": (_of_export, ("measured shapes",)),
}  # fmt: skip

ALL = [(package, name) for package, (_, names) in PACKAGES.items() for name in names]


@pytest.mark.parametrize(("package", "name"), ALL, ids=[name for _, name in ALL])
def test_damaged_file_is_a_message_or_accepted(
    package: str, name: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    readers = PACKAGES[package][0]()
    assert tuple(readers) == PACKAGES[package][1]
    reader = readers[name]
    path = reader.make(tmp_path)
    if reader.constant:
        monkeypatch.setattr(*reader.constant, path)
    sound = path.read_bytes()
    if name != "RealBlur list":  # whose pictures are not there
        reader.read(path)
    wrong = []
    for what, content in _damages(sound, path.suffix):
        path.write_bytes(content)
        started = time.process_time()
        try:
            reader.read(path)
        except UserError as error:
            str(error).encode()
        except Exception as error:  # the fault that is looked for
            wrong.append(f"{what}: {type(error).__name__}: {error}"[:300])
        if (took := time.process_time() - started) > MOST_SECONDS:
            wrong.append(f"{what}: took {took:.1f} s")
    assert not wrong, "\n".join(wrong[:20])


def _damages(sound: bytes, suffix: str) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(1)
    yield "empty", b""
    for byte in (b"\0", b"{", b"[", b'"', b"1", b"\xff"):
        yield f"the byte {byte!r}", byte
    for size in (16, 1000):
        yield f"{size} random bytes", rng.randbytes(size)
    for share in (0.01, 0.3, 0.7, 0.99):
        yield f"cut to {share}", sound[: int(share * len(sound))]
    for _ in range(8):
        at = rng.randrange(len(sound))
        yield f"a bit of byte {at}", sound[:at] + bytes([sound[at] ^ 16]) + sound[at + 1 :]
    yield "nested lists", b"[" * 100_000 + b"]" * 100_000
    yield "nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "a TOML key of many parts", b"a." * 50_000 + b"a = 1\n"
    for number in (b"9" * 100_000, b"NaN", b"nan", b"-Infinity", b"1e999"):
        yield f"the number {number[:9]!r}", number
        yield f"an object with {number[:9]!r}", b'{"a": ' + number + b"}"
        yield f"a table with {number[:9]!r}", b"a = " + number + b"\n"
    if suffix == ".json":
        yield from _odd_values(json.loads(sound), rng)
    if suffix == ".toml":
        yield from _odd_lines(sound.decode())


def _odd_values(document: Any, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    places = list(_places(document))
    for place in rng.sample(places, min(MOST_PATHS, len(places))):
        for odd in (*ODD, "NaN", "1e999", "9" * 5000):
            raw = isinstance(odd, str) and odd in ("NaN", "1e999", "9" * 5000)
            changed = copy.deepcopy(document)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = "RAW" if raw else odd
            text = json.dumps(changed)
            yield (
                f"{str(odd)[:20]!r} at {place}",
                (text.replace('"RAW"', str(odd)) if raw else text).encode(),
            )


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    for key, inner in items:
        yield (*place, key)
        yield from _places(inner, (*place, key))


def _odd_lines(text: str) -> Iterator[tuple[str, bytes]]:
    lines = text.splitlines()
    assigned = [i for i, line in enumerate(lines) if " = " in line and line[:1].isalpha()]
    for number in assigned[:6]:
        key = lines[number].partition(" = ")[0]
        for value in (
            "true", "-1", "0", "1e308", "inf", "nan", str(2**63), "9" * 5000, '""',
            '"' + "x" * 100_000 + '"', "[]", "{}", "[[]]", "1979-05-27",
        ):  # fmt: skip
            changed = [*lines[:number], f"{key} = {value}", *lines[number + 1 :]]
            yield f"{key} = {value[:20]}", "\n".join(changed).encode()
