"""Engines built by TensorRT-RTX itself, on a machine without a GPU, and their precisions."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from edge_restore.engine import build_monitor, builder
from edge_restore.engine.build_log import BuildLog
from edge_restore.engine.cache import EngineCache, layers_path
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.manifest import EngineError, load_checked, manifest_path, read_manifest
from edge_restore.engine.plan import Plan, make_plan
from edge_restore.errors import BackendError, ModelError, SinkError
from edge_restore.machine import process
from edge_restore.models import zoo
from edge_restore.models.cards import FileDigest, ModelCard, card_path, verify
from edge_restore.storage.files import sha256
from tests.edge_restore.engine import engine_models
from tests.edge_restore.onnx_models import write_card as write_small_card
from tests.edge_restore.onnx_models import write_model

Graph = Callable[[str, str], Path]
SIZES = [(720, 1280), (541, 963)]
TARGETS = ["sm_86", "sm_120"]


def planned(rtx: Flavour, model: Path, precision: str, size: tuple[int, int] = (720, 1280)) -> Plan:
    return make_plan(
        model, rtx, precision=precision, size=size, gpu=None, wanted_targets=TARGETS, ungated=True
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", zoo.names())
def test_every_network_builds_in_the_precision_asked_for(
    name: str, precision: str, size: tuple[int, int], rtx: Flavour, graph: Graph, tmp_path: Path
) -> None:
    plan = planned(rtx, graph(name, precision), precision, size)
    built = builder.build(plan)
    path = tmp_path / "x.engine"
    builder.write(built, plan, path, command="edge-restore build")
    loaded = load_checked(path, plan.expectation)
    manifest = loaded.manifest
    multiple = plan.card.multiple
    padded = tuple(-(-side // multiple) * multiple for side in size)
    assert (manifest.height, manifest.width) == padded
    assert manifest.input.shape == (1, *padded, 3)
    assert manifest.verified_by == "build log"
    assert manifest.targets == ("sm_86", "sm_120")
    assert manifest.build_log_sha256 == built.log.sha256
    assert manifest.precision == precision
    matrix = dict(manifest.layers.matrix)
    # LMFN's product over the whole picture is an island.
    islands = sum("MatMul" in name for name in plan.card.fp32_islands)
    if islands:
        assert matrix["fp32"] == islands
        matrix["fp32"] = 0
    assert matrix[precision] >= 10
    if precision == "int8":  # what the card names, and no others
        quantised = plan.card.quantisation
        assert quantised is not None and matrix["int8"] == quantised.layers
        assert matrix[quantised.rest] >= 3 and matrix["int8"] + matrix[quantised.rest] == sum(
            matrix.values()
        )
    else:
        assert matrix[precision] == sum(matrix.values())
    assert sum(manifest.layers.all.values()) > sum(matrix.values())


def test_fp16_keeps_coordinates_in_fp32(rtx: Flavour, graph: Graph) -> None:
    built = builder.build(planned(rtx, graph("svdn", "fp16"), "fp16"))
    dump = built.log.layers_dump()
    grids = re.findall(r"Dimensions: \[1,\d+,\d+,2\][^}]*Datatype: (\w+)", dump)
    assert len(grids) >= 10 and set(grids) == {"Float"}
    assert built.precisions.all["fp32"] < built.precisions.all["fp16"]


def test_sampling_does_not_hold_all_taps_at_once(rtx: Flavour, graph: Graph) -> None:
    """Without the order that `export.lowering` forces, RTX 1.7 samples all taps in one kernel."""
    built = builder.build(planned(rtx, graph("svdn", "fp16"), "fp16"))
    all_taps = 25 * 48 * 360 * 640 * 2
    assert built.log.scratch_bytes() is not None
    assert built.log.scratch_bytes() < 0.8 * all_taps
    dims = re.findall(r"Dimensions: \[1,(\d+),360,640\]", built.log.layers_dump())
    assert max(map(int, dims)) == 5 * 48
    # All of them as outputs of one kernel, each a row of taps, is the same tensor in pieces.
    rows = [line.count(f"[1,{5 * 48},360,640]") for line in built.log.layers_dump().splitlines()]
    assert max(rows) == 1


def card_of(path: Path) -> ModelCard:
    card = verify(card_path(path))
    assert isinstance(card, ModelCard)
    return card


def test_a_card_that_promises_more_than_its_graph(
    rtx: Flavour, graph: Graph, tmp_path: Path
) -> None:
    path = tmp_path / "fake.onnx"
    path.write_bytes(graph("svdn", "fp32").read_bytes())
    engine_models.write_card(path, "svdn", "fp16")
    with pytest.raises(ModelError, match="does not carry fp16, though its card says so"):
        builder.build(planned(rtx, path, "fp16"))


def test_an_engine_that_came_out_in_fp32_is_refused(rtx: Flavour, graph: Graph) -> None:
    """The check is given what an FP32 build printed."""
    log = builder.build(planned(rtx, graph("svdn", "fp32"), "fp32")).log
    plan = planned(rtx, graph("svdn", "fp16"), "fp16")
    parsed = builder.network.Parsed(None, {"fp16": 36, "fp32": 0, "int8": 0}, True, None)
    with pytest.raises(BackendError, match=r"another precision than fp16: .* 36 fp32; it was not"):
        builder._verify(plan, parsed, log, "")


def test_without_a_list_of_layers_the_strong_types_count_and_weak_ones_do_not(
    rtx: Flavour, graph: Graph
) -> None:
    plan = planned(rtx, graph("svdn", "fp16"), "fp16")
    typed = {"int8": 0, "fp16": 36, "fp32": 0, "other": 0}
    parsed = builder.network.Parsed(None, typed, True, None)
    assert builder._verify(plan, parsed, BuildLog(), "")[1] == "network types"
    with pytest.raises(BackendError, match="does not tell what the engine computes in"):
        builder._verify(plan, replace(parsed, strong=False), BuildLog(), "")


@pytest.mark.parametrize("kind", ["DeformConv", "plugin"])
def test_an_operator_that_rtx_lacks_is_named_with_its_node(
    kind: str, rtx: Flavour, tmp_path: Path
) -> None:
    source = zoo.find("svdn")[0]
    path = tmp_path / "svdn.onnx"
    path.write_bytes(source.read_bytes())
    card = card_of(source)
    if kind == "plugin":
        onnx = pytest.importorskip("onnx")
        plugin_node = pytest.importorskip("export.plugin_node")
        onnx.save(plugin_node.to_plugin(onnx.load(str(source))), str(path))
    onnx_digest = FileDigest(path.name, sha256(path), path.stat().st_size)
    replace(card, deformable=kind, onnx=onnx_digest).write(card_path(path))
    with pytest.raises(BackendError) as caught:
        builder.build(planned(rtx, path, "fp32"))
    operator = {"DeformConv": "DeformConv", "plugin": "EdgeRestoreDeformConv"}[kind]
    assert f"the operator {operator} of the node 'neck.deform1/{operator}'" in caught.value.found
    assert "python -m export svdn" in caught.value.hint
    assert "--deformable GridSample" in caught.value.hint


def test_any_operator_that_rtx_lacks_is_named_with_its_node(rtx: Flavour, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = write_model(tmp_path)
    model = onnx.load(str(path))
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
    relu = model.graph.node[place]
    relu.op_type, relu.name = "Det", "body/determinant"
    onnx.save(model, str(path))
    write_small_card(path)
    with pytest.raises(BackendError) as caught:
        builder.build(planned(rtx, path, "fp32", (64, 96)))
    assert "the operator Det of the node 'body/determinant'" in caught.value.found
    assert "see docs/engines.md" in caught.value.hint


def test_a_size_that_does_not_fit_into_memory(rtx: Flavour, graph: Graph) -> None:
    with pytest.raises(BackendError, match=r"cannot build .* for 16384x16384:\n.*OutOfMemory"):
        builder.build(planned(rtx, graph("svdn", "fp32"), "fp32", (16384, 16384)))


def test_another_network(rtx: Flavour, tmp_path: Path) -> None:
    """Not of the zoo, without deformable layers, of another multiple."""
    plan = planned(rtx, write_model(tmp_path), "fp32", (45, 62))
    assert (plan.height, plan.width) == (48, 64)
    assert builder.build(plan).precisions.matrix["fp32"] == 8


@pytest.fixture
def small(rtx: Flavour, tmp_path: Path) -> Plan:
    """A plan that is built in no time."""
    return planned(rtx, write_model(tmp_path), "fp32", (64, 96))


def test_obtain_builds_once(small: Plan, tmp_path: Path) -> None:
    store = EngineCache(tmp_path / "cache")
    notes: list[str] = []

    def obtain(force: bool = False) -> tuple[Path, bool]:
        path, built = builder.obtain(small, store, command="c", force=force, note=notes.append)
        return path, built is not None

    path, built = obtain()
    assert built and path.parent == store.folder and not notes
    assert obtain() == (path, False)
    assert obtain(force=True) == (path, True)
    good = path.read_bytes()
    for attack in (
        lambda: path.write_bytes(good[:-9]),
        lambda: path.chmod(0o666),
        lambda: manifest_path(path).write_text("{}"),
        lambda: manifest_path(path).unlink(),
    ):
        notes.clear()
        attack()
        assert obtain() == (path, True)
        assert len(notes) == 1 and notes[0].startswith("building again: ")
        load_checked(path, small.expectation)
    assert [p.suffix for p in sorted(store.folder.glob("small*"))] == [".engine", ".json"]


def test_other_questions_are_other_engines(rtx: Flavour, small: Plan) -> None:
    others = [
        replace(small, targets=("sm_86",)),
        replace(small, width=small.width + 4),
        replace(small, flavour=replace(rtx, version="9.9")),
        replace(small, kernel_sha256="a" * 64),
        replace(small, card=replace(small.card, precision="fp16")),
        replace(small, card=replace(small.card, onnx=FileDigest("x.onnx", "b" * 64))),
    ]
    assert len({plan.key for plan in (small, *others)}) == len(others) + 1
    assert replace(small, frame=(61, 95)).key == small.key


def test_the_log_s_digest_and_the_manifest_s_words(small: Plan, tmp_path: Path) -> None:
    log = BuildLog()
    built = builder.build(small, log=log)
    assert built.log is log and len(log.messages) > 100
    builder.write(built, small, tmp_path / "x.engine", command="edge-restore build small")
    manifest = read_manifest(tmp_path / "x.engine")
    assert (manifest.command, manifest.model) == ("edge-restore build small", "small")
    assert manifest.onnx.sha256 == sha256(small.model)
    assert (manifest.gpu, manifest.driver, manifest.kernel_sha256) == (None, None, None)
    assert (tmp_path / "x.engine").stat().st_mode & 0o777 == 0o644


def test_the_inspector_s_json_lies_beside_its_engine_alone(small: Plan, tmp_path: Path) -> None:
    """Without a GPU there is none; what a GPU gave is kept, and goes with its engine."""
    path = tmp_path / "x.engine"
    built = builder.build(small)
    assert built.inspector == ""
    layers = '{"Layers": ["conv"]}'
    builder.write(replace(built, inspector=layers), small, path, command="c")
    assert layers_path(path).read_text() == layers
    builder.write(built, small, path, command="c")
    assert not layers_path(path).exists()


def test_no_space_is_told_before_anything_is_written(
    small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = builder.build(small)
    path = tmp_path / "x.engine"
    usage = builder.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        builder.shutil, "disk_usage", lambda _: usage._replace(free=len(built.engine))
    )
    before = set(tmp_path.iterdir())
    with pytest.raises(SinkError, match=r"no space for the engine in .* bytes are free"):
        builder.write(built, small, path, command="c")
    assert set(tmp_path.iterdir()) == before


def test_a_write_that_fails_leaves_the_good_engine(small: Plan, tmp_path: Path) -> None:
    """The system itself ends the write: no file may grow beyond the limit."""
    built = builder.build(small)
    path = tmp_path / "x.engine"
    builder.write(built, small, path, command="c")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it, so that the write fails with an error.
    assert signal.getsignal(signal.SIGXFSZ) in (signal.SIG_IGN, None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(built.engine) // 2, limits[1]))
    try:
        with pytest.raises(SinkError, match=r"no space for the engine in .*: File too large"):
            builder.write(built, small, path, command="another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    load_checked(path, small.expectation)


def test_a_full_disk(small: Plan, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(full)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        with pytest.raises(SinkError, match=r"no space for the engine in .* bytes are free"):
            builder.write(builder.build(small), small, full / "x.engine", command="c")
        assert not list(full.iterdir())
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_ctrl_c_stops_the_builder(
    rtx: Flavour, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def make_monitor(trt: Any, config: Any, stop: process.Stop, stream: TextIO) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        with build_monitor.make_monitor(trt, config, stop, stream) as monitor:
            yield monitor

    monkeypatch.setattr(builder, "make_monitor", make_monitor)
    log = BuildLog()
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        builder.build(planned(rtx, graph("svdn", "fp32"), "fp32"), log=log)
    assert signal.getsignal(signal.SIGINT) is previous
    assert "Build canceled by user" in log.text
    assert "Engine generation completed" not in log.text


def test_it_builds_in_another_thread_too(small: Plan) -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(len(builder.build(small).engine)))
    thread.start()
    thread.join()
    assert results and results[0] > 1000


def test_the_terminal_shows_the_steps(small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    builder.build(small)
    assert "building" in terminal.getvalue()
    assert re.search(r"building [1-9]\d*/\d+ steps", terminal.getvalue())


def test_an_engine_of_another_model_is_refused(small: Plan, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    builder.write(builder.build(small), small, path, command="c")
    other = replace(small, card=replace(small.card, onnx=FileDigest("x.onnx", "b" * 64)))
    with pytest.raises(EngineError, match="from another ONNX file"):
        load_checked(path, other.expectation)
    assert json.loads(manifest_path(path).read_text())["flavour"] == "rtx"
