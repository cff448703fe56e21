"""Route (a): the deformable convolution as a quick plugin, compiled ahead of time.

TensorRT asks the three functions here while it builds: what comes out (`describe`), which layouts
go (`layouts`), and with which kernel and arguments (`implement`). The kernel's PTX goes into the
engine, and nothing of this module is needed when the engine runs.

What TensorRT asks of such a plugin, beyond its documentation (read in tensorrt.plugin of 10.9,
10.16 and 11.4, and called by tests/contract): `tactic` and the return annotation of `implement` are
mandatory; `implement` must take every attribute; an attribute arrives from the ONNX parser as an
int32 array of one element; the kernel gets the inputs, then the scalars, all SymInt32, then the
outputs. There is one kernel and no workspace, and shapes are fixed when the engine is built.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_restore.engine.plugin.deform_conv import (
    ATTRIBUTES,
    INPUTS,
    NAMESPACE,
    OPERATOR,
    Attributes,
    KernelChoice,
    plan_launch,
)
from edge_restore.errors import BackendError

PLUGIN_ID = f"{NAMESPACE}::{OPERATOR}"

_LAYOUTS = {
    # image, ow, weight, bias, slope, output
    "fp16": ("FP16, FP16, FP16, FP32, FP32, FP16", "HWC8, HWC8, LINEAR, LINEAR, LINEAR, HWC8"),
    "fp32": ("FP32, FP32, FP32, FP32, FP32, FP32", "HWC, HWC, LINEAR, LINEAR, LINEAR, HWC"),
}
"""HWC8 is what TensorRT's own FP16 convolutions speak; FP32 has HWC, without padding."""


def define(trt: Any, trtp: Any, choose: KernelChoice) -> None:
    """Register the quick plugin.

    Args:
        trt: the module `tensorrt`.
        trtp: its module `tensorrt.plugin`.
        choose: gives the kernel for the GPU that is built for.
    """

    def describe(
        image: Any,
        ow: Any,
        weight: Any,
        bias: Any,
        slope: Any,
        kernel_h: Any,
        kernel_w: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        offset_groups: Any,
    ) -> Any:
        """The output: (N, Cout, Ho, Wo), of the image's type."""
        sides = (ow.shape_expr[2], ow.shape_expr[3])
        shape = (image.shape_expr[0], bias.shape_expr[0], *sides)
        return trtp.from_shape_expr(shape, dtype=image.dtype)

    def layouts(image: Any, ow: Any, weight: Any, bias: Any, slope: Any, outputs: Any) -> Any:
        """The one combination of types and layouts for the image's type."""
        types, formats = _LAYOUTS[precision_of(trt, image.dtype)]
        return [trtp.AutoTuneCombination(types, formats)]

    def implement(
        image: Any,
        ow: Any,
        weight: Any,
        bias: Any,
        slope: Any,
        kernel_h: Any,
        kernel_w: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        offset_groups: Any,
        outputs: Any,
        tactic: Any,
    ) -> Any:
        """The kernel's name and PTX, its launch geometry, and its scalar arguments."""
        given = (kernel_h, kernel_w, stride, padding, dilation, offset_groups)
        values = {name: int(np.ravel(v)[0]) for name, v in zip(ATTRIBUTES, given, strict=True)}
        shapes = [[int(side) for side in desc.shape] for desc in (image, ow, weight, bias)]
        attributes = Attributes.of(values)
        launch = plan_launch(choose, attributes, precision_of(trt, image.dtype), shapes)
        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y, params.grid_z = launch.grid
        params.block_x = launch.kernel.threads
        params.shared_mem = launch.kernel.shared_bytes
        extra = trtp.SymIntExprs.from_tuple([trtp.SymInt32(number) for number in launch.scalars])
        return launch.kernel.entry.encode(), launch.kernel.ptx, params, extra

    integer = np.ndarray[Any, np.dtype[np.int32]]
    describe.__annotations__ = {
        **dict.fromkeys(INPUTS, trtp.TensorDesc),
        **dict.fromkeys(ATTRIBUTES, integer),
        "return": trtp.TensorDesc,
    }
    layouts.__annotations__ = {}
    implement.__annotations__ = {
        "return": tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    }
    trtp.register(PLUGIN_ID)(describe)
    trtp.autotune(PLUGIN_ID)(layouts)
    trtp.aot_impl(PLUGIN_ID)(implement)


def precision_of(trt: Any, dtype: Any) -> str:
    """ "fp16" or "fp32" for a TensorRT DataType.

    Raises:
        BackendError: the kernel does not compute in that type.
    """
    if dtype == trt.DataType.HALF:
        return "fp16"
    if dtype == trt.DataType.FLOAT:
        return "fp32"
    raise BackendError(
        f"a node {OPERATOR} has an image of type {dtype}",
        expected="float16 or float32",
        hint="export the model again with --precision fp16 or fp32",
    )
