"""Who takes part in the benchmark: one deformable layer, computed in several ways.

Each contender is a function without arguments that enqueues the layer once on the current stream.
What it is given is laid out as it likes best, before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_restore.engine.plugin.kernels import MASK_LOGIT, Geometry
from export.deform_conv.blocks import Blocks
from export.deform_conv.launch import PRECISION, launch, nhwc, packed_weight
from train.networks.deform_conv import deform_conv2d as torch_layer

Run = Callable[[], Tensor]
CHANNELS, KERNEL = 48, 5
TAPS = KERNEL * KERNEL


@dataclass(frozen=True)
class Layer:
    """SVDN's deformable layer, 48 to 48 channels, 5x5, with random content on a device.

    Attributes:
        image: (1, 48, H, W), as offset, mask and weight of the precision under test.
        offset: (1, 50, H, W), normally distributed with a standard deviation of 2 pixels.
        logits: (1, 25, H, W); the mask is their sigmoid.
        weight: (48, 48, 5, 5); bias and slope: (48,) float32.
    """

    image: Tensor
    offset: Tensor
    logits: Tensor
    weight: Tensor
    bias: Tensor
    slope: Tensor

    @classmethod
    def random(cls, height: int, width: int, dtype: torch.dtype, device: str) -> Layer:
        """The same content for the same sizes on the same device."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        return cls(
            image=normal(1, CHANNELS, height, width).to(dtype),
            offset=(2 * normal(1, 2 * TAPS, height, width)).to(dtype),
            logits=normal(1, TAPS, height, width).to(dtype),
            weight=(normal(CHANNELS, CHANNELS, KERNEL, KERNEL) / 35).to(dtype),
            bias=normal(CHANNELS),
            slope=normal(CHANNELS).abs(),
        )

    @property
    def bytes_moved(self) -> int:
        """What any implementation reads and writes at least once."""
        inputs = (self.image, self.offset, self.logits, self.weight, self.image)  # output as image
        return sum(tensor.numel() * tensor.element_size() for tensor in inputs)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the matrix product alone."""
        return 2 * self.image.shape[2] * self.image.shape[3] * TAPS * CHANNELS * CHANNELS

    def reference(self) -> Tensor:
        """(1, 48, H, W) float32 from the same, rounded inputs by the torch layer."""
        image, offset, logits, weight = (
            t.float() for t in (self.image, self.offset, self.logits, self.weight)
        )
        out = torch_layer(image, offset, logits.sigmoid(), weight, self.bias, padding=KERNEL // 2)
        return torch.where(out > 0, out, self.slope.view(1, -1, 1, 1) * out)


def ours(layer: Layer, blocks: Blocks | None = None) -> Run:
    """The kernel, reading the 75 offset channels as they are, with sigmoid, bias and PReLU in it.

    Gives (1, H, W, 48). Channel strides are HWC8's: 80 for the 75 offset channels in float16.
    """
    height, width = layer.image.shape[2:]
    pixel = 80 if PRECISION[layer.image.dtype] == "fp16" else 3 * TAPS
    geometry = Geometry(
        height, width, CHANNELS, height, width, CHANNELS, CHANNELS, pixel, CHANNELS, CHANNELS,
        KERNEL, KERNEL, 1, 1, KERNEL // 2, KERNEL // 2, 1, 1, 1, MASK_LOGIT,
    )  # fmt: skip
    dtype = layer.image.dtype
    image = nhwc(layer.image, dtype)
    ow = nhwc(torch.cat((layer.offset, layer.logits), dim=1), dtype, pixel)
    weight = packed_weight(layer.weight)
    out = torch.empty_like(image)

    def run() -> Tensor:
        launch(image, ow, weight, layer.bias, layer.slope, out, geometry, blocks)
        return out

    return run


def torchvision_op(layer: Layer) -> Run | None:
    """torchvision.ops.deform_conv2d: im2col and GEMM. None where torchvision is not installed.

    It is given the mask as a number, and leaves the activation out: less work than ours.
    """
    try:
        from torchvision.ops import deform_conv2d
    except ImportError:
        return None
    image, offset = layer.image.contiguous(), layer.offset.contiguous()
    mask = layer.logits.float().sigmoid().to(image.dtype)
    bias = layer.bias.to(image.dtype)
    return lambda: deform_conv2d(image, offset, layer.weight, bias, padding=KERNEL // 2, mask=mask)


def grid_sample_and_gemm(layer: Layer) -> Run:
    """torch's grid_sample of all taps, then one matrix product; mask given, no activation.

    In float16 its sampling positions are half too, as that is what grid_sample takes: it is timed,
    not checked.
    """
    mask = layer.logits.float().sigmoid().to(layer.image.dtype)
    return lambda: torch_layer(
        layer.image, layer.offset, mask, layer.weight, layer.bias, padding=KERNEL // 2
    )
