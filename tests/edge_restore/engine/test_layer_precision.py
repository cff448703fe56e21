"""Reading what a built engine computes in, and refusing what was not asked for."""

from __future__ import annotations

import json

import pytest

from edge_restore.engine import layer_precision
from edge_restore.engine.build_log import BuildLog
from edge_restore.engine.layer_precision import Layer, Precisions
from edge_restore.errors import BackendError

# Lines that TensorRT-RTX 1.7.1 printed, shortened by dimensions and formats.
DUMP = """Layers:
Name: __myl_CastTran_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Datatype: UInt8 }], \
Constants: [ { Name: c, Datatype: Float }], Outputs: [ { Name: a, Datatype: Half }, { Name: b, \
Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: camera/Cast]
Name: stem.0/Conv_U14_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Datatype: Half }], \
Constants: [ { Name: w, Datatype: Half }, { Name: s, Datatype: Float }], \
Outputs: [ { Name: d, Datatype: Half }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: x
Name: groups.0/Conv_U2, LayerType: correlation, Inputs: [ { Name: q, Datatype: Int8 }], \
Constants: [ { Name: w, Datatype: Int8 }], Outputs: [ { Name: e, Datatype: Float }], TacticName: t
Name: __myl_Move_myl0_16, LayerType: kgen, Inputs: [ { Name: d, Datatype: Half }], \
Constants: [], Outputs: [ { Name: f, Datatype: Half }], TacticName: t, StreamId: 0, Metadata:

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8
"""


def test_the_builder_s_list() -> None:
    layers = layer_precision.from_log(DUMP)
    assert [(layer.kind, layer.inputs, layer.outputs) for layer in layers] == [
        ("kgen", ("other",), ("fp16", "fp32")),
        ("correlation", ("fp16",), ("fp16",)),
        ("correlation", ("int8",), ("fp32",)),
        ("kgen", ("fp16",), ("fp16",)),
    ]
    assert [layer.precision for layer in layers] == ["fp32", "fp16", "int8", "fp16"]
    assert Precisions.of(layers) == Precisions(
        {"int8": 1, "fp16": 2, "fp32": 1, "other": 0}, {"int8": 1, "fp16": 1, "fp32": 0, "other": 0}
    )


@pytest.mark.parametrize("text", ["", "Layers:\n", "Layers:\nsomething else\n", "Name: x"])
def test_a_list_of_another_form_has_no_layers(text: str) -> None:
    assert layer_precision.from_log(text) == []


def test_the_inspector_s_json() -> None:
    """Written after NVIDIA's documentation of both forms; no GPU has given one to this test."""
    old = {"Name": "image", "Format/Datatype": "Row major linear FP16 format"}
    new = {"Name": "image", "Datatype": "Half", "Format": "(NHWC) Channel major format"}
    text = json.dumps(
        {
            "Layers": [
                {"Name": "stem", "LayerType": "CaskConvolution", "Inputs": [old], "Outputs": [old]},
                {"Name": "tail", "LayerType": "CaskGemmMatrixMultiply", "Inputs": [new]},
                {"Name": "Reformatting CopyNode to stem/Conv", "LayerType": "Reformat"},
                "a name alone",
            ]
        }
    )
    layers = layer_precision.from_inspector(text)
    assert [layer.is_matrix for layer in layers] == [True, True, False]
    assert [layer.precision for layer in layers] == ["fp16", "fp16", "other"]
    for nothing in ("", "not JSON", "[]", "{}", '{"Layers": ["a", "b"]}'):
        assert layer_precision.from_inspector(nothing) == []


def counts(**numbers: int) -> Precisions:
    all_ = {"int8": 0, "fp16": 0, "fp32": 0, "other": 0, **numbers}
    return Precisions(all_, all_)


@pytest.mark.parametrize(
    ("found", "wanted", "typed"),
    [
        (counts(fp16=36), "fp16", 36),
        (counts(fp16=18, fp32=2), "fp16", 36),  # fused in pairs
        (counts(int8=18, fp32=18), "int8", 18),
        (counts(fp32=36), "fp32", 36),
    ],
)
def test_what_is_good(found: Precisions, wanted: str, typed: int) -> None:
    layer_precision.check(found, wanted, typed)


@pytest.mark.parametrize(
    ("found", "wanted", "typed"),
    [
        (counts(fp32=36), "fp16", 36),
        (counts(fp32=36), "fp16", 0),
        (counts(fp32=30, fp16=6), "fp16", 36),
        (counts(fp16=36), "int8", 18),
        (counts(fp32=35, fp16=1), "fp32", 36),
    ],
)
def test_what_came_out_otherwise(found: Precisions, wanted: str, typed: int) -> None:
    with pytest.raises(BackendError, match=f"another precision than {wanted}.*was not written"):
        layer_precision.check(found, wanted, typed)


def test_layers_that_are_no_matrix_products() -> None:
    assert not Layer("__myl_CastTranMulCastConc_myl0_0", "kgen", ("fp16",), ()).is_matrix
    assert Layer("__myl_CorrAdd_myl0_13", "runtime_fusion", ("fp16",), ()).is_matrix


def test_the_log() -> None:
    log = BuildLog()
    assert (log.text, log.layers_dump(), log.scratch_bytes()) == ("", "", None)
    log.add("info", "Max Scratch Memory: 123 bytes")
    log.add("error", "IBuilder: Error Code 4: bad\nsecond line")
    log.add("error", "[checkMacros.cpp::catchCudaError::250] Error Code 1: no driver")
    log.add("internal_error", "IBuilder: Error Code 4: bad")
    log.add("verbose", DUMP)
    assert log.errors() == ["IBuilder: Error Code 4: bad"]
    assert log.layers_dump() == DUMP and log.scratch_bytes() == 123
    digest = log.sha256
    log.add("info", "one more")
    assert log.sha256 != digest
