"""`edge-restore build` from end to end with TensorRT-RTX, and what it says to bad input."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_restore import cli
from edge_restore.engine.cache import EngineCache
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.manifest import load_checked, manifest_path
from edge_restore.engine.plan import make_plan
from edge_restore.models import zoo
from edge_restore.models.cards import TensorPort, card_path
from edge_restore.storage.files import sha256
from tests.edge_restore.onnx_models import write_card, write_model

Graph = Callable[[str, str], Path]
Refused = Callable[..., str]


def words(*options: object) -> list[str]:
    return ["build", *(str(option) for option in options)]


def test_into_the_cache_and_out_of_it(
    rtx: Flavour, graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(
        graph("svdn", "fp16"), "--size", "541x963", "--flavour", "rtx", "--target", "sm_86",
        "--target", "sm_120", "--cache", tmp_path / "cache", "--log", tmp_path / "log.txt",
    )  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "542x964, to which frames of 541x963 are padded" in said
    assert "fp16; convolutions: 36 fp16" in said
    assert "verified by  the build log" in said
    assert "sm_86, sm_120" in said and "took" in said
    (engine,) = (tmp_path / "cache").glob("*.engine")
    manifest = load_checked(engine).manifest
    assert manifest.build_log_sha256 == sha256(tmp_path / "log.txt")
    assert str(tmp_path) not in manifest.command
    assert manifest.command.startswith("edge-restore build svdn-gridsample-fp16.onnx")
    assert cli.main(command) == 0
    assert "was in the cache" in capsys.readouterr().out
    engine.chmod(0o666)
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "building again: the engine" in said.err and "took" in said.out


def test_to_a_file_of_its_own(
    rtx: Flavour, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.engine"
    command = words(write_model(tmp_path), "--precision", "fp32", "--size", "64x96", "-o", out)
    assert cli.main([*command, "--flavour", "rtx", "--verbose"]) == 0
    assert "[verbose] " in capsys.readouterr().err
    assert load_checked(out).manifest.engine.file == "mine.engine"
    assert len(load_checked(out).manifest.targets) > 3  # without a GPU: all that RTX knows


@pytest.fixture
def refused(rtx: Flavour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command; asserts exit code 2, the three parts, and that nothing was written."""
    model = write_model(tmp_path)

    def refused(*options: object, given: object = model) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        defaults = ["--flavour", "rtx", "--size", "64x96", "--precision", "fp32",
                    "-o", tmp_path / "x.engine"]  # fmt: skip
        assert cli.main(words(given, *defaults, *options)) == 2
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        said = capsys.readouterr()
        assert said.err.startswith("edge-restore: error: ")
        assert "  expected: " in said.err and "  hint:     " in said.err
        assert "Traceback" not in said.err and said.out == ""
        return said.err

    return refused


@pytest.mark.parametrize("size", ["720", "720x", "x1280", "720*1280", "-1x5", "1e3x4", "", "ax2"])
def test_what_is_no_size(size: str, refused: Refused) -> None:
    assert f"'{size}' is not a size" in refused("--size=" + size)


def test_sizes_that_cannot_be(refused: Refused, tmp_path: Path) -> None:
    assert "'0x96' is not a size" in refused("--size", "0x96")
    assert "is larger than any engine" in refused("--size", "99999x99999")
    fixed = write_model(tmp_path, name="fixed")
    write_card(fixed, input=TensorPort("image", "uint8", "NHWC", (1, 64, 96, 3)))
    message = refused("--size", "720x1280", given=fixed)
    assert "takes 64x96 only; 720x1280, padded, is 720x1280" in message
    assert "--size 64x96" in message


def test_targets_that_are_unknown(refused: Refused) -> None:
    for target in ("sm_90", "sm_8", "86", "ampere", ""):
        message = refused("--target", "sm_86", "--target", target)
        assert f"does not know the target '{target}'" in message
        assert "sm_75, sm_80, sm_86" in message


def test_a_precision_that_the_onnx_does_not_carry(refused: Refused, graph: Graph) -> None:
    message = refused("--precision", "fp16", given=graph("svdn", "fp32"))
    assert "does not carry fp16: its graph is fp32" in message
    assert "--precision fp16 --deformable GridSample" in message
    command = message.split("hint:")[1].strip()
    assert command.startswith("python -m export svdn --weights train/released/svdn.safetensors")
    assert "quantise its graph" in refused("--precision", "int8")
    assert "does not carry fp32: its graph is fp16" in refused(given=graph("svdn", "fp16"))


def test_the_export_command_of_the_message_is_one_that_export_takes(
    refused: Refused, graph: Graph
) -> None:
    export = pytest.importorskip("export.__main__")
    message = refused("--precision", "fp16", given=graph("svdn", "fp32"))
    _, _, _, *arguments = shlex.split(message.split("hint:")[1])
    parsed = export.parser().parse_args(arguments)
    assert (parsed.network, parsed.precision, parsed.deformable) == ("svdn", "fp16", "GridSample")
    assert parsed.form == "camera" and parsed.out.suffix == ".onnx"


def test_the_float_form(refused: Refused, tmp_path: Path) -> None:
    model = write_model(tmp_path, "float", "floats")
    message = refused(given=model)
    assert "takes and gives float32 pictures" in message and "--form camera" in message


def test_an_operator_that_rtx_has_not(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "svdn.onnx"
    source = zoo.find("svdn")[0]
    path.write_bytes(source.read_bytes())
    card_path(path).write_bytes(card_path(source).read_bytes())
    message = refused(given=path)
    assert "the operator DeformConv of the node 'neck.deform1/DeformConv'" in message


def test_models_that_are_none(refused: Refused, tmp_path: Path) -> None:
    assert "there is no model 'nothing'" in refused(given="nothing")
    assert "there is no model file" in refused(given=tmp_path / "no.onnx")
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(b"onnx")
    assert "it has no card" in refused(given=bare)
    write_card(bare)
    bare.write_bytes(b"changed")
    assert "does not match its card" in refused(given=bare)
    write_card(bare)
    assert "is not an ONNX file" in refused(given=bare)


def test_outputs_that_cannot_be(refused: Refused, tmp_path: Path) -> None:
    assert "does not end in .engine" in refused("-o", tmp_path / "x.plan")
    assert "does not exist" in refused("-o", tmp_path / "none" / "x.engine")
    (tmp_path / "dir.engine").mkdir()
    assert "is a directory" in refused("-o", tmp_path / "dir.engine")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    message = refused("-o", shared / "x.engine")
    assert "can be changed by others" in message and f"chmod go-w '{shared}'" in message
    assert "does not exist" in refused("--log", tmp_path / "none" / "log.txt")


def test_tensorrt_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)

    def message(flavour: str) -> str:
        assert cli.main(words("svdn", "--size", "64x96", "--flavour", flavour)) == 2
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err
        return said.err

    said = message("rtx")
    assert "TensorRT-RTX cannot be used here: not installed" in said
    assert "pip install 'edge-restore[rtx]'" in said
    (hint,) = [line for line in message("tensorrt").splitlines() if "hint" in line]
    assert "desktop: pip install 'edge-restore[gpu]'; Jetson: it comes with JetPack" in hint
    said = message("auto")
    assert "and" in said and "cannot be used here: neither is installed" in said
    assert "edge-restore[gpu]" in said and "edge-restore[rtx]" in said


HOLDER = """
import sys, time
from pathlib import Path
from edge_restore.storage.lock import locked
with locked(Path(sys.argv[1]), wait_seconds=0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_an_engine_that_another_process_is_building(
    rtx: Flavour, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path)
    plan = make_plan(model, rtx, precision="fp32", size=(64, 96), gpu=this_gpu())
    store = EngineCache(tmp_path / "cache")
    lock = store.path(plan.card.name, plan.key).with_suffix(".lock")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        command = words(model, "--precision", "fp32", "--size", "64x96", "--flavour", "rtx",
                        "--cache", store.folder, "--wait", "0.2")  # fmt: skip
        assert cli.main(command) == 2
    finally:
        process.kill()
        process.wait()
    assert f"another process (pid {process.pid}) is building" in capsys.readouterr().err


def test_from_the_zoo_the_variant_that_suits_is_taken(
    rtx: Flavour, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sources = [*zoo.find("svdn"), graph("svdn", "fp16")]
    folder = tmp_path / "zoo"
    folder.mkdir()
    for source in sources:
        for file in (source, card_path(source)):
            (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(zoo, "FOLDER", folder)
    assert zoo.names() == ["svdn"]
    for precision, name in (("fp32", "svdn-gridsample"), ("fp16", "svdn-gridsample-fp16")):
        plan = make_plan("svdn", rtx, precision=precision, size=(64, 96), gpu=None)
        assert plan.model == folder / f"{name}.onnx"
    command = words("svdn", "--flavour", "rtx", "--size", "64x96", "--precision", "int8",
                    "--cache", tmp_path / "cache")  # fmt: skip
    assert cli.main(command) == 2
    assert "the zoo's 'svdn' has no int8 graph for this flavour" in capsys.readouterr().err


def test_the_manifest_lies_beside(rtx: Flavour, tmp_path: Path) -> None:
    out = tmp_path / "a.b.engine"
    command = words(write_model(tmp_path), "--precision", "fp32", "--size", "64x96", "-o", out)
    assert cli.main([*command, "--flavour", "rtx"]) == 0
    assert json.loads(manifest_path(out).read_text())["engine"]["file"] == "a.b.engine"
