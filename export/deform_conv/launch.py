"""Running the kernel from torch: on a GPU, or on the CPU in Triton's interpreter.

`launch` is the kernel as an engine calls it: NHWC tensors and a `Geometry`. `deform_conv2d` has
ONNX DeformConv's interface, packs its tensors, and so puts every option of that op through the
kernel. The interpreter runs the same source statement by statement with NumPy; it is what the
kernel's numbers are tested with where there is no GPU, and it is slow.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from edge_restore.engine.plugin.kernels import MASK_ABSENT, MASK_LOGIT, MASK_PLAIN, Geometry, grid
from export.deform_conv import kernel
from export.deform_conv.blocks import ARCHITECTURES, Blocks, choose_blocks
from train.networks import compiler_caches

PRECISION = {torch.float16: "fp16", torch.float32: "fp32"}
INTERPRETED = Blocks(16, 32, 16, 1, 64, 4)
"""The interpreter's block shape: fewer, larger blocks, since it pays for each statement."""


@functools.cache
def compiled() -> Any:
    """The kernel for Triton's compiler; as ahead of time, no scalar is specialised."""
    compiler_caches.use_trusted()
    return triton.jit(kernel.deform_conv, do_not_specialize=list(kernel.SCALARS))


@functools.cache
def interpreted() -> Any:
    """The kernel for Triton's interpreter, whatever TRITON_INTERPRET says."""
    return InterpretedFunction(kernel.deform_conv)


def launch(
    image: Tensor, ow: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, out: Tensor,
    geometry: Geometry, blocks: Blocks | None = None,
) -> None:  # fmt: skip
    """Run the kernel once; returns without waiting for the GPU.

    Args:
        image: its first element is read as `geometry` says; float16 or float32, CPU or CUDA.
        ow: offsets and masks, of the image's dtype, as are `weight` and `out`.
        weight: (kernel_h*kernel_w, channels, out_channels).
        bias: (out_channels,) float32.
        slope: (out_channels,) float32.
        out: is written.
        geometry: all sizes and strides.
        blocks: the shape; by default what `choose_blocks` says for this GPU.
    """
    precision = PRECISION[image.dtype]
    scalars = geometry.scalars()
    alignment = geometry.alignment(precision)
    if any(tensor.data_ptr() % 16 for tensor in (image, weight, out)):
        alignment = 1
    if not image.is_cuda:
        function, options, blocks = interpreted(), {}, blocks or INTERPRETED
    else:
        function = compiled()
        blocks = blocks or choose_blocks(architecture(image.device), precision)
        options = blocks.options()
    count = ow.shape[0]
    shape = grid(
        count, geometry.out_height, geometry.out_width, geometry.out_written,
        blocks.tile_height, blocks.tile_width, blocks.block_out,
    )  # fmt: skip
    function[shape](
        image, ow, weight, bias, slope, *scalars, out, **blocks.constants(), ALIGN=alignment,
        **options,
    )  # fmt: skip


def architecture(device: torch.device) -> int:
    """The newest architecture that we have limits for and that is not newer than the GPU: 89."""
    major, minor = torch.cuda.get_device_capability(device)
    return max((a for a in ARCHITECTURES if a <= 10 * major + minor), default=ARCHITECTURES[0])


def deform_conv2d(
    image: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor,
    bias: Tensor | None = None, slope: Tensor | None = None, *, stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1, groups: int = 1,
    offset_groups: int = 1, mask_is_logit: bool = False, blocks: Blocks | None = None,
) -> Tensor:  # fmt: skip
    """Modulated deformable convolution by the kernel, with ONNX DeformConv's layouts.

    Args:
        image: (N, C, H, W), float16 or float32.
        offset: (N, offset_groups*Kh*Kw*2, Ho, Wo) in pixels, (dy, dx) interleaved per tap. Its
            size is the output's, so padding after the last row and column shows here only.
        mask: (N, offset_groups*Kh*Kw, Ho, Wo), or None for all ones.
        weight: (Cout, C/groups, Kh, Kw).
        bias: (Cout,) or None.
        slope: (Cout,) or None: what the output is multiplied by where it is negative.
        stride: of the output grid in input pixels, (vertical, horizontal) or both.
        padding: rows before the first and columns left of the first.
        dilation: distance between regular taps.
        groups: of the convolution. The kernel knows one: more are run as one, over a weight with
            zeros between the groups (`dense_weight`), at `groups` times the work.
        offset_groups: channel groups with their own offsets.
        mask_is_logit: the mask is the sigmoid of `mask`.

    Returns:
        (N, Cout, Ho, Wo) of the image's dtype, channels last.
    """
    count, channels, height, width = image.shape
    out_channels, _, kernel_h, kernel_w = weight.shape
    out_height, out_width = offset.shape[2:]
    pairs = [(n, n) if isinstance(n, int) else n for n in (stride, padding, dilation)]
    like: dict[str, Any] = {"device": image.device, "dtype": torch.float32}
    ow = nhwc(offset if mask is None else torch.cat((offset, mask), dim=1), image.dtype)
    out = torch.empty(
        (count, out_height, out_width, out_channels), dtype=image.dtype, device=image.device
    )
    mode = MASK_ABSENT if mask is None else MASK_LOGIT if mask_is_logit else MASK_PLAIN
    geometry = Geometry(
        height, width, channels, out_height, out_width, out_channels, image_stride=channels,
        ow_stride=ow.shape[3], out_stride=out_channels, out_written=out_channels,
        kernel_h=kernel_h, kernel_w=kernel_w, stride_y=pairs[0][0], stride_x=pairs[0][1],
        pad_y=pairs[1][0], pad_x=pairs[1][1], dilation_y=pairs[2][0], dilation_x=pairs[2][1],
        offset_groups=offset_groups, mask_mode=mode,
    )  # fmt: skip
    launch(
        nhwc(image, image.dtype), ow, packed_weight(weight, groups).to(image.dtype),
        torch.zeros(out_channels, **like) if bias is None else bias.float().contiguous(),
        torch.ones(out_channels, **like) if slope is None else slope.float().contiguous(),
        out, geometry, blocks,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def nhwc(tensor: Tensor, dtype: torch.dtype, pixel_stride: int | None = None) -> Tensor:
    """(N, C, H, W) -> contiguous (N, H, W, C), with zeros up to `pixel_stride` channels if given.

    Geometry's strides belong to it: HWC8 of TensorRT is `pixel_stride` = C rounded up to 8.
    """
    packed = tensor.permute(0, 2, 3, 1).to(dtype)
    if pixel_stride is not None:
        packed = F.pad(packed, (0, pixel_stride - packed.shape[3]))
    return packed.contiguous()


def packed_weight(weight: Tensor, groups: int = 1) -> Tensor:
    """(Cout, C/groups, Kh, Kw) -> (Kh*Kw, C, Cout) as the kernel reads it."""
    dense = dense_weight(weight, groups)
    return dense.flatten(2).permute(2, 1, 0).contiguous()


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """The weight (Cout, C, Kh, Kw) of the ungrouped convolution that does what `groups` do.

    Channels of other groups get zeros; an infinite or NaN pixel in them would show all the same.
    """
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    dense = weight.new_zeros(weight.shape[0], inputs * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense


def padded_geometry(geometry: Geometry, multiple: int) -> Geometry:
    """`geometry` with every pixel's channels padded to a multiple of `multiple`, as HWC8 does."""

    def up(count: int) -> int:
        return -(-count // multiple) * multiple

    return replace(
        geometry, image_stride=up(geometry.channels), ow_stride=up(geometry.ow_stride),
        out_stride=up(geometry.out_channels), out_written=up(geometry.out_channels),
    )  # fmt: skip
