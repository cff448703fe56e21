"""Does ONNX Runtime compute from the exported file what torch computes from the weights?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edge_restore.engine.rounding import with_kept_rounding
from edge_restore.errors import BackendError, ModelError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media.padding import pad_to_multiple
from edge_restore.models.cards import Parity
from export.graph import INPUT
from train.networks.deform_conv import DeformConv2d

TOLERANCE = 1e-4
"""Of an FP32 graph's output on a scale of [0, 1]."""

MIN_PSNR = 60.0
"""Of an FP16 graph's output against torch's in float32, both clipped to [0, 1], in dB. At 60 dB the
error is a quarter of an 8-bit level (root mean square)."""

SIZES = ((64, 96), (128, 80), (75, 101))
"""Of dynamic graphs: wide, high, and odd."""

Image = np.ndarray[Any, np.dtype[np.float32]]


def sizes(size: tuple[int, int] | None, multiple: int) -> tuple[tuple[int, int], ...]:
    """Three frame sizes (height, width) that a graph of this `size` can be tried with.

    A graph of fixed size is tried with that size and the smallest ones that are padded to it:
    odd ones where `multiple` is even.
    """
    if size is None:
        return SIZES
    height, width = size
    return (
        (height, width),
        (height - multiple + 1, width),
        (height - multiple + 1, width - multiple + 1),
    )


def check(
    model: onnx.ModelProto,
    network: nn.Module,
    *,
    form: str,
    size: tuple[int, int] | None,
    precision: str = "fp32",
    name: str = "model.onnx",
) -> tuple[tuple[Parity, ...], float]:
    """Compare a graph with `network` on three sizes of 8-bit frames.

    A size that is no multiple goes to ONNX Runtime as the runtime does it, padded and cropped by
    `edge_restore.media.padding`, and to torch as it is. What is compared is the network's float
    output before clipping and rounding: after it, a difference of 1e-7 may tip a value to the next
    level, and a real one of half a level may not show. In the camera form that tensor is inside the
    graph, so it is made an output beside the image; then the image must be exactly that tensor,
    clipped and rounded.

    An FP32 graph may differ by `TOLERANCE` anywhere; an FP16 one must reach `MIN_PSNR`. ONNX
    Runtime's CPU provider rounds FP16 tensors (see `edge_restore.engine.rounding`) but sums in
    FP32, so this says what the types cost, and not how a GPU's FP16 sums round.

    Args:
        model: the graph; not changed.
        name: of the file that is to be written, for messages.

    Returns:
        The difference at each size, and the greatest offset in pixels that a deformable
        convolution was given (0 without one): what the comparison says of sampling depends on it.

    Raises:
        ModelError: a difference above the bar, or an output that is not finite.
        BackendError: this ONNX Runtime cannot run the file.
        DependencyError: ONNX Runtime is not installed.
    """
    session = _session(model, form, precision)
    multiple = int(network.multiple)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    found, reach = [], 0.0
    for height, width in sizes(size, multiple):
        pixels = _picture(random, height, width)
        expected, offset = _torch_output(network, pixels)
        if not np.isfinite(expected).all():
            raise ModelError(
                f"the network's output is not finite for a frame of {height}x{width}",
                expected="weights that give finite numbers",
                hint="train again, or export an earlier checkpoint of these weights",
            )
        found.append(_compare(session, pixels, expected, multiple, form, name, precision))
        reach = max(reach, offset)
    return tuple(found), reach


def _compare(
    session: Any, pixels: Pixels, expected: Image, multiple: int, form: str, name: str,
    precision: str,
) -> Parity:  # fmt: skip
    """How far the float output is off; raises when it, or the camera's image, is wrong."""
    height, width = pixels.shape[:2]
    padded = pad_to_multiple(pixels, multiple)
    image = padded[None] if form == "camera" else _unit_range(padded)
    restored, *images = session.run(None, {INPUT: image})[::-1]
    where = f"the graph that would become '{name}'"
    found = restored[..., :height, :width]
    difference = float(np.abs(found - expected).max())
    psnr = _psnr(found, expected) if precision == "fp16" else None
    # So written, NaN fails.
    if not (difference <= TOLERANCE if psnr is None else psnr >= MIN_PSNR):
        off = f"by {difference:.2g}" if psnr is None else f"to {psnr:.1f} dB of PSNR"
        bar = f"at most {TOLERANCE:g}" if psnr is None else f"at least {MIN_PSNR:g} dB"
        raise ModelError(
            f"{where} computes something else than the network: ONNX Runtime and torch differ "
            f"{off} at {height}x{width}; nothing was written",
            expected=f"{bar} on a scale of [0, 1]",
            hint="try another --opset, other versions of torch and onnxruntime, or report this"
            if psnr is None
            else "export with --precision fp32",
        )
    for levels in images:
        rounded = np.rint(np.clip(restored, 0, 1) * np.float32(255)).astype(np.uint8)
        wrong = int((levels != rounded.transpose(0, 2, 3, 1)).sum())
        if wrong:
            raise ModelError(
                f"{where} rounds wrongly: {wrong} values differ at {height}x{width}; "
                "nothing was written",
                expected="the network's output, clipped to [0, 1], times 255, rounded",
                hint="try another --opset, another version of onnxruntime, or report this",
            )
    return Parity(height=height, width=width, max_abs_difference=difference, psnr=psnr)


def _psnr(found: Image, expected: Image) -> float:
    """In dB, both clipped to [0, 1]; at most 200, where they are equal."""
    error = np.clip(found, 0, 1).astype(np.float64) - np.clip(expected, 0, 1)
    return float(-10 * np.log10(max(np.square(error).mean(), 1e-20)))


def _session(given: onnx.ModelProto, form: str, precision: str) -> Any:
    """A session of a graph whose last output is the network's float output."""
    onnxruntime = optional.require("onnxruntime", needed_for="checking an export")
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    model = onnx.ModelProto()
    model.CopyFrom(given)
    if form == "camera":
        clip = next(n for n in model.graph.node if n.name == "camera/Clip")
        inside = onnx.helper.make_tensor_value_info(clip.input[0], onnx.TensorProto.FLOAT, None)
        model.graph.output.append(inside)
    options = onnxruntime.SessionOptions()
    if precision == "fp16":
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        model = with_kept_rounding(model, inferred)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
    except NoKernel as error:
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the graph to check it: "
            f"{str(error).splitlines()[0]}",
            expected="an ONNX Runtime with every operator (DeformConv came with 1.24)",
            hint="pip install --upgrade onnxruntime on Python 3.11 or later, "
            "or --deformable GridSample",
        ) from error


def _torch_output(network: nn.Module, pixels: Pixels) -> tuple[Image, float]:
    """The network's output, (1, 3, H, W), and the greatest offset of its deformable layers."""
    reach = [0.0]

    def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        reach.append(float(inputs[1].abs().max()))

    hooks = [
        layer.register_forward_pre_hook(look)
        for layer in network.modules()
        if isinstance(layer, DeformConv2d)
    ]
    try:
        with torch.inference_mode():
            restored = network(torch.from_numpy(_unit_range(pixels)))
    finally:
        for hook in hooks:
            hook.remove()
    return restored.numpy(), max(reach)


def _unit_range(pixels: Pixels) -> Image:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) in [0, 1]."""
    planes = pixels.transpose(2, 0, 1)[None]
    return np.multiply(planes, np.float32(1 / 255), dtype=np.float32)


def _picture(random: np.random.Generator, height: int, width: int) -> Pixels:
    """A frame with smooth parts, edges and noise, and every level from 0 to 255."""
    y, x = np.mgrid[:height, :width, :1][:2]
    waves = np.sin(x / 7 + y / 11 + np.arange(3)) * 90 + 128
    checks = ((x // 9 + y // 6) % 2) * 100 - 50
    noise = random.normal(0, 12, (height, width, 3))
    picture: Pixels = np.clip(waves + checks + noise, 0, 255).astype(np.uint8)
    return picture
