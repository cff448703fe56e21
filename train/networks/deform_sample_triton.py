"""The GPU's fast path for deformable taps: `deform_sample.c` once more, for Triton's compiler.

With `grid_sample` the taps of a layer pass through the GPU's memory ten times, in float32; here
once, in the type that is multiplied. The kernel is a plain Python function, so that the tests can
give it to Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

# Triton reads only the annotations tl.constexpr.
# mypy: disable-error-code="no-untyped-def"
import functools
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

PIXELS, PIXELS_INTERPRETED = 64, 2048
"""Output pixels of one program, which treats one tap and one offset group of each. The interpreter
pays for each statement."""


def sample(
    image, offset, mask, columns, grad_image, grad_offset, grad_mask, places, height, width,
    channels, out_height, out_width, taps, taps_x, stride_y, stride_x, pad_y, pad_x, dilation_y,
    dilation_x, groups, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, ALIGN: tl.constexpr,
    BACKWARD: tl.constexpr,
):  # fmt: skip
    """columns[n, p, k, c] = mask * bilinear(image), or the gradients; shapes as `SampleColumns`.

    Backward, `columns` hold their gradient; `grad_image` is added to, the other two are written,
    all in float32. Forward, these three are left alone.
    Programs: blocks of the `places` = N*Ho*Wo output pixels, taps, offset groups. CHANNELS is a
    power of two that holds a group's, ALIGN divides their number.
    """
    tap, group = tl.program_id(1), tl.program_id(2)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    exists = p < places
    n = p // (out_height * out_width)
    row = p % (out_height * out_width) // out_width
    column = p % out_width
    at = (p.to(tl.int64) * groups + group) * taps + tap
    y = tl.load(offset + 2 * at, mask=exists, other=0.0).to(tl.float32)
    x = tl.load(offset + 2 * at + 1, mask=exists, other=0.0).to(tl.float32)
    y += (row * stride_y - pad_y + tap // taps_x * dilation_y).to(tl.float32)
    x += (column * stride_x - pad_x + tap % taps_x * dilation_x).to(tl.float32)
    m = tl.load(mask + at, mask=exists, other=0.0).to(tl.float32)
    inside = (y > -1) & (x > -1) & (y < height) & (x < width)  # never of a NaN
    y, x = tl.where(inside, y, 0.0), tl.where(inside, x, 0.0)
    top, left = tl.floor(y), tl.floor(x)
    down, right = y - top, x - left
    c = tl.arange(0, CHANNELS)
    own = channels // groups // ALIGN * ALIGN  # which tells the compiler
    channels = channels // ALIGN * ALIGN
    first = (p.to(tl.int64) * taps + tap) * channels + group * own
    taken = columns + first[:, None] + c[None, :]
    all_of_it = exists[:, None] & (c < own)[None, :]
    if BACKWARD:
        grad = tl.load(taken, mask=all_of_it, other=0.0).to(tl.float32)
        by_mask = tl.full((PIXELS,), 0.0, tl.float32)
        by_y = tl.full((PIXELS,), 0.0, tl.float32)
        by_x = tl.full((PIXELS,), 0.0, tl.float32)
    else:
        total = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for corner in tl.static_range(4):
        yy = top.to(tl.int32) + corner // 2
        xx = left.to(tl.int32) + corner % 2
        weight_y = down if corner // 2 else 1 - down
        weight_x = right if corner % 2 else 1 - right
        there = exists & inside & (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width)
        where = there[:, None] & (c < own)[None, :]
        first = ((n.to(tl.int64) * height + yy) * width + xx) * channels + group * own
        value = tl.load(image + first[:, None] + c[None, :], mask=where, other=0.0).to(tl.float32)
        if BACKWARD:
            seen = tl.reduce(grad * value, 1, tl.standard._sum_combine)
            by_mask += weight_y * weight_x * seen
            by_y += weight_x * seen * (1.0 if corner // 2 else -1.0)
            by_x += weight_y * seen * (1.0 if corner % 2 else -1.0)
            tl.atomic_add(
                grad_image + first[:, None] + c[None, :],
                (m * weight_y * weight_x)[:, None] * grad, mask=where, sem="relaxed",
            )  # fmt: skip
        else:
            total += (weight_y * weight_x)[:, None] * value
    if BACKWARD:
        tl.store(grad_mask + at, by_mask, mask=exists)
        tl.store(grad_offset + 2 * at, m * by_y, mask=exists)
        tl.store(grad_offset + 2 * at + 1, m * by_x, mask=exists)
    else:
        tl.store(taken, (m[:, None] * total).to(columns.dtype.element_ty), mask=all_of_it)


@functools.cache
def _kernel(*, on_gpu: bool) -> Any:
    return triton.jit(sample) if on_gpu else InterpretedFunction(sample)


class SampleColumns(torch.autograd.Function):
    """columns[n, p, k, c] = mask * bilinear(image).

    image (N, H, W, C), offset (N, Ho, Wo, G*K*2), mask (N, Ho, Wo, G*K), each contiguous and of any
    of float16, bfloat16 and float32, on a GPU. Returns (N, Ho*Wo, K, C) of the image's dtype.
    A tap whose offset is NaN or infinite samples 0.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, image: Tensor, offset: Tensor, mask: Tensor, kernel: tuple[int, int],
        stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
    ) -> Tensor:  # fmt: skip
        count, height, width, channels = image.shape
        out_height, out_width = offset.shape[1:3]
        taps, places = kernel[0] * kernel[1], count * out_height * out_width
        columns = image.new_empty(count, out_height * out_width, taps, channels)
        ctx.scalars = (
            places, height, width, channels, out_height, out_width, taps, kernel[1], *stride,
            *padding, *dilation, groups,
        )  # fmt: skip
        pixels = PIXELS if image.is_cuda else PIXELS_INTERPRETED
        ctx.grid = triton.cdiv(places, pixels), taps, groups
        own = channels // groups
        ctx.block = {
            "PIXELS": pixels, "CHANNELS": triton.next_power_of_2(own), "ALIGN": math.gcd(own, 8),
        }  # fmt: skip
        run = _kernel(on_gpu=image.is_cuda)[ctx.grid]
        unused = [columns] * 3
        run(image, offset, mask, columns, *unused, *ctx.scalars, **ctx.block, BACKWARD=False)
        ctx.save_for_backward(image, offset, mask)
        return columns

    @staticmethod
    def backward(ctx: Any, grad_columns: Tensor) -> Any:  # noqa: D102
        image, offset, mask = ctx.saved_tensors
        grads = [torch.empty_like(t, dtype=torch.float32) for t in (image, offset, mask)]
        grads[0].zero_()
        run = _kernel(on_gpu=image.is_cuda)[ctx.grid]
        given = image, offset, mask, grad_columns.contiguous()
        run(*given, *grads, *ctx.scalars, **ctx.block, BACKWARD=True)
        grad_image, grad_offset, grad_mask = (
            grad.to(t.dtype) for grad, t in zip(grads, ctx.saved_tensors, strict=True)
        )
        return grad_image, grad_offset, grad_mask, None, None, None, None, None
