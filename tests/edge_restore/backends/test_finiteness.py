"""A network whose output is not finite is an error that names frame and layer, in every form."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore import backends
from edge_restore.backends import finiteness
from edge_restore.backends.restorer import Restorer
from edge_restore.errors import BackendError, ModelError
from edge_restore.frames import Frame
from edge_restore.models import zoo
from edge_restore.models.model import Model
from tests.edge_restore.clips import picture
from tests.edge_restore.onnx_models import write_card, write_model

onnx = pytest.importorskip("onnx", reason="the models are made with onnx")

BACKENDS = ("onnxruntime", "openvino")


def overflowing(folder: Path, form: str, operator: str, name: str = "bad") -> Path:
    """A model that is sound on dark frames; one bright pixel makes a node's output not finite."""
    path = write_model(folder, form)
    model = onnx.load(path)
    graph = model.graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    image = first.input[0]
    # 1e30 * max(image - 0.9, 0) squared overflows where a pixel is brighter than 0.9
    for label, value in (("limit", 0.9), ("zero", 0.0), ("large", 1e30)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), label))
    make = onnx.helper.make_node
    nodes = [
        make("Sub", [image, "limit"], ["over"], "over"),
        make("Max", ["over", "zero"], ["bright"], "bright"),
        make("Mul", ["bright", "large"], ["much"], "much"),
        make("Mul", ["much", "much"], ["bad"], name),
    ]
    if operator == "nan":
        nodes.append(make("Sub", ["bad", "bad"], ["nan"], "minus"))
    last = next(node for node in graph.node if node.op_type == "Add" and image in node.input)
    place = list(graph.node).index(last)
    nodes.append(make("Add", [nodes[-1].output[0], last.input[1]], ["mixed"], "mixed"))
    last.input[1] = "mixed"
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    path.write_bytes(model.SerializeToString())
    write_card(path, form)
    return path


def submitted(restorer: Restorer, pixels: Any, index: int) -> Any:
    frame = Frame(pixels, index, index, Fraction(1, 30))
    restorer.submit(frame)
    collected = restorer.collect()
    assert collected is frame
    return frame.pixels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["camera", "float"])
@pytest.mark.parametrize("operator", ["inf", "nan"])
def test_frame_and_layer_are_named(backend: str, form: str, operator: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    path = overflowing(tmp_path, form, operator)
    restorer = backends.create(backend, [path], threads=1)
    restorer.open(48, 64)
    dark = picture(0, 48, 64) // 2
    submitted(restorer, dark, 11)
    bright = dark.copy()
    bright[20, 30] = 255
    with pytest.raises(BackendError) as caught:
        submitted(restorer, bright, 12)
    assert f"the output of '{path}' for frame 12 is not finite" in caught.value.found
    assert "first layer whose output is not is 'bad' (Mul)" in caught.value.found
    submitted(restorer, dark, 13)  # it goes on for whoever wants that
    restorer.close()


def test_a_node_without_a_name_is_named_by_its_output(tmp_path: Path) -> None:
    restorer = backends.create("onnxruntime", [overflowing(tmp_path, "camera", "nan", "")])
    restorer.open(48, 64)
    with pytest.raises(BackendError, match=r"is 'bad' \(Mul\)"):
        submitted(restorer, np.full((48, 64, 3), 255, np.uint8), 0)


def test_every_tile_is_looked_at(tmp_path: Path) -> None:
    from edge_restore.backends import memory

    budget = 340 * 400 * memory.ACTIVATION_BYTES_PER_PIXEL
    path = overflowing(tmp_path, "camera", "inf")
    restorer = backends.create("onnxruntime", [path], threads=1, memory_budget=budget)
    restorer.open(560, 720)
    image = np.zeros((560, 720, 3), np.uint8)
    submitted(restorer, image, 0)
    image[-1, -1] = 255
    with pytest.raises(BackendError, match="for frame 1 is not finite"):
        submitted(restorer, image, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["camera", "float"])
def test_a_black_frame_that_is_not_finite_is_told_when_it_is_opened(
    backend: str, form: str, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    path = write_model(tmp_path, form)
    model = onnx.load(path)
    conv = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    node = onnx.helper.make_node("Div", [conv.input[0], "zero"], ["infinite"], "by zero")
    model.graph.node.insert(list(model.graph.node).index(conv), node)
    conv.input[0] = "infinite"
    path.write_bytes(model.SerializeToString())
    write_card(path, form)
    restorer = backends.create(backend, [path], threads=1)
    with pytest.raises(
        BackendError, match=r"for a black frame is not finite: .* 'by zero' \(Div\)"
    ):
        restorer.open(48, 64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["camera", "float"])
def test_a_model_that_enlarges_is_refused_when_it_is_opened(
    backend: str, form: str, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    path = write_model(tmp_path, form)
    model = onnx.load(path)
    last = model.graph.node[-1]
    axes = [1.0, 2.0, 2.0, 1.0] if form == "camera" else [1.0, 1.0, 2.0, 2.0]
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(axes, np.float32), "scales")
    )
    node = onnx.helper.make_node("Resize", [last.input[0], "", "scales"], ["larger"], "larger")
    model.graph.node.insert(len(model.graph.node) - 1, node)
    model.graph.node[-1].input[0] = "larger"
    path.write_bytes(model.SerializeToString())
    write_card(path, form)
    restorer = backends.create(backend, [path], threads=1)
    with pytest.raises(ModelError) as caught:
        restorer.open(48, 64)
    small, large = ([1, 48, 64, 3], [1, 96, 128, 3]) if form == "camera" else (
        [1, 3, 48, 64], [1, 3, 96, 128]
    )  # fmt: skip
    assert f"gives {large} for {small}" in caught.value.found


@pytest.mark.parametrize("path", sorted(zoo.FOLDER.glob("*.onnx")), ids=lambda path: path.stem)
def test_what_is_summed_is_what_is_clipped(path: Path) -> None:
    model = Model.read(path)
    tensor = finiteness._unrounded(model.graph, model.card.output.name)
    clip = next(node for node in model.graph.nodes if node.name == "camera/Clip")
    assert clip.inputs[0] == tensor


@pytest.mark.parametrize("stem", ["svdn", "svdn-gridsample-fp16", "svdn-int8", "lmfn"])
def test_shipped_graphs_restore_the_same_with_it(stem: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = Model.read(zoo.FOLDER / f"{stem}.onnx")
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    if model.card.deformable == "DeformConv" and version < (1, 24):
        pytest.skip("ONNX Runtime before 1.24 has no DeformConv")
    image = picture(0, 32, 48)[None]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    plain, watched = (
        ort.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {"image": image})
        for content in (model.content, finiteness.watched(model))
    )
    np.testing.assert_array_equal(plain[0], watched[0])
    assert len(watched) == 2 and np.isfinite(watched[1])
    assert finiteness.first_layer(model, {"image": image}) is None
