"""A model is read once: what was compared with the card is what runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore import backends
from edge_restore.backends.restorer import restore_one
from edge_restore.engine import network
from edge_restore.engine.flavour import Flavour
from edge_restore.errors import CardError, DependencyError, ModelError
from edge_restore.models import cards, zoo
from edge_restore.models import model as models
from edge_restore.models.cards import TensorPort, card_path
from edge_restore.models.model import Model
from tests.edge_restore.clips import picture
from tests.edge_restore.onnx_models import write_card, write_model

onnx = pytest.importorskip("onnx", reason="the models are made with onnx")


def doubled(path: Path) -> bytes:
    """The file's network with another scale: it gives other pictures."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "unit":
            tensor.float_data[:] = [1 / 510]
    return bytes(model.SerializeToString())


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets a file and its card be replaced as soon as their content was read and compared."""

    def swapped(path: Path) -> None:
        other = doubled(path)
        real = cards.check_digest

        def swap(described: Path, content: bytes, expected: str) -> None:
            real(described, content, expected)
            described.write_bytes(other)
            write_card(described)

        monkeypatch.setattr(cards, "check_digest", swap)
        monkeypatch.setattr(models, "check_digest", swap)

    return swapped


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_swapped_after_its_check_is_not_run(
    backend: str, tmp_path: Path, swapped: Callable[[Path], None]
) -> None:
    pytest.importorskip(backend)
    path = write_model(tmp_path)
    image = picture(0, 48, 64)
    expected = restored(backend, path, image)
    swapped(path)
    found = restored(backend, path, image)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(restored(backend, path, image), expected)  # it was swapped


def restored(backend: str, path: Path, image: Any) -> Any:
    restorer = backends.create(backend, [path], threads=1)
    restorer.open(*image.shape[:2])
    return restore_one(restorer, image)


def test_a_builder_parses_what_was_compared(
    tmp_path: Path, swapped: Callable[[Path], None]
) -> None:
    path = write_model(tmp_path)
    content = path.read_bytes()
    card = cards.model_card(path)
    swapped(path)
    assert Model.of_card(path, card).content == content
    with pytest.raises(CardError, match="does not match its card"):
        Model.of_card(path, card)


def test_a_plan_whose_file_was_replaced_is_refused(tmp_path: Path) -> None:
    try:
        from edge_restore.engine import flavour

        rtx: Flavour = flavour.load("rtx")
    except DependencyError as error:
        pytest.skip(error.found)
    from edge_restore.engine.plan import make_plan

    path = write_model(tmp_path)
    plan = make_plan(path, rtx, precision="fp32", size=(48, 64), gpu=None)
    path.write_bytes(doubled(path))
    write_card(path)
    logger = rtx.trt.Logger(rtx.trt.Logger.ERROR)
    with pytest.raises(CardError, match="does not match its card"):
        network.parse(rtx.trt.Builder(logger), logger, plan, weak=False)


def external_initializer(model: Any) -> None:
    moved(model.graph.initializer[0])


def external_attribute(model: Any) -> None:
    value = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [1], [0.0])
    moved(value)
    node = onnx.helper.make_node("Constant", [], ["unused"], value=value)
    model.graph.node.insert(0, node)


def external_in_a_subgraph(model: Any) -> None:
    value = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [0.0])
    moved(value)
    port = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([], "branch", [], [port], [value])
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    model.graph.initializer.append(true)
    node = onnx.helper.make_node("If", ["true"], ["unused"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, node)


def external_in_a_list_of_graphs(model: Any) -> None:
    external_in_a_subgraph(model)
    (graph,) = (a.g for a in model.graph.node[0].attribute[:1])
    node = onnx.helper.make_node("Identity", ["image"], ["unused2"], domain="x", graphs=[graph])
    del model.graph.node[0]
    model.graph.node.append(node)


def external_sparse(model: Any) -> None:
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [0.0])
    places = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    moved(values)
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4]))


def external_in_a_function(model: Any) -> None:
    external_attribute(model)
    node = model.graph.node[0]
    opsets = [onnx.helper.make_opsetid("", 19)]
    function = onnx.helper.make_function("own", "F", [], ["unused"], [node], opsets)
    model.functions.append(function)
    del model.graph.node[0]


def flagged_alone(model: Any) -> None:
    """Without the place where it lies: some readers take a default, some crash."""
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def moved(tensor: Any) -> None:
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize(
    "move",
    [
        external_initializer, external_attribute, external_in_a_subgraph,
        external_in_a_list_of_graphs, external_sparse, external_in_a_function, flagged_alone,
    ],
)  # fmt: skip
def test_weights_in_another_file_are_refused(move: Callable[[Any], None], tmp_path: Path) -> None:
    path = write_model(tmp_path)
    model = onnx.load(path)
    move(model)
    path.write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 16))
    write_card(path)
    for read in (Model.read, lambda p: backends.create("onnxruntime", [p])):
        with pytest.raises(ModelError, match=r"keeps the tensor '.*' in another file") as caught:
            read(path)
        assert caught.value.hint


def test_a_graph_in_pieces_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    """Protocol buffers put together what stands in several pieces; so does the check."""
    path = write_model(tmp_path)
    extra = onnx.ModelProto()
    moved(extra.graph.initializer.add(name="late", data_type=1, dims=[4]))
    path.write_bytes(path.read_bytes() + extra.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match="keeps the tensor 'late' in another file"):
        Model.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_weights_that_are_not_finite_are_refused(
    value: float, raw: bool, kind: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path)
    model = onnx.load(path)
    values = np.ones(7, kind)
    values[3] = value
    if raw:
        tensor = onnx.numpy_helper.from_array(values, "bad")
    else:
        element = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = onnx.helper.make_tensor("bad", element, [7], values)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match="not finite: 1 of 7 values of 'bad'"):
        Model.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_constant_that_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), "scale"))
    path.write_bytes(model.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match="not finite: 1 of 1 values of 'scale'"):
        Model.read(path)


@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "int8", "uint8", "int64"])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [[], [8], [2, 3], [-7], [0], [7, 1 << 40]])
def test_a_constant_of_another_size_than_its_shape_is_refused(
    kind: str, raw: bool, shape: list[int], tmp_path: Path
) -> None:
    path = write_model(tmp_path)
    model = onnx.load(path)
    values = np.ones(7, kind)
    if raw:
        tensor = onnx.numpy_helper.from_array(values, "bad")
    else:
        element = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = onnx.helper.make_tensor("bad", element, [7], values)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    write_card(path)
    Model.read(path)
    del model.graph.initializer[-1].dims[:]
    model.graph.initializer[-1].dims.extend(shape)
    path.write_bytes(model.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match="'bad' holds 7 values, its shape is"):
        Model.read(path)


@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_is_refused(channels: int, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    port = TensorPort("image", "uint8", "NHWC", (1, None, None, channels))
    write_card(path, input=port)
    with pytest.raises(ModelError, match=rf"takes 1 image\(s\) of {channels} channel"):
        Model.read(path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = channels
    path.write_bytes(model.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match=rf"takes 'image' of uint8, \[1, \?, \?, {channels}\]"):
        Model.read(path)


def test_a_fixed_size_that_the_card_does_not_tell_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    model = onnx.load(path)
    for axis, side in ((1, 48), (2, 64)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
    path.write_bytes(model.SerializeToString())
    write_card(path)
    with pytest.raises(ModelError, match=r"\[1, 48, 64, 3\]") as caught:
        Model.read(path)
    assert "[1, ?, ?, 3] (NHWC), as its card says" in str(caught.value.expected)


GARBAGE = [
    b"", b"\x00", b"\xff" * 64, b"ORTM" * 16, b"\x3a\xff\xff\xff\xff\x0f", b"\x3a" + b"\x80" * 40,
    b"\x08" * 33, b"\x3a\x02\x0a\x7f", b"PK\x03\x04" + bytes(64), b"\x3b\x3b\x3b",
]  # fmt: skip


@pytest.mark.parametrize("content", GARBAGE)
def test_what_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(content)
    write_card(path)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        Model.read(path)


def test_any_damage_is_a_message_or_a_model(tmp_path: Path) -> None:
    content = write_model(tmp_path).read_bytes()
    random = np.random.default_rng(7)
    path = tmp_path / "small.onnx"
    for _ in range(400):
        damaged = bytearray(content[: random.integers(1, len(content))])
        for place in random.integers(0, len(damaged), random.integers(0, 9)):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        write_card(path)
        try:
            Model.read(path)
        except ModelError:
            continue


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    inner = b""
    for _ in range(2000):  # graph -> node -> attribute -> graph ...
        for number in (0x0A, 0x2A, 0x32):
            size, digits = len(inner), bytearray()
            while size > 127:
                digits.append(size & 127 | 128)
                size >>= 7
            inner = bytes([number]) + bytes([*digits, size]) + inner
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x3a" + inner[1:])
    write_card(path)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        Model.read(path)


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises((ModelError, CardError)):
        Model.read(path)


def test_a_file_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path)
    monkeypatch.setattr(cards, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(CardError, match="is larger than"):
        Model.read(path)


@pytest.mark.parametrize("path", sorted(zoo.FOLDER.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_graph_is_what_onnx_reads(path: Path) -> None:
    found, expected = Model.read(path).graph, onnx.load(path).graph
    assert [port.name for port in found.inputs] == [port.name for port in expected.input]
    assert list(found.constants) == [tensor.name for tensor in expected.initializer]
    for tensor in expected.initializer:
        values = found.constants[tensor.name].floats()
        assert found.constants[tensor.name].dims == tuple(tensor.dims)
        if values is not None:
            np.testing.assert_array_equal(values, onnx.numpy_helper.to_array(tensor).ravel())
    for node, other in zip(found.nodes, expected.node, strict=True):
        assert (node.name, node.operator, node.domain) == (other.name, other.op_type, other.domain)
        assert node.inputs == tuple(other.input) and node.outputs == tuple(other.output)
        assert len(node.attributes) == len(other.attribute)
        for attribute in other.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            value = value.decode() if isinstance(value, bytes) else value
            value = tuple(value) if isinstance(value, list) else value
            assert node.attributes[attribute.name] == pytest.approx(value)


def test_the_model_s_text_does_not_hold_the_file(tmp_path: Path) -> None:
    model = Model.read(write_model(tmp_path))
    assert len(repr(model)) < 4000 and card_path(model.path).is_file()
