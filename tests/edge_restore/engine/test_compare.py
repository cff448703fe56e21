"""`build --compare`: which layers are far from FP32, found by Polygraphy."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore import cli
from edge_restore.engine import builder, compare
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import Gpu
from edge_restore.engine.plan import Plan, make_plan
from edge_restore.errors import BackendError, DependencyError, ModelError
from edge_restore.models import zoo
from edge_restore.models.cards import FileDigest, ModelCard, card_path, verify
from edge_restore.storage.files import sha256
from tests.edge_restore.onnx_models import write_model

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("polygraphy")
precision: Any = pytest.importorskip("export.precision")

Graph = Callable[[str, str], Path]
SIZE = (45, 62)  # padded to 48x64


def card_of(path: Path) -> ModelCard:
    card = verify(card_path(path))
    assert isinstance(card, ModelCard)
    return card


def save(model: Any, path: Path, card: ModelCard, **changes: Any) -> Path:
    onnx.save(model, str(path))
    digest = FileDigest(path.name, sha256(path), path.stat().st_size)
    replace(card, name=path.stem, onnx=digest, **changes).write(card_path(path))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network in FP32 (small.onnx) and typed FP16 (small-fp16.onnx)."""
    folder = tmp_path_factory.mktemp("pair")
    path = write_model(folder)
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.name = node.output[0]
    save(model, path, card_of(path))
    typed, _ = precision.to_fp16(model)
    save(typed, folder / "small-fp16.onnx", card_of(path), precision="fp16")
    return folder


@pytest.fixture
def folder(pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair, tmp_path / "pair"))


def planned(rtx: Flavour, model: Path, precision: str = "fp16", gpu: Gpu | None = None) -> Plan:
    targets = ["sm_86"]
    return make_plan(
        model, rtx, precision=precision, size=SIZE, gpu=gpu, wanted_targets=targets, ungated=True
    )  # fmt: skip


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """Change a constant of the typed graph."""
    path = folder / "small-fp16.onnx"
    model = onnx.load(str(path))
    tensor = next(t for t in model.graph.initializer if t.name == f"{name}:fp16")
    values = change(onnx.numpy_helper.to_array(tensor))
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name))
    return save(model, path, card_of(path))


def test_layers_of_an_fp16_graph(rtx: Flavour, pair: Path) -> None:
    plan = planned(rtx, pair / "small-fp16.onnx")
    found = compare.compare(plan, b"")
    assert found.not_run == "no GPU" or plan.gpu is not None
    assert (found.reference.name, found.compared) == ("small.onnx", plan.model)
    assert found.size == SIZE
    operators = [layer.operator for layer in found.layers]
    assert operators.count("Conv") == 6 and operators.count("ConvTranspose") == 2
    assert not {"Cast", "Transpose"} & set(operators)
    assert [layer.psnr for layer in found.layers] == sorted(layer.psnr for layer in found.layers)
    for layer in found.layers:
        if "Conv" in layer.operator:  # rounding to 11 bits: neither nothing nor nonsense
            assert 50 < layer.psnr < 90 and layer.max_abs > 0
    assert found.picture.max_abs <= 1 and found.picture.psnr > 50


def test_a_layer_that_is_wrong_is_found(rtx: Flavour, folder: Path) -> None:
    names = [node.output[0] for node in onnx.load(str(folder / "small.onnx")).graph.node
             if node.op_type == "Conv"]  # fmt: skip
    good = {
        la.name: la for la in compare.compare(planned(rtx, folder / "small-fp16.onnx"), b"").layers
    }
    wrong = edit(folder, f"w{names[3][1:]}", lambda values: values * np.float16(1.5))
    found = {la.name: la for la in compare.compare(planned(rtx, wrong), b"").layers}
    assert all(found[name] == good[name] for name in names[:3])
    assert found[names[3]].psnr < 35 < good[names[3]].psnr
    worst = next(iter(found.values()))
    assert worst.psnr < 35


def test_values_that_are_not_finite_come_first(rtx: Flavour, folder: Path) -> None:
    wrong = edit(folder, "w3", lambda values: np.full_like(values, 6e4))
    first = compare.compare(planned(rtx, wrong), b"").layers[0]
    assert (first.name, first.max_abs, first.psnr) == ("t3", math.inf, -math.inf)
    assert not first.finite


def test_small_chunks_give_the_same(rtx: Flavour, pair: Path) -> None:
    plan = planned(rtx, pair / "small-fp16.onnx")
    assert compare.compare(plan, b"", chunk_bytes=1) == compare.compare(plan, b"")


def test_the_error_of_one_layer() -> None:
    a = np.array([0.0, -2.0, 1.0], np.float32)
    error = compare.layer_error("x", "Conv", a, (a + np.float32(0.02)).astype(np.float16))
    assert error.max_abs == pytest.approx(0.02, rel=0.05)
    assert error.psnr == pytest.approx(20 * math.log10(2 / 0.02), abs=0.2)
    assert compare.layer_error("x", "Conv", a, a).psnr == math.inf
    assert compare.layer_error("x", "Conv", a * 0, a).psnr == -math.inf
    assert not compare.layer_error("x", "Conv", a, np.array([0, np.nan, 1], np.float32)).finite
    with pytest.raises(BackendError, match=r"the layer 'x' has the shape \(2,\)"):
        compare.layer_error("x", "Conv", a, a[:2])


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (48, 64), (1080, 1920), (1100, 1930), (3300, 20)]
)
def test_the_photo_at_any_size(height: int, width: int) -> None:
    photo = compare._photo(height, width)
    assert (photo.shape, photo.dtype) == ((height, width, 3), np.uint8)
    assert height < 48 or photo.std() > 10


def test_what_it_is_compared_with(rtx: Flavour, folder: Path, tmp_path: Path) -> None:
    plan = planned(rtx, folder / "small-fp16.onnx")
    small = folder / "small.onnx"
    assert compare.references(plan) == [small]
    best = save(onnx.load(str(small)), folder / "z.onnx", card_of(small), deformable="DeformConv")
    assert compare.references(plan) == [best, small]
    for name, changes in (
        ("a", {"weights": FileDigest("other.safetensors", "1" * 64)}),
        ("b", {"deformable": "plugin"}),
        ("c", {"precision": "int8"}),
    ):
        other = save(onnx.load(str(small)), folder / f"{name}.onnx", card_of(small), **changes)
        with pytest.raises(ModelError, match="cannot be compared with"):
            compare.references(plan, other)
    (folder / "d.onnx").write_bytes(b"no card")
    assert compare.references(plan) == [best, small]
    assert compare.references(plan, small) == [small]
    # A graph that no engine can be run of is not compared with itself; another is.
    fp32 = planned(rtx, small, "fp32")
    assert compare.references(fp32) == [best]
    best.unlink()
    with pytest.raises(ModelError, match=r"there is nothing to compare .* with"):
        compare.references(fp32)
    here = replace(fp32, gpu=Gpu("NVIDIA A10", (8, 6), "550.54"))
    assert compare.references(here) == [small]


def test_which_engine_is_run(rtx: Flavour, pair: Path) -> None:
    plan = planned(rtx, pair / "small-fp16.onnx")
    assert compare.cannot_run(replace(plan, gpu=None)) == "no GPU"
    other = Gpu("NVIDIA H200", (9, 0), "580.65.06")
    assert (
        compare.cannot_run(replace(plan, gpu=other)) == "it is for sm_86, and the GPU here is sm_90"
    )
    assert compare.cannot_run(replace(plan, gpu=Gpu("NVIDIA A10", (8, 6), "550.54"))) == ""


def test_every_marked_tensor_has_a_type() -> None:
    """TensorRT's parser wants it; behind our plugin ONNX itself cannot infer one."""
    path = zoo.FOLDER / "svdn-plugin-fp16.onnx"
    model = compare._sized(onnx.load(str(path)), (48, 64))
    names = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "PRelu")]
    plugins = [n.output[0] for n in model.graph.node if n.op_type == "EdgeRestoreDeformConv"]
    assert len(plugins) == 2
    for port in compare._marked(model, [*names, *plugins, "restored"]).graph.output:
        wanted = onnx.TensorProto.UINT8 if port.name == "restored" else onnx.TensorProto.FLOAT16
        assert port.type.tensor_type.elem_type == wanted, port.name


@pytest.mark.parametrize("name", ["svdn"])
@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_the_shipped_network(name: str, kind: str, rtx: Flavour, graph: Graph) -> None:
    """Against standard DeformConv nodes, so that the lowering is a part of what is compared."""
    model = graph(name, kind)
    plan = planned(rtx, model, kind)
    try:
        found = compare.compare(plan, b"", reference=zoo.find(name)[0])
    except BackendError as error:
        if "DeformConv came with" not in str(error):
            raise
        pytest.skip(error.found)
    operators = [layer.operator for layer in found.layers]
    assert operators.count("DeformConv") == 2 and operators.count("Conv") >= 20
    assert all(layer.finite for layer in found.layers)
    assert found.layers[0].psnr > {"fp16": 45, "int8": 10}[kind]
    assert found.picture.psnr > {"fp16": 60, "int8": 35}[kind]
    exact = {layer.name for layer in found.layers if layer.psnr > 100}
    assert "camera/Mul" in exact and "fusion/Conv" not in exact


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_engines_with_layers_as_outputs_are_built(kind: str, rtx: Flavour, graph: Graph) -> None:
    """What a machine with a GPU runs; the builder checks their precision as that of any engine."""
    plan = planned(rtx, graph("svdn", kind), kind)
    model = onnx.load(str(plan.model))
    names = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "PRelu")]
    marked = compare._marked(compare._sized(model, (plan.height, plan.width)), [*names, "restored"])
    assert len(marked.graph.output) == len(names) + 1
    assert len(compare._built(plan, marked, None)) > 100_000


def test_an_engine_that_cannot_be_loaded(rtx: Flavour, pair: Path) -> None:
    """Polygraphy's runner of engines is there; without a GPU it cannot load any."""
    plan = planned(rtx, pair / "small-fp16.onnx")
    if plan.gpu is not None:
        pytest.skip("a GPU is here")
    engine = builder.build(plan).engine
    module = compare._engine_module(rtx)
    assert module.TrtRunner and module.EngineFromBytes
    here = replace(plan, gpu=Gpu("NVIDIA A10", (8, 6), "550.54"))
    with pytest.raises(BackendError, match="the comparison could not be run"):
        compare.compare(here, engine)


# The command


def test_the_command(
    rtx: Flavour, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(folder / "small-fp16.onnx"), "--size", "45x62", "--flavour", "rtx",
             "--target", "sm_86", "--cache", str(tmp_path / "cache"), "--compare"]  # fmt: skip
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "the engine itself was not run: no GPU" in said
    assert "18 layers against small.onnx (FP32, ONNX Runtime) at 45x62" in said
    header, *table = said[said.index("layer ") :].splitlines()
    assert header.split() == ["layer", "operator", "max", "error", "PSNR", "dB"]
    *rows, picture = table
    assert len(rows) == 12 and all(len(row.split()) == 4 for row in rows)
    assert float(rows[0].split()[3]) <= float(rows[1].split()[3])
    assert picture.startswith("the restored picture: ") and "of 255 levels off" in picture
    # From the cache too, and with values that are no numbers.
    edit(folder, "w3", lambda values: np.full_like(values, 6e4))
    assert cli.main([*words, "--reference", str(folder / "small.onnx")]) == 0
    assert "inf  not finite" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["polygraphy", "onnx"])
def test_what_is_missing_is_told_before_building(
    package: str, rtx: Flavour, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "x.engine"
    words = ["build", str(folder / "small-fp16.onnx"), "--size", "45x62", "--flavour", "rtx",
             "-o", str(out), "--compare"]  # fmt: skip
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert f"the package '{package}' is not installed" in said.err
    assert "build --compare" in said.err and "pip install 'edge-restore[export]'" in said.err
    assert said.out == "" and "Traceback" not in said.err and not out.exists()
    with pytest.raises(DependencyError):
        compare.check(planned(rtx, folder / "small-fp16.onnx"))


def test_references_that_cannot_be(
    rtx: Flavour, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.engine"
    words = ["build", str(folder / "small-fp16.onnx"), "--size", "45x62", "--flavour", "rtx",
             "-o", str(out)]  # fmt: skip
    small = str(folder / "small.onnx")
    assert cli.main([*words, "--reference", small]) == 2
    assert "--reference together with --compare" in capsys.readouterr().err
    assert cli.main([*words, "--compare", "--reference", str(tmp_path / "none.onnx")]) == 2
    assert "none.card.json" in capsys.readouterr().err
    (folder / "small.onnx").unlink()
    assert cli.main([*words, "--compare"]) == 2
    said = capsys.readouterr().err
    assert "there is nothing to compare" in said and "--reference FILE" in said
    assert not out.exists()
