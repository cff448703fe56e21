"""What the default policy quantises, and what each convolution costs."""

import onnx
import pytest

from calibration import layers, quantiser
from edge_restore.errors import ModelError
from edge_restore.models import zoo
from train import profiler
from train.networks import create


def found_in(path):
    model, card = quantiser.load(path)
    return layers.layers(model, card.multiple)


def test_svdn_interior_convolutions_alone(models):
    found = {layer.name: layer.kept for layer in found_in(models["fp32"])}
    taken = {name for name, kept in found.items() if not kept}
    groups = {f"groups.{g}.{b}.body.{c}/Conv" for g in range(3) for b in range(3) for c in (0, 2)}
    assert taken == {"stem.2/Conv", "fusion/Conv", *groups}
    assert found["stem.0/Conv"] == "the first convolution"
    assert found["tail/Conv"] == "the last convolution"
    offsets = {n for n, kept in found.items() if kept == "predicts offsets or masks"}
    assert offsets == {"neck.ow1/Conv", "neck.ow2.1/Conv", "neck.ow2.3/Conv"}
    assert "ConvTranspose" in found["upsample.0/ConvTranspose"]


def test_lmfn_keeps_its_ends_and_the_grouped_one(lmfn):
    found = {layer.name: layer.kept for layer in found_in(lmfn)}
    assert found["encoder.first.0/Conv"] == "the first convolution"
    assert found["tail.0/Conv"] == "the last convolution"
    grouped = [n for n, kept in found.items() if kept == "a grouped convolution"]
    assert grouped == ["fusion.channels/Conv"]
    assert found["fusion.channels/Conv_1"] == "its kernel is computed"
    assert sum(not kept for kept in found.values()) > 40


def test_multiply_accumulates_are_the_profilers():
    """Of the shipped SVDN: the sum over convolutions is what the profiler counts."""
    path = zoo.find("svdn")[0]
    found = found_in(path)
    assert sum(layer.macs for layer in found) == profiler.profile(create("svdn"), (360, 640)).macs
    assert quantiser.share(found, [la.name for la in found if not la.kept]) >= 0.6


def test_the_float_form_has_the_same_layers(models):
    assert found_in(models["float"]) == [
        layer if layer.tensor != "camera/Mul" else layers.Layer(
            layer.name, layer.operator, "image", layer.macs, layer.kept
        )
        for layer in found_in(models["fp32"])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "message"),
    [("gridsample-fp16", "has GridSample nodes"), ("plugin-fp16", "nodes, which hide what")],
)
def test_forms_that_hide_offsets_are_refused(models, form, message):
    with pytest.raises(ModelError, match=message):
        found_in(models[form])


def test_a_subgraph_is_refused(models):
    model, _ = quantiser.load(models["fp32"])
    empty = onnx.helper.make_graph([], "empty", [], [])
    model.graph.node.append(
        onnx.helper.make_node("If", ["x"], ["y"], "if", then_branch=empty, else_branch=empty)
    )
    with pytest.raises(ModelError, match="subgraphs"):
        layers.check(model)
