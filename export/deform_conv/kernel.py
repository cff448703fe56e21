"""The one Triton kernel: modulated deformable convolution, NHWC, with all that surrounds it.

    y[p, o] = act(bias[o] + sum over taps k, channels c of
                  w[k, c, o] * mask[k](p) * x(stride*p - padding + dilation*k + offset[k](p), c))

(DCNv2, Zhu et al., CVPR 2019, Eq. 1), x read bilinearly, a corner outside the image being zero and
never read; act(y) = y > 0 ? y : slope[o]*y. Offsets and masks come as the offset convolution leaves
them: per pixel G*K*K*2 offsets (dy, dx interleaved per tap, offset groups outermost), then G*K*K
masks.

Precision. An offset is split into its floor and its fraction before the pixel's own position is
added, in integers: a sampling position is exact to 2**-24 pixels, however wide the image.
Fractions, bilinear weights, the mask and the weighted sum of the four corners are float32. A
float16 kernel rounds that sum to float16 once, for the tensor cores, and adds up in float32; a
float32 kernel multiplies in float32, not in TF32. A tap whose offset is NaN or infinite reads 0.

What is compile-time and what is not. Sizes, strides, kernel, padding, dilation and offset groups
are plain int32 arguments, never specialised (not by divisibility by 16, not by being 1): one binary
serves every layer. Compile-time are the block shapes and ALIGN, the number of elements of which all
strides and channel counts are multiples: 8 halves or 4 floats are one 16-byte load, and Triton uses
those only where it can prove the alignment. `stride // ALIGN * ALIGN` is that proof; it does not
change a stride that the launcher has checked. Pointers are 16-byte aligned.

This is a plain Python function on purpose: `export.deform_conv.launch` gives it to Triton's
compiler or to its interpreter, both in one process. It therefore uses Triton's primitives alone;
library functions such as tl.zeros and tl.sigmoid are bound to one of the two at import.
"""

from __future__ import annotations

# Triton reads only the annotations tl.constexpr.
# mypy: disable-error-code="no-untyped-def"
import triton.language as tl

MASK_ABSENT, MASK_PLAIN, MASK_LOGIT = 0, 1, 2
"""What the channels after the offsets are: not there (all ones), the masks, or their logits."""

POINTERS = ("image", "ow", "weight", "bias", "slope")
"""Inputs, in order; the output `out` comes after the scalars."""

SCALARS = (
    "height", "width", "channels", "out_height", "out_width", "out_channels", "image_stride",
    "ow_stride", "out_stride", "out_written", "kernel_h", "kernel_w", "stride_y", "stride_x",
    "pad_y", "pad_x", "dilation_y", "dilation_x", "offset_groups", "mask_mode",
)  # fmt: skip
"""int32 arguments, in order, between the inputs and the output."""


def deform_conv(
    image, ow, weight, bias, slope, height, width, channels, out_height, out_width, out_channels,
    image_stride, ow_stride, out_stride, out_written, kernel_h, kernel_w, stride_y, stride_x, pad_y,
    pad_x, dilation_y, dilation_x, offset_groups, mask_mode, out,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK_IN: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK_OUT: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """One program: a tile of TILE_H x TILE_W output pixels of one image, BLOCK_OUT channels.

    Args:
        image: (N, height, width, channels), a pixel every `image_stride` elements; float16 or
            float32, as `ow`, `weight` and `out` are.
        ow: (N, out_height, out_width, offset_groups*kernel_h*kernel_w*3), or *2 without a mask; a
            pixel every `ow_stride` elements.
        weight: (kernel_h*kernel_w, channels, out_channels), contiguous.
        bias: (out_channels,) float32.
        slope: (out_channels,) float32; 1 is no activation, 0.1 leaky ReLU, a vector PReLU.
        mask_mode: MASK_ABSENT, MASK_PLAIN or MASK_LOGIT.
        out: (N, out_height, out_width, out_channels), a pixel every `out_stride` elements;
            the channels from `out_channels` to `out_written` get zeros (HWC8's padding).
        BLOCK_IN: channels of one matrix product; UNROLL products stand in one step of the loop.
    """
    tiles_x = (out_width + TILE_W - 1) // TILE_W
    tile = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    pixel = tl.arange(0, TILE_H * TILE_W)
    row = (tile // tiles_x) * TILE_H + pixel // TILE_W
    column = (tile % tiles_x) * TILE_W + pixel % TILE_W
    inside = (row < out_height) & (column < out_width)
    place = row * out_width + column  # within one image int32 suffices: pixels, not elements

    image_step = image_stride // ALIGN * ALIGN
    out_step = out_stride // ALIGN * ALIGN
    out_count = out_channels // ALIGN * ALIGN
    group_channels = channels // offset_groups // ALIGN * ALIGN
    taps = kernel_h * kernel_w

    image += batch * height * width * image_step
    ow += batch * out_height * out_width * ow_stride + place.to(tl.int64) * ow_stride
    first_y = row * stride_y - pad_y
    first_x = column * stride_x - pad_x
    lane = tl.arange(0, BLOCK_IN)
    out_channel = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    out_real = out_channel < out_count

    total = tl.full((TILE_H * TILE_W, BLOCK_OUT), 0.0, tl.float32)
    for group in range(offset_groups):
        for tap_y in range(kernel_h):
            for tap_x in range(kernel_w):
                tap = tap_y * kernel_w + tap_x
                where = group * taps + tap
                dy = tl.load(ow + 2 * where, mask=inside, other=0.0).to(tl.float32)
                dx = tl.load(ow + 2 * where + 1, mask=inside, other=0.0).to(tl.float32)
                given = inside & (column < out_width * mask_mode)  # false for MASK_ABSENT
                mask = tl.load(ow + (2 * offset_groups * taps + where), mask=given, other=0.0)
                mask = mask.to(tl.float32)
                mask = tl.where(mask_mode == 2, 1.0 / (1.0 + tl.exp(-mask)), mask)
                mask = tl.where(mask_mode == 0, 1.0, mask)

                # 2**24 pixels away is outside every image, and fits into int32 with what is added.
                # A comparison with NaN is false: such a tap reads nothing.
                reads = inside & (dy == dy) & (dx == dx)
                dy = tl.minimum(tl.maximum(tl.where(reads, dy, 0.0), -16777216.0), 16777216.0)
                dx = tl.minimum(tl.maximum(tl.where(reads, dx, 0.0), -16777216.0), 16777216.0)
                floor_y = tl.floor(dy)
                floor_x = tl.floor(dx)
                down = dy - floor_y
                right = dx - floor_x
                y = first_y + tap_y * dilation_y + floor_y.to(tl.int32)
                x = first_x + tap_x * dilation_x + floor_x.to(tl.int32)
                top = reads & (y >= 0) & (y < height)
                bottom = reads & (y >= -1) & (y < height - 1)
                x0 = (x >= 0) & (x < width)
                x1 = (x >= -1) & (x < width - 1)
                below = mask * down
                above = mask - below
                weight_01 = above * right
                weight_00 = above - weight_01
                weight_11 = below * right
                weight_10 = below - weight_11
                corner = image + (y * width + x).to(tl.int64) * image_step
                corner = corner[:, None] + (group * group_channels + lane)[None, :]
                matrix = weight + (tap * channels + group * group_channels).to(tl.int64) * out_count
                matrix = matrix + (lane[:, None] * out_count + out_channel[None, :])

                for start in range(0, group_channels, BLOCK_IN * UNROLL):
                    for part in tl.static_range(UNROLL):
                        first = start + part * BLOCK_IN
                        real = lane < group_channels - first
                        at = corner + first
                        down_at = at + width * image_step
                        reals = real[None, :]
                        v00 = tl.load(at, (top & x0)[:, None] & reals, 0.0)
                        v01 = tl.load(at + image_step, (top & x1)[:, None] & reals, 0.0)
                        v10 = tl.load(down_at, (bottom & x0)[:, None] & reals, 0.0)
                        v11 = tl.load(down_at + image_step, (bottom & x1)[:, None] & reals, 0.0)
                        value = v00.to(tl.float32) * weight_00[:, None]
                        value += v01.to(tl.float32) * weight_01[:, None]
                        value += v10.to(tl.float32) * weight_10[:, None]
                        value += v11.to(tl.float32) * weight_11[:, None]
                        factor = tl.load(
                            matrix + first * out_count, real[:, None] & out_real[None, :], 0.0
                        )
                        value = value.to(factor.dtype)
                        total = tl.dot(value, factor, total, input_precision="ieee")

    total += tl.load(bias + out_channel, mask=out_real, other=0.0)[None, :]
    slopes = tl.load(slope + out_channel, mask=out_real, other=0.0)
    total = tl.where(total > 0, total, slopes[None, :] * total)
    base = out + batch * out_height * out_width * out_step
    tl.store(
        base + place.to(tl.int64)[:, None] * out_step + out_channel[None, :],
        total.to(out.dtype.element_ty),
        mask=inside[:, None] & (out_channel < out_written // ALIGN * ALIGN)[None, :],
    )
