"""A weights file becomes an ONNX file with its card, or nothing is left behind."""

from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch

from edge_restore import backends
from edge_restore.errors import BackendError, CardError, ModelError
from edge_restore.frames import Frame
from edge_restore.models.cards import card_path, verify
from export import exporter

CAMERA = exporter.Options(form="camera")


@pytest.fixture
def export(weights, tmp_path, camera_graph, monkeypatch):
    """Exports the camera form to model.onnx; tracing, which takes long, was done before."""
    monkeypatch.setattr(exporter.graph, "build", lambda *args, **kwargs: camera_graph)

    def export(options=CAMERA, weights=weights, network="svdn", out=tmp_path / "model.onnx"):
        try:
            card, _ = exporter.export(
                network, weights, out, options, name="mine", command="python -m export svdn"
            )
        except BackendError as error:  # an ONNX Runtime without DeformConv
            pytest.skip(error.found)
        return out, card

    return export


@pytest.mark.parametrize("deformable", ["DeformConv", "GridSample"])
def test_file_and_card(export, deformable, weights):
    out, card = export(exporter.Options(form="camera", deformable=deformable))
    assert verify(card_path(out)) == card
    document = card.to_json()
    assert document["onnx"]["bytes"] == out.stat().st_size
    assert document["weights"]["sha256"] == verify(card_path(weights)).weights.sha256
    assert document["input"] == {
        "name": "image", "dtype": "uint8", "layout": "NHWC", "shape": [1, None, None, 3],
    }  # fmt: skip
    assert document["output"] == {**document["input"], "name": "restored"}
    expected = {"name": "mine", "network": "svdn", "form": "camera", "deformable": deformable,
                "opset": 19, "multiple": 2, "task": "deblur", "licence": "Apache-2.0"}  # fmt: skip
    assert {key: document[key] for key in expected} == expected
    assert document["scores"][0]["psnr"] == 21.5
    assert len(document["parity"]) == 3
    operators = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert operators & {"DeformConv", "GridSample"} == {deformable}


def test_the_runtime_restores_with_it_what_torch_restores(export, network):
    out, _ = export()
    pixels = np.random.default_rng(0).integers(0, 256, (45, 67, 3), np.uint8)
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        expected = (network(image)[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    restorer = backends.create("onnxruntime", [out], threads=2)
    restorer.open(45, 67)
    restorer.submit(Frame(pixels=pixels, index=0, pts=0, time_base=Fraction(1, 30)))
    restored = restorer.collect().pixels
    restorer.close()
    assert abs(restored - expected).max() < 0.51


@pytest.fixture
def broken_graph(camera_graph, monkeypatch):
    """From here on, the graph that is built computes something else."""
    broken = onnx.ModelProto()
    broken.CopyFrom(camera_graph)
    bias = next(t for t in broken.graph.initializer if t.name == "fusion.bias")
    bias.raw_data = bytes(len(bias.raw_data))
    return lambda: monkeypatch.setattr(exporter.graph, "build", lambda *args, **kwargs: broken)


def test_a_graph_that_differs_leaves_nothing(export, broken_graph, tmp_path, weights):
    broken_graph()
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelError, match="nothing was written"):
        export()
    assert set(tmp_path.iterdir()) == before


def test_a_graph_that_differs_leaves_the_last_good_files(export, broken_graph):
    out, card = export()
    good = out.read_bytes()
    broken_graph()
    with pytest.raises(ModelError, match="nothing was written"):
        export()
    assert out.read_bytes() == good
    assert verify(card_path(out)) == card


def test_a_card_of_other_weights(export, weights, save_weights, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    card_path(copy).write_bytes(card_path(weights).read_bytes())
    with pytest.raises(CardError, match=r"describes 'svdn.safetensors', not 'copy.safetensors'"):
        export(weights=copy)


def test_fixed_size_in_the_card():
    port = exporter._port("image", exporter.Options(size=(6, 10)))
    assert (port.dtype, port.layout, port.shape) == ("float32", "NCHW", (1, 3, 6, 10))


@pytest.mark.parametrize("deformable", ["DeformConv", "GridSample", "plugin"])
def test_fp16(export, deformable):
    out, card = export(exporter.Options(form="camera", deformable=deformable, precision="fp16"))
    assert verify(card_path(out)) == card
    document = card.to_json()
    assert (document["precision"], document["deformable"]) == ("fp16", deformable)
    islands = document["fp32_islands"]
    assert {"camera/Clip", "camera/Mul"} <= set(islands)
    nodes = {node.name: node.op_type for node in onnx.load(str(out)).graph.node}
    assert set(islands) <= set(nodes)
    expected = {
        "DeformConv": "DeformConv", "GridSample": "GridSample", "plugin": None,
    }[deformable]  # fmt: skip
    assert expected is None or expected in {nodes[name] for name in islands}
    for size in document["parity"]:
        assert 60 <= size["psnr"] < 110
        assert size["max_abs_difference"] > 1e-5  # it was really rounded


def test_the_plugin_form(export):
    out, card = export(exporter.Options(form="camera", deformable="plugin"))
    assert (card.deformable, card.precision, card.fp32_islands) == ("plugin", "fp32", ())
    operators = [node.op_type for node in onnx.load(str(out)).graph.node]
    assert operators.count("EdgeRestoreDeformConv") == 2
    assert "DeformConv" not in operators and "Sigmoid" not in operators
    assert all(size.psnr is None and size.max_abs_difference < 1e-4 for size in card.parity)


def test_an_fp16_graph_that_misses_the_bar_leaves_nothing(export, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter.parity, "MIN_PSNR", 110.0)
    before = set(tmp_path.iterdir())
    with pytest.raises(
        ModelError, match=r"differ to \d\d\.\d dB of PSNR at 64x96; nothing was"
    ) as e:
        export(exporter.Options(form="camera", deformable="GridSample", precision="fp16"))
    assert e.value.expected == "at least 110 dB on a scale of [0, 1]"
    assert "--precision fp32" in e.value.hint
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_fp16_graph_that_is_broken(export, broken_graph, precision):
    broken_graph()
    with pytest.raises(ModelError, match="nothing was written"):
        export(exporter.Options(form="camera", deformable="plugin", precision=precision))
