"""The node EdgeRestoreDeformConv: its name, its attributes, and how its kernel is launched.

Both plugin routes (`quick_plugin`, `plugin_v3`) get shapes from TensorRT and launch the same kernel
with the same numbers; how these follow from the shapes is written here once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_restore.engine.plugin.kernels import MASK_LOGIT, Geometry, Kernel
from edge_restore.errors import BackendError

OPERATOR = "EdgeRestoreDeformConv"
NAMESPACE = "edge_restore"
VERSION = "1"

INPUTS = ("image", "ow", "weight", "bias", "slope")
"""The node's inputs. `ow` is the offset convolution's output: offsets, then mask logits."""

ATTRIBUTES = ("kernel_h", "kernel_w", "stride", "padding", "dilation", "offset_groups")
"""The node's attributes, each one integer."""

KernelChoice = Callable[[str, int], Kernel]
"""Gives the kernel for a precision ("fp16" or "fp32") and an alignment, see `kernels.choose`."""

_HWC8 = 8  # channels that a pixel is padded to a multiple of in TensorRT's format of that name


@dataclass(frozen=True)
class Attributes:
    """The node's attributes."""

    kernel_h: int
    kernel_w: int
    stride: int
    padding: int
    dilation: int
    offset_groups: int

    @classmethod
    def of(cls, values: Mapping[str, int]) -> Attributes:
        """The attributes among `values`.

        Raises:
            BackendError: one is missing, or makes no sense.
        """
        if missing := [name for name in ATTRIBUTES if name not in values]:
            raise _unfit(f"it has no attribute {', '.join(missing)}", ", ".join(ATTRIBUTES))
        for name in ATTRIBUTES:
            least = 0 if name == "padding" else 1
            if values[name] < least:
                raise _unfit(f"its {name} is {values[name]}", f"{least} or more")
        return cls(**{name: int(values[name]) for name in ATTRIBUTES})


@dataclass(frozen=True)
class Launch:
    """One launch of the kernel.

    Attributes:
        kernel: what is launched.
        grid: blocks along x, y and z.
        scalars: int32 arguments, which stand between the pointers of the inputs and the output's.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    scalars: tuple[int, ...]


def plan_launch(
    choose: KernelChoice,
    attributes: Attributes,
    precision: str,
    shapes: Sequence[Sequence[int]],
) -> Launch:
    """How to launch the kernel for a node whose inputs have these shapes.

    Args:
        choose: gives the kernel.
        precision: "fp16" (tensors in HWC8, pixels padded to 8 channels: 75 offset channels lie 80
            apart) or "fp32" (tensors in HWC, without padding).
        shapes: logical ones of image (N, Cin, H, W), ow (N, 3*G*taps, Ho, Wo), weight
            (taps, Cin, Cout) and bias (Cout,).

    Raises:
        BackendError: a shape is not known yet, or they do not fit each other or the kernel.
    """
    geometry = _geometry(attributes, precision, [tuple(shape) for shape in shapes])
    kernel = choose(precision, geometry.alignment(precision))
    _check_arguments(kernel)
    grid = kernel.grid(shapes[0][0], geometry.out_height, geometry.out_width, geometry.out_written)
    return Launch(kernel, grid, geometry.scalars())


def _geometry(attributes: Attributes, precision: str, shapes: list[tuple[int, ...]]) -> Geometry:
    ranks = {"image": 4, "ow": 4, "weight": 3, "bias": 1}
    for (name, rank), shape in zip(ranks.items(), shapes, strict=True):
        if len(shape) != rank or min(shape) < 1:
            raise _unfit(f"its {name} has the shape {shape}", f"{rank} fixed dimensions")
    (batch, channels, height, width), ow, weight, (out_channels,) = shapes
    a = attributes
    taps = a.kernel_h * a.kernel_w
    out_height, out_width = (
        (side + 2 * a.padding - a.dilation * (extent - 1) - 1) // a.stride + 1
        for side, extent in ((height, a.kernel_h), (width, a.kernel_w))
    )
    offsets = 3 * a.offset_groups * taps
    for name, found, expected in (
        ("ow", ow, (batch, offsets, out_height, out_width)),
        ("weight", weight, (taps, channels, out_channels)),
    ):
        if found != expected:
            raise _unfit(f"its {name} has the shape {found}", f"{expected}")
    multiple = _HWC8 if precision == "fp16" else 1
    image_stride, ow_stride, out_stride = (
        -(-count // multiple) * multiple for count in (channels, offsets, out_channels)
    )
    return Geometry(
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=out_channels,
        image_stride=image_stride,
        ow_stride=ow_stride,
        out_stride=out_stride,
        out_written=out_stride,  # TensorRT wants zeros in HWC8's padding
        kernel_h=a.kernel_h,
        kernel_w=a.kernel_w,
        stride_y=a.stride,
        stride_x=a.stride,
        pad_y=a.padding,
        pad_x=a.padding,
        dilation_y=a.dilation,
        dilation_x=a.dilation,
        offset_groups=a.offset_groups,
        mask_mode=MASK_LOGIT,
    )


def _check_arguments(kernel: Kernel) -> None:
    """Inputs, int32 numbers, output: TensorRT passes them in no other order."""
    names = tuple(argument.name for argument in kernel.arguments)
    numbers = kernel.arguments[len(INPUTS) : -1]
    expected = (*INPUTS, *Geometry.__dataclass_fields__, "out")
    if names != expected or any(number.type != "i32" for number in numbers):
        listed = ", ".join(f"{a.name}: {a.type}" for a in kernel.arguments)
        raise BackendError(
            f"the kernel '{kernel.file}' takes ({listed})",
            expected=f"({', '.join(expected)}), the numbers in between as i32",
            hint="compile the kernels again with `python -m export.deform_conv compile`",
        )


def _unfit(problem: str, expected: str) -> BackendError:
    return BackendError(
        f"a node {OPERATOR} cannot be run: {problem}",
        expected=expected,
        hint="export the model again with `python -m export`, at a fixed size, or with "
        "--deformable GridSample, which needs no plugin",
    )
