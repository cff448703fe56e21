"""What `engine.read_back` reads of layers can be read in every version that is served.

A name that is missing there would not fail: it would leave an attribute uncompared.
"""

from __future__ import annotations

from pathlib import Path

from edge_restore.engine import read_back
from tests.contract.bindings import Bindings

NAMES = {
    "IActivationLayer": ("type", "alpha", "beta"),
    "IConcatenationLayer": ("axis",),
    "IConvolutionLayer": ("kernel_size_nd", "stride_nd", "pre_padding", "post_padding",
                          "dilation_nd", "num_groups", "num_output_maps"),
    "IDeconvolutionLayer": ("kernel_size_nd", "stride_nd", "pre_padding", "post_padding",
                            "dilation_nd", "num_groups", "num_output_maps"),
    "IDequantizeLayer": ("axis",),
    "IElementWiseLayer": ("op",),
    "IGatherLayer": ("axis",),
    "IGridSampleLayer": ("interpolation_mode", "sample_mode", "align_corners"),
    "IMatrixMultiplyLayer": ("op0", "op1"),
    "INormalizationLayer": ("epsilon", "axes"),
    "IPoolingLayer": ("type", "window_size_nd", "stride_nd", "pre_padding", "post_padding",
                      "padding_mode", "average_count_excludes_padding"),
    "IQuantizeLayer": ("axis",),
    "IReduceLayer": ("op", "axes", "keep_dims"),
    "IResizeLayer": ("resize_mode", "coordinate_transformation", "nearest_rounding",
                     "cubic_coeff", "exclude_outside"),
    "IShuffleLayer": ("first_transpose", "second_transpose"),
    "ISliceLayer": ("start", "stride"),
    "ISoftMaxLayer": ("axes",),
    "IUnaryLayer": ("op",),
    "ILayer": ("metadata", "name", "type"),
}  # fmt: skip
MEMBERS = {
    "LayerType": tuple(read_back._CLASSES),
    "InterpolationMode": ("LINEAR", "NEAREST", "CUBIC"),
    "SampleMode": ("FILL", "CLAMP", "REFLECT"),
    "ResizeCoordinateTransformation": ("ALIGN_CORNERS", "ASYMMETRIC", "HALF_PIXEL"),
    "ResizeRoundMode": ("HALF_DOWN", "HALF_UP", "FLOOR", "CEIL"),
    "ActivationType": ("RELU", "LEAKY_RELU", "CLIP", "SIGMOID", "TANH", "ELU", "HARD_SIGMOID"),
    "PoolingType": ("MAX", "AVERAGE"),
    "PaddingMode": ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP"),
    "MatrixOperation": ("NONE",),
    "DataType": ("FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL", "BF16"),
    "ReduceOperation": ("AVG", "SUM", "MAX", "MIN", "PROD"),
    "ElementWiseOperation": tuple(read_back._ELEMENTWISE.values()),
    "UnaryOperation": tuple(read_back._UNARY.values()),
}


def test_every_version_lets_it_be_read(installed: Bindings, stand_ins: Path) -> None:
    assert set(read_back._CLASSES.values()) - set(NAMES) == {"ICastLayer"}  # asked for its output
    paths = [[kind, name] for kind, names in (NAMES | MEMBERS).items() for name in names]
    found = installed.run(stand_ins, "tests.contract.names_child", [*paths, ["ICastLayer"]])
    assert [name for name, entry in found.items() if not entry["exists"]] == []
