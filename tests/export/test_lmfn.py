"""LMFN as a graph: attention in FP32, constants folded, the command from weights to file."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edge_restore.models.cards import card_path, verify
from export import graph, precision
from export.__main__ import main
from train.networks import create

ARGUMENTS = {"width": 8, "block_width": 8, "blocks": 2}


@pytest.fixture(scope="module")
def lmfn():
    """Its restored image depends on every layer, both attentions included."""
    torch.manual_seed(0)
    network = create("lmfn", **ARGUMENTS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network.fusion.layers.theta.fill_(0.5)
        network.fusion.channels.alpha.fill_(0.5)
    return network.eval()


@pytest.fixture(scope="module")
def lmfn_graph(lmfn):
    return graph.build(lmfn, form="float", size=None, opset=19)


def test_the_product_over_the_picture_stays_fp32_and_little_else(lmfn_graph):
    typed, kept = precision.to_fp16(lmfn_graph)
    kinds = {node.name: node.op_type for node in typed.graph.node}
    (product,) = (name for name in kept if kinds[name] == "MatMul")
    assert product.startswith("fusion.layers/")
    assert any(kinds[name] == "Softmax" for name in kept)
    assert not any(kinds[name] in ("Conv", "ConvTranspose") for name in kept)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(typed, strict_mode=True).graph.value_info
    }
    node = next(n for n in typed.graph.node if n.name == product)
    assert {types[name] for name in node.input} == {TensorProto.FLOAT}
    (other,) = (n for n in typed.graph.node if n.op_type == "MatMul" and n.name != product)
    assert {types[name] for name in other.input} == {TensorProto.FLOAT16}


def test_a_product_that_no_softmax_takes_is_fp16():
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in ("a", "b")]
    model = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["a", "a"], ["b"], "m")], "g",
                          ports[:1], ports[1:])
    )  # fmt: skip
    assert precision.islands(model) == ()


def test_shared_kernels_are_folded_into_plain_convolutions(lmfn_graph):
    constants = {tensor.name: list(tensor.dims) for tensor in lmfn_graph.graph.initializer}
    layers = [n for n in lmfn_graph.graph.node if n.name.startswith("fusion.channels/")]
    shapes = [constants[n.input[1]] for n in layers if n.op_type == "Conv"]
    assert shapes == [[8, 1, 3, 3], [8, 8, 1, 1]]
    assert not {"Expand", "ScatterND", "Where"} & {n.op_type for n in layers}


@pytest.mark.parametrize(
    ("flags", "form"),
    [([], "float"), (["--form", "camera", "--precision", "fp16"], "camera")],
)
def test_exports_with_parity(lmfn, save_weights, tmp_path, flags, form, capsys):
    weights = save_weights(
        lmfn.state_dict(), "lmfn", network="lmfn", arguments=ARGUMENTS, multiple=16
    )
    out = tmp_path / "exported.onnx"
    assert main(["lmfn", "--weights", str(weights), "--out", str(out), *flags]) == 0
    assert "75x101: ONNX Runtime and torch differ by" in capsys.readouterr().out
    card = verify(card_path(out))
    assert (card.network, card.form, card.multiple, card.deformable) == ("lmfn", form, 16, "none")
    assert any("fusion.layers/MatMul" in name for name in card.fp32_islands) == bool(flags)
