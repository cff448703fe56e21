"""The exported graph: which operators, which names, which shapes, and that it computes SVDN."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_restore.errors import InternalError, OptionError
from export import graph
from train.networks import create
from train.networks.deform_conv import DeformConv2d

SVDN_OPERATORS = {
    "Conv": 25, "PRelu": 14, "Add": 13, "Slice": 4, "Sigmoid": 2, "DeformConv": 2, "Concat": 1,
    "Split": 1, "ConvTranspose": 1,
}  # fmt: skip


def shape(port):
    return [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim]


def test_holds_the_network_and_nothing_else(float_graph):
    assert Counter(node.op_type for node in float_graph.graph.node) == SVDN_OPERATORS


def test_camera_form_adds_the_conversion_alone(float_graph, camera_graph):
    nodes = [node for node in camera_graph.graph.node if node.name.startswith("camera/")]
    operators = [node.op_type for node in nodes]
    assert operators == ["Cast", "Transpose", "Mul", "Clip", "Mul", "Round", "Transpose", "Cast"]
    others = [node.name for node in camera_graph.graph.node if node not in nodes]
    assert others == [node.name for node in float_graph.graph.node]


def test_tensorrt_wants_casts_at_both_ends_of_the_camera_form(camera_graph):
    first, last = camera_graph.graph.node[0], camera_graph.graph.node[-1]
    assert (first.op_type, *first.input) == ("Cast", "image")
    assert (last.op_type, *last.output) == ("Cast", "restored")


def test_nodes_are_called_after_their_modules(float_graph, network):
    names = [node.name for node in float_graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem.0/Conv", "groups.2.1.body.2/Conv", "neck.deform2/DeformConv"} <= set(names)
    modules = dict(network.named_modules())
    kinds = {
        "Conv": torch.nn.Conv2d,
        "ConvTranspose": torch.nn.ConvTranspose2d,
        "DeformConv": DeformConv2d,
        "PRelu": torch.nn.PReLU,
    }
    for node in float_graph.graph.node:
        path, _, operator = node.name.rpartition("/")
        assert path in modules
        assert operator.startswith(node.op_type)
        assert isinstance(modules[path], kinds.get(node.op_type, torch.nn.Module))


def test_tensors_are_called_after_their_nodes_and_constants_after_parameters(float_graph, network):
    for node in float_graph.graph.node[:-1]:
        assert all(output.split(":")[0] == node.name for output in node.output)
    constants = {t.name: numpy_helper.to_array(t) for t in float_graph.graph.initializer}
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        layer, _, _ = name.rpartition(".")
        if f"{layer}/PRelu:slope" in constants:  # reshaped to be broadcast
            found = constants.pop(f"{layer}/PRelu:slope").reshape(-1)
        else:
            found = constants.pop(name)
        np.testing.assert_array_equal(found, parameter.detach().numpy())
    assert all(name.startswith("neck/Slice") for name in constants)


@pytest.mark.parametrize(
    ("form", "type_", "expected"),
    [
        ("float", onnx.TensorProto.FLOAT, [1, 3, "height", "width"]),
        ("camera", onnx.TensorProto.UINT8, [1, "height", "width", 3]),
    ],
)
def test_ports_of_dynamic_graphs(form, type_, expected, float_graph, camera_graph):
    model = {"float": float_graph, "camera": camera_graph}[form]
    for port, name in ((model.graph.input, "image"), (model.graph.output, "restored")):
        assert [(p.name, p.type.tensor_type.elem_type, shape(p)) for p in port] == [
            (name, type_, expected)
        ]


def test_fixed_size_and_older_opset(network, run):
    model = graph.build(network, form="float", size=(6, 10), opset=19)
    assert Counter(node.op_type for node in model.graph.node) == SVDN_OPERATORS
    assert shape(model.graph.input[0]) == shape(model.graph.output[0]) == [1, 3, 6, 10]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 19)]
    image = torch.rand(1, 3, 6, 10)
    with torch.no_grad():
        expected = network(image)
    np.testing.assert_allclose(run(model, image=image.numpy()), expected, atol=1e-5)


def test_dynamic_graph_runs_at_any_multiple(float_graph, network, run):
    for size in ((2, 2), (18, 4), (34, 50)):
        image = torch.rand(1, 3, *size)
        with torch.no_grad():
            expected = network(image)
        np.testing.assert_allclose(run(float_graph, image=image.numpy()), expected, atol=2e-5)


def test_agrees_with_the_reference_implementation_of_onnx(float_graph, network):
    image = torch.rand(1, 3, 4, 6)
    with torch.no_grad():
        expected = network(image)
    found = ReferenceEvaluator(float_graph).run(None, {"image": image.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The comparison says something of sampling: shifted offsets give another output.
    moved = onnx.ModelProto()
    moved.CopyFrom(float_graph)
    bias = next(t for t in moved.graph.initializer if t.name == "neck.ow1.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    found = ReferenceEvaluator(moved).run(None, {"image": image.numpy()})[0]
    assert abs(found - expected.numpy()).max() > 1e-4


def test_the_network_itself_is_left_alone(float_graph, network):
    assert sum(isinstance(m, DeformConv2d) for m in network.modules()) == 2


def test_a_network_without_deformable_layers():
    plain = create("svdn", width=4, feature_deconvolution=False)
    model = graph.build(plain, form="float", size=(4, 4), opset=19)
    assert "DeformConv" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("opset", [11, 18, 99])
def test_opset_out_of_range(opset, network):
    with pytest.raises(OptionError, match=f"opset {opset} cannot be exported") as caught:
        graph.build(network, form="float", size=None, opset=opset)
    assert "19 (the first with DeformConv)" in caught.value.expected


@pytest.mark.parametrize("size", [(45, 80), (46, 81), (0, 8)])
def test_size_that_is_no_multiple(size, network):
    with pytest.raises(OptionError, match="does not suit the network") as caught:
        graph.build(network, form="float", size=size, opset=19)
    assert "multiples of 2" in caught.value.expected


def test_finish_refuses_an_invalid_graph(float_graph):
    broken = onnx.ModelProto()
    broken.CopyFrom(float_graph)
    broken.graph.node[3].input[0] = "nothing"
    with pytest.raises(InternalError, match="not valid"):
        graph.finish(broken)
