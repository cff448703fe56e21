"""ONNX's own tests of DeformConv, through the kernel and through the lowering to GridSample."""

import importlib

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as onnx_cases

from export.graph import finish
from export.lowering import lower


def _cases():
    # As onnx's collect_testcases does, without generating the other operators' thousand cases.
    before = onnx_cases._TargetOpType, len(onnx_cases._NodeTestCases)
    onnx_cases._TargetOpType = "DeformConv"
    try:
        importlib.import_module("onnx.backend.test.case.node.deformconv")
        return onnx_cases._NodeTestCases[before[1] :]
    finally:
        onnx_cases._TargetOpType = before[0]


CASES = _cases()


def _named(case):
    """Inputs by DeformConv's names, the options, and the expected output."""
    (node,) = case.model.graph.node
    ((given, (expected,)),) = case.data_sets
    names = ("image", "weight", "offset", "bias", "mask")
    present = [name for name, wired in zip(names, node.input, strict=False) if wired]
    tensors = dict.fromkeys(names) | dict(zip(present, given, strict=True))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    pads = attributes.get("pads", [0, 0, 0, 0])
    options = {
        "stride": tuple(attributes.get("strides", (1, 1))),
        "padding": tuple(pads[:2]),
        "dilation": tuple(attributes.get("dilations", (1, 1))),
        "groups": attributes.get("group", 1),
        "offset_groups": attributes.get("offset_group", 1),
    }
    return tensors, options, expected


def test_onnx_has_the_cases_that_we_know():
    assert {case.name for case in CASES} >= {
        "test_basic_deform_conv_with_padding",
        "test_basic_deform_conv_without_padding",
        "test_deform_conv_with_mask_bias",
        "test_deform_conv_with_multiple_offset_groups",
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_through_the_kernel(case):
    pytest.importorskip("triton")
    from export.deform_conv.launch import deform_conv2d

    tensors, options, expected = _named(case)
    tensors = {n: None if v is None else torch.from_numpy(v) for n, v in tensors.items()}
    found = deform_conv2d(**tensors, **options)
    np.testing.assert_allclose(found.numpy(), expected, rtol=case.rtol, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_through_the_lowering(case, run):
    """The lowering wants the weight as a constant, as an exported network has it."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    tensors, _, expected = _named(case)
    (node,) = model.graph.node
    weight = node.input[1]
    model.graph.initializer.append(numpy_helper.from_array(tensors["weight"], weight))
    ports = [port for port in model.graph.input if port.name != weight]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    ((given, _),) = case.data_sets
    wired = [name for name in node.input if name]
    feeds = dict(zip(wired, given, strict=True))
    del feeds[weight]
    model.opset_import[0].version = 19  # GridSample is written in no later one
    lowered = finish(lower(model))
    assert "DeformConv" not in {node.op_type for node in lowered.graph.node}
    np.testing.assert_allclose(run(lowered, **feeds), expected, rtol=case.rtol, atol=1e-5)
