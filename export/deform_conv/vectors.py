"""Test vectors: small layers and what Triton's interpreter makes of them.

A GPU's output is compared with these where no interpreter is at hand, so that the shipped PTX can
be checked by anything that launches it. Inputs come from a formula, so that only outputs need
storing; their values are multiples of 1/256, exact in float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_restore.engine.plugin.kernels import MASK_ABSENT, MASK_LOGIT, MASK_PLAIN, Geometry
from edge_restore.storage.files import atomic_path, check_writable

DTYPE = {"fp16": np.float16, "fp32": np.float32}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Vector:
    """One small layer."""

    name: str
    precision: str
    count: int
    geometry: Geometry


def _layer(
    size: tuple[int, int], channels: int, outputs: int, kernel: int, *, pad_to: int = 1,
    stride: int = 1, dilation: int = 1, groups: int = 1, mode: int = MASK_LOGIT,
) -> Geometry:  # fmt: skip
    """A layer with "same" padding whose channel strides are rounded up to `pad_to`, as HWC8's."""

    def up(count: int) -> int:
        return -(-count // pad_to) * pad_to

    offsets = groups * kernel * kernel * (2 if mode == MASK_ABSENT else 3)
    high, wide = ((side - 1) // stride + 1 for side in size)
    pad = dilation * (kernel // 2)
    return Geometry(
        *size, channels, high, wide, outputs, up(channels), up(offsets), up(outputs), up(outputs),
        kernel, kernel, stride, stride, pad, pad, dilation, dilation, groups, mode,
    )  # fmt: skip


VECTORS = (
    Vector("svdn_fp16", "fp16", 1, _layer((9, 18), 48, 48, 5, pad_to=8)),
    Vector("svdn_fp32", "fp32", 1, _layer((5, 9), 48, 48, 5)),
    Vector("hwc8_fp16", "fp16", 2, _layer((10, 19), 16, 24, 3, pad_to=8, stride=2, groups=2)),
    Vector("plain_fp32", "fp32", 1, _layer((7, 11), 8, 68, 3, dilation=2, mode=MASK_PLAIN)),
    Vector("odd_fp16", "fp16", 2, _layer((7, 13), 5, 7, 3, mode=MASK_ABSENT)),
    Vector("odd_fp32", "fp32", 1, _layer((6, 1), 3, 5, 7, groups=3)),
    Vector("one_pixel_fp16", "fp16", 1, _layer((1, 1), 8, 8, 1)),
)


def inputs(vector: Vector) -> dict[str, Array]:
    """The five inputs of a vector, in launch order.

    image (N, H, W, image_stride), ow (N, Ho, Wo, ow_stride), weight (K*K, C, Cout) in the vector's
    precision; bias and slope (Cout,) float32. Padding channels hold NaN: nothing may read them.
    One pixel's offsets are NaN, infinite and huge.
    """
    g = vector.geometry
    dtype = DTYPE[vector.precision]
    taps = g.kernel_h * g.kernel_w
    masks = g.offset_groups * taps
    image = noise((vector.count, g.height, g.width, g.image_stride), 1).astype(dtype)
    image[..., g.channels :] = np.nan
    ow = (4 * noise((vector.count, g.out_height, g.out_width, g.ow_stride), 2)).astype(dtype)
    ow[..., masks * (2 if g.mask_mode == MASK_ABSENT else 3) :] = np.nan
    ow[0, -1, -1, : min(4, 2 * masks)] = [np.nan, np.inf, -np.inf, 60000][: 2 * masks]
    weight = noise((taps, g.channels, g.out_channels), 3) / 8
    return {
        "image": image,
        "ow": ow,
        "weight": weight.astype(dtype),
        "bias": noise((g.out_channels,), 4),
        "slope": noise((g.out_channels,), 5),
    }


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Multiples of 1/256 in [-1, 1), the same on every machine and in every NumPy: float32."""
    index = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(seed << 32)
    # The finaliser of MurmurHash3 (Appleby), whose low bits are well mixed.
    for constant in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        index ^= index >> np.uint64(33)
        index *= np.uint64(constant)
    index ^= index >> np.uint64(33)
    values = (index % np.uint64(512)).astype(np.float64) / 256 - 1
    return values.astype(np.float32).reshape(shape)


def interpret(vector: Vector) -> Array:
    """The vector's output, (N, Ho, Wo, out_stride) in its precision, by the interpreter."""
    import torch

    from export.deform_conv.launch import launch

    g = vector.geometry
    image, ow, weight, bias, slope = map(torch.from_numpy, inputs(vector).values())
    size = vector.count, g.out_height, g.out_width, g.out_stride
    out = torch.full(size, torch.nan, dtype=image.dtype)
    launch(image, ow, weight, bias, slope, out, g)
    result: Array = out.numpy()
    return result


def write(path: Path) -> None:
    """Write the outputs of all vectors to `path`, a zip of one .npy file per vector."""
    check_writable(path)
    outputs: dict[str, Any] = {vector.name: interpret(vector) for vector in VECTORS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **outputs)


def read(path: Path) -> dict[str, Array]:
    """Vector's name -> output, as `write` left them."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
