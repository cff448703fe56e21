"""Random deformable layers, and what ONNX Runtime says they give."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel


def layer(
    size=(6, 7), channels=4, outputs=6, kernel=(3, 3), stride=(1, 1), padding=(1, 1),
    dilation=(1, 1), groups=1, offset_groups=1, mask=True, bias=True, count=1, spread=2.0,
):  # fmt: skip
    """Tensors by DeformConv's names (None where absent), and the options, for `deform_conv2d`."""
    random = np.random.default_rng(0)
    taps = kernel[0] * kernel[1]
    high, wide = (
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    )
    tensors = {
        "image": random.standard_normal((count, channels, *size)),
        "offset": spread * random.standard_normal((count, 2 * offset_groups * taps, high, wide)),
        "mask": random.random((count, offset_groups * taps, high, wide)) if mask else None,
        "weight": random.standard_normal((outputs, channels // groups, *kernel))
        / (channels * taps) ** 0.5,
        "bias": random.standard_normal(outputs) if bias else None,
    }
    tensors = {
        name: None if value is None else torch.from_numpy(value.astype(np.float32))
        for name, value in tensors.items()
    }
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        "offset_groups": offset_groups,
    }  # fmt: skip
    return tensors, options


def by_onnx_runtime(tensors, options):
    """The layer as a DeformConv node, run by ONNX Runtime; float32."""
    order = ("image", "weight", "offset", "bias", "mask")
    given = {name: tensors[name] for name in order if tensors[name] is not None}
    node = helper.make_node(
        "DeformConv", [name if name in given else "" for name in order], ["y"],
        kernel_shape=tensors["weight"].shape[2:], strides=options["stride"],
        pads=[*options["padding"], *options["padding"]], dilations=options["dilation"],
        group=options["groups"], offset_group=options["offset_groups"],
    )  # fmt: skip
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in given.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph([node], "layer", ports, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except NoKernel as error:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__}: {error}")
    (result,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    return torch.from_numpy(result)
