"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019, Eq. 1).

The layer follows ONNX DeformConv (opset 19) to the letter: offsets are (dy, dx) interleaved per
tap, taps run row by row, offset groups are outermost; a bilinear corner outside the image is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.networks import deform_sample

Pair = tuple[int, int]


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """(height, width) of a convolution's output, for `size` = (height, width) of its input."""
    high, wide = (
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return high, wide


def _columns_grid_sample(
    image: Tensor, offset: Tensor, mask: Tensor, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> Tensor:  # fmt: skip
    """Sampled taps in plain torch: (N, Ho*Wo, K, C), any device and floating dtype."""
    count, channels, height, width = image.shape
    out_height, out_width = offset.shape[2:]
    taps = kernel[0] * kernel[1]
    # bfloat16 holds whole pixels up to 256 only: positions and sums are float32 at least.
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    like: dict[str, Any] = {"device": image.device, "dtype": offset.dtype}
    tap_y = torch.arange(kernel[0], **like).repeat_interleave(kernel[1]) * dilation[0] - padding[0]
    tap_x = torch.arange(kernel[1], **like).repeat(kernel[0]) * dilation[1] - padding[1]
    row = torch.arange(out_height, **like) * stride[0]
    column = torch.arange(out_width, **like) * stride[1]
    offset = offset.reshape(count * groups, taps, 2, out_height, out_width)
    y = offset[:, :, 0] + tap_y.view(-1, 1, 1) + row.view(-1, 1)
    x = offset[:, :, 1] + tap_x.view(-1, 1, 1) + column
    # align_corners=False maps pixel i to (2i + 1)/size - 1, which is defined for one-pixel sides.
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # grid_sample's behaviour is undefined for NaN and for coordinates beyond int32.
    grid = torch.where(grid.isfinite(), grid, torch.full_like(grid, -4.0)).clamp(-4.0, 4.0)
    sampled = F.grid_sample(
        image.reshape(count * groups, channels // groups, height, width).to(grid.dtype),
        grid.reshape(count * groups, taps * out_height, out_width, 2),
        mode="bilinear", padding_mode="zeros", align_corners=False,
    )  # fmt: skip
    sampled = sampled.reshape(count, groups, channels // groups, taps, out_height * out_width)
    sampled = sampled * mask.reshape(count, groups, 1, taps, out_height * out_width)
    return sampled.permute(0, 4, 3, 1, 2).reshape(count, -1, taps, channels).to(image.dtype)


def _columns_compiled(
    image: Tensor, offset: Tensor, mask: Tensor, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> Tensor:  # fmt: skip
    """The same taps by the compiled CPU kernel."""
    dtype = image.dtype
    image, offset, mask = (
        t.permute(0, 2, 3, 1).float().contiguous() for t in (image, offset, mask)
    )
    columns: Tensor = deform_sample.SampleColumns.apply(  # type: ignore[no-untyped-call]
        image, offset, mask, kernel, stride, padding, dilation, groups, dtype
    )
    return columns


def _columns_triton(
    image: Tensor, offset: Tensor, mask: Tensor, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> Tensor:  # fmt: skip
    """The same taps by the GPU's kernel."""
    from train.networks.deform_sample_triton import SampleColumns

    image, offset, mask = (t.permute(0, 2, 3, 1).contiguous() for t in (image, offset, mask))
    columns: Tensor = SampleColumns.apply(  # type: ignore[no-untyped-call]
        image, offset, mask, kernel, stride, padding, dilation, groups
    )
    return columns


def _gather(*tensors: Tensor) -> Callable[..., Tensor]:
    """The fastest of the three that takes an image, offsets and masks like these."""
    dtypes, device = {t.dtype for t in tensors}, tensors[0].device.type
    if device == "cuda" and dtypes <= {torch.float32, torch.bfloat16, torch.float16}:
        return _columns_triton if deform_sample.has_triton() else _columns_grid_sample
    if device == "cpu" and dtypes <= {torch.float32, torch.bfloat16} and deform_sample.library():
        return _columns_compiled
    return _columns_grid_sample


def deform_conv2d(
    image: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """Modulated deformable convolution, differentiable in every tensor.

    y(p) = sum over taps k of w_k * x(p + p_k + offset_k(p)) * mask_k(p)   (DCNv2, Eq. 1).

    Args:
        image: (N, C, H, W), floating.
        offset: (N, offset_groups*Kh*Kw*2, Ho, Wo), pixels, (dy, dx) interleaved per tap.
        mask: (N, offset_groups*Kh*Kw, Ho, Wo), or None for all ones.
        weight: (Cout, C/groups, Kh, Kw).
        bias: (Cout,) or None.
        stride: of the output grid, in input pixels.
        padding: zeros around the image, in pixels.
        dilation: distance between the regular taps, in pixels.
        groups: of the convolution; `offset_groups`: channel groups with their own offsets.

    Returns:
        (N, Cout, Ho, Wo), channels last on the CPU. A tap with a NaN or infinite offset samples 0.

    Raises:
        ValueError: shapes that do not fit together.
    """
    kernel = (weight.shape[2], weight.shape[3])
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    size = output_size((image.shape[2], image.shape[3]), kernel, stride, padding, dilation)
    taps = kernel[0] * kernel[1]
    count, channels = image.shape[:2]
    out_channels = weight.shape[0]
    if mask is None:
        mask = offset.new_ones(count, offset_groups * taps, *size)
    if offset.shape != (count, offset_groups * taps * 2, *size):
        raise ValueError(
            f"offset is {tuple(offset.shape)}, not {(count, offset_groups * taps * 2, *size)}"
        )
    if mask.shape != (count, offset_groups * taps, *size):
        raise ValueError(f"mask is {tuple(mask.shape)}, not {(count, offset_groups * taps, *size)}")
    if channels % offset_groups or channels != weight.shape[1] * groups or out_channels % groups:
        raise ValueError(
            f"{channels} channels do not fit weight {tuple(weight.shape)} with {groups} groups "
            f"and {offset_groups} offset groups"
        )
    gather = _gather(image, offset, mask)
    columns = gather(image, offset, mask, kernel, stride, padding, dilation, offset_groups)
    pixels = size[0] * size[1]
    # One matrix product per group: (N*P, K*C/g) x (K*C/g, Cout/g).
    matrix = weight.reshape(groups, out_channels // groups, channels // groups, taps)
    matrix = matrix.permute(0, 3, 2, 1).reshape(groups, -1, out_channels // groups)
    if groups == 1:
        out = columns.reshape(count * pixels, -1) @ matrix.squeeze(0).to(columns.dtype)
    else:
        columns = columns.reshape(count * pixels, taps, groups, channels // groups)
        columns = columns.permute(2, 0, 1, 3).reshape(groups, count * pixels, -1)
        out = torch.bmm(columns, matrix.to(columns.dtype)).permute(1, 0, 2)
    out = out.reshape(count, *size, out_channels)
    if bias is not None:
        out = out + bias.to(out.dtype)
    return out.permute(0, 3, 1, 2)


class DeformConv2d(nn.Module):
    """`deform_conv2d` with its weight and bias; offsets and mask are given by the caller."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1,
        padding: int = 0, dilation: int = 1, groups: int = 1, offset_groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.offset_groups = groups, offset_groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, image: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W), offsets and mask as in `deform_conv2d` -> (N, Cout, Ho, Wo)."""
        return deform_conv2d(
            image, offset, mask, self.weight, self.bias, stride=self.stride, padding=self.padding,
            dilation=self.dilation, groups=self.groups, offset_groups=self.offset_groups,
        )  # fmt: skip
