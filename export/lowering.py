"""DeformConv written with GridSample, for engines that have no deformable convolution.

    y(p) = sum over taps k of w_k * x(p + p_k + offset_k(p)) * mask_k(p)   (DCNv2, Eq. 1)

GridSample with zero padding reads x at fractional positions exactly as DeformConv does (a bilinear
corner outside the image is zero); w_k is then a 1x1 convolution. Sampling all K = Kh*Kw taps at
once would hold a K*C*Ho*Wo tensor, so a few taps are sampled at a time, convolved, and added up.

An engine's compiler sees that those steps do not need each other and samples them all in one
kernel, which holds that tensor again (TensorRT-RTX 1.7 does). So each step waits for the one
before: the upper limit that its coordinates are clipped to is chosen by a number from the sum so
far, between two limits that both lie outside the image.

Opset 20 renamed GridSample's mode "bilinear" to "linear", and parsers of TensorRT that know only
the old name (10.1 to 10.13, 11.1, TensorRT-RTX 1.4 and 1.5) take the new one for "nearest" without
a word. So the graphs are of opset 19.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_restore.errors import ModelError, OptionError

NEWEST_OPSET = 19
"""The last in which GridSample's mode is called "bilinear"."""

FARTHEST = 4.0
"""Normalised coordinates are clipped to +-FARTHEST: outside the image for every size (the corners
of a one-pixel side are at +-3), and small enough for the integers that a runtime floors them to."""

FARTHER = 4.5
"""The other limit, just as far outside; taken where the sum so far exceeds `HUGE`."""

HUGE = 6e4
"""Fits into float16. It does not matter what exceeds it, see `FARTHER`; NaN does not."""


def lower(model: onnx.ModelProto, *, taps_at_once: int | None = None) -> onnx.ModelProto:
    """A copy of `model` in which every DeformConv is written with GridSample and Conv.

    Any kernel, stride, padding, dilation, groups and offset groups, with or without mask and bias,
    fixed or dynamic height and width; float32. The new nodes are called after the old one:
    ``neck.deform1/DeformConv`` becomes ``neck.deform1/GridSample_0``, ``neck.deform1/Conv_0``...

    The result agrees with DeformConv to float32 rounding of normalised coordinates: a position is
    off by up to about size * 1e-7 pixels. NaN offsets, which DeformConv leaves undefined, give NaN.

    Args:
        taps_at_once: how many taps are sampled at a time; None for one row of the kernel. The
            tensors in between have taps_at_once * C * Ho * Wo elements.

    Raises:
        ModelError: a DeformConv whose weight is not a float32 constant.
        OptionError: the graph is of an opset above `NEWEST_OPSET`.
    """
    check_opset(next(entry.version for entry in model.opset_import if entry.domain == ""))
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    graph = lowered.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in graph.node:
        if node.op_type != "DeformConv":
            nodes.append(node)
            continue
        layer = _Layer.read(node, constants)
        replaced.add(layer.weight_name)
        writer = _Writer(node.name.removesuffix("DeformConv") or f"{node.output[0]}/")
        _write(writer, layer, taps_at_once or layer.kernel[1])
        nodes += writer.nodes
        graph.initializer.extend(writer.constants)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    for name in replaced - used:
        graph.initializer.remove(constants[name])
    return lowered


def check_opset(opset: int) -> None:
    """Make sure that GridSample of this opset is bilinear on every TensorRT.

    Raises:
        OptionError: it is not.
    """
    if opset > NEWEST_OPSET:
        raise OptionError(
            f"GridSample of opset {opset} calls its mode 'linear', which TensorRT 10.1 to 10.13 "
            "and 11.1 and TensorRT-RTX 1.4 and 1.5 take for nearest neighbor",
            expected=f"opset {NEWEST_OPSET}, in which it is 'bilinear' for all of them",
            hint=f"leave --opset out, or use --opset {NEWEST_OPSET}",
        )


@dataclass(frozen=True)
class _Layer:
    """One DeformConv node, read."""

    image: str
    offset: str
    mask: str | None
    bias: str | None
    output: str
    weight_name: str
    weight: np.ndarray[Any, np.dtype[np.float32]]
    """(Cout, C/groups, Kh, Kw)."""
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    """Before the first row and column; what follows the last only shows in the offset's size."""
    dilation: tuple[int, int]
    groups: int
    offset_groups: int

    @classmethod
    def read(cls, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> _Layer:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        image, weight_name, offset, bias, mask = (*node.input, "", "")[:5]
        weight = constants.get(weight_name)
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
            raise ModelError(
                f"the weight '{weight_name}' of the node '{node.name}' is not a float32 constant",
                expected="a DeformConv whose weight is a float32 initializer",
                hint="lower the graph as it was exported, before it is typed or quantised",
            )
        values = numpy_helper.to_array(weight)
        return cls(
            image=image,
            offset=offset,
            mask=mask or None,
            bias=bias or None,
            output=node.output[0],
            weight_name=weight_name,
            weight=values,
            kernel=(values.shape[2], values.shape[3]),
            stride=tuple(attributes.get("strides", (1, 1))),
            padding=tuple(attributes.get("pads", (0, 0, 0, 0)))[:2],
            dilation=tuple(attributes.get("dilations", (1, 1))),
            groups=attributes.get("group", 1),
            offset_groups=attributes.get("offset_group", 1),
        )


class _Writer:
    """Collects nodes and constants whose names begin with the old node's."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: Sequence[str], label: str = "", **attributes: Any) -> str:
        """One node of one output, which is called like the node."""
        (output,) = self.add_many(op, inputs, label, [""], **attributes)
        return output

    def add_many(
        self, op: str, inputs: Sequence[str], label: str, outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """One node with an output for each label in `outputs`."""
        name = self.prefix + op + (f"_{label}" if label else "")
        names = [f"{name}:{output}" if output else name for output in outputs]
        self.nodes.append(helper.make_node(op, inputs, names, name, **attributes))
        return names

    def constant(self, label: str, values: Any, dtype: type = np.float32) -> str:
        name = f"{self.prefix}{label}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def finish(self, output: str) -> None:
        """Let the last node write the tensor `output`."""
        self.nodes[-1].output[0] = output


def _steps(taps: int, at_once: int) -> Iterator[tuple[int, slice]]:
    for number, first in enumerate(range(0, taps, at_once)):
        yield number, slice(first, min(first + at_once, taps))


def _write(w: _Writer, layer: _Layer, at_once: int) -> None:
    """The nodes that stand for `layer`. In the comments G is the number of offset groups."""
    channels = layer.weight.shape[1] * layer.groups
    taps = layer.kernel[0] * layer.kernel[1]
    steps = list(_steps(taps, at_once))
    sizes = w.constant("taps", [s.stop - s.start for _, s in steps], np.int64)
    labels = [str(number) for number, _ in steps]
    out_size = w.add("Shape", [layer.offset], "out_size", start=2)
    out_width = w.add("Shape", [layer.offset], "out_width", start=3)

    def reshaped(tensor: str, label: str, *leading: int, tail: str = out_size) -> str:
        head = w.constant(f"{label}/head", leading, np.int64)
        shape = w.add("Concat", [head, tail], f"{label}_shape", axis=0)
        return w.add("Reshape", [tensor, shape], label)

    image = layer.image
    if layer.offset_groups > 1:  # (N, C, H, W) -> (N*G, C/G, H, W)
        size = w.add("Shape", [image], "size", start=2)
        image = reshaped(image, "image", -1, channels // layer.offset_groups, tail=size)
    grids = w.add_many(
        "Split", [_grid(w, layer, reshaped), sizes], "grid", labels, axis=1
    )  # (N*G, taps, Ho, Wo, 2) each
    masks = []
    if layer.mask is not None:
        mask = reshaped(layer.mask, "mask", -1, taps)
        masks = w.add_many("Split", [mask, sizes], "mask", labels, axis=1)  # (N*G, taps, Ho, Wo)

    grid_tail = w.add("Concat", [out_width, w.constant("two", [2], np.int64)], "grid_tail", axis=0)
    total = ""
    for number, step in steps:
        count = step.stop - step.start
        grid = reshaped(grids[number], f"grid_{number}", 0, -1, tail=grid_tail)
        grid = w.add("Min", [grid, _after(w, total, number)], str(number))
        columns = w.add(  # (N*G, C/G, taps*Ho, Wo)
            "GridSample", [image, grid], str(number),
            mode="bilinear", padding_mode="zeros", align_corners=0,
        )  # fmt: skip
        if masks:
            mask = reshaped(masks[number], f"mask_{number}", 0, 1, -1, tail=out_width)
            columns = w.add("Mul", [columns, mask], str(number))
        columns = reshaped(columns, f"columns_{number}", -1, channels * count)
        weight = layer.weight.reshape(*layer.weight.shape[:2], taps)[:, :, step]
        kernel = w.constant(f"weight_{number}", weight.reshape(len(weight), -1, 1, 1))
        bias = [layer.bias] if layer.bias is not None and number == 0 else []
        part = w.add("Conv", [columns, kernel, *bias], str(number), group=layer.groups)
        total = w.add("Add", [total, part], str(number)) if total else part
    w.finish(layer.output)


def _after(w: _Writer, total: str, number: int) -> str:
    """The upper limit of a step's coordinates, (1,), known once `total` is (empty: at once)."""
    if not total:
        return w.constant("highest", [FARTHEST])
    first = [w.constant(f"first_{number}/{n}", [i] * 4, np.int64) for i, n in ((0, "a"), (1, "b"))]
    number_of_sum = w.add("Slice", [total, *first], f"first_{number}")
    number_of_sum = w.add(
        "Reshape", [number_of_sum, w.constant(f"first_{number}/shape", [1], np.int64)],
        f"first_{number}",
    )  # fmt: skip
    exceeds = w.add("Greater", [number_of_sum, w.constant(f"huge_{number}", [HUGE])], str(number))
    limits = [w.constant(f"{n}_{number}", [v]) for n, v in (("far", FARTHER), ("near", FARTHEST))]
    return w.add("Where", [exceeds, *limits], f"limit_{number}")


def _grid(w: _Writer, layer: _Layer, reshaped: Any) -> str:
    """Where each tap reads, (N*G, taps, Ho, Wo, 2) as (x, y) normalised for align_corners=0.

    Pixel i of n stands at (2*i + 1)/n - 1, which is defined for one-pixel sides too.
    """
    taps = layer.kernel[0] * layer.kernel[1]
    offset = reshaped(layer.offset, "offset", -1, taps, 2)  # (N*G, taps, 2, Ho, Wo)
    parts = w.add_many("Split", [offset], "offset", ["y", "x"], axis=2, num_outputs=2)
    coordinates = []
    for axis, part in enumerate(parts):
        label = "yx"[axis]
        size = w.add("Shape", [layer.image], f"{label}_size", start=2 + axis, end=3 + axis)
        size = w.add("Cast", [size], f"{label}_size", to=onnx.TensorProto.FLOAT)
        scale = w.add("Div", [w.constant(f"{label}/two", 2), size], f"{label}_scale")
        length = w.add("Shape", [layer.offset], f"{label}_length", start=2 + axis, end=3 + axis)
        length = w.add("Squeeze", [length], f"{label}_length")
        zero, one = (w.constant(f"{label}/{n}", n, np.int64) for n in (0, 1))
        ramp = w.add("Range", [zero, length, one], label)
        ramp = w.add("Cast", [ramp], f"{label}_ramp", to=onnx.TensorProto.FLOAT)
        ramp = w.add(
            "Mul", [ramp, w.constant(f"{label}/stride", 2 * layer.stride[axis])], f"{label}_ramp"
        )
        if axis == 0:  # (Ho, 1), as the columns are (Wo,)
            ramp = w.add("Unsqueeze", [ramp, w.constant("y/axis", [1], np.int64)], "y_ramp")
        tap = np.indices(layer.kernel)[axis].reshape(taps, 1, 1, 1)
        regular = 2 * (tap * layer.dilation[axis] - layer.padding[axis]) + 1
        place = w.add("Add", [ramp, w.constant(f"{label}/taps", regular)], f"{label}_taps")
        place = w.add("Div", [place, size], f"{label}_place")
        place = w.add("Sub", [place, w.constant(f"{label}/one", 1)], f"{label}_place")
        moved = w.add("Mul", [part, scale], f"{label}_offset")
        coordinates.append(w.add("Add", [moved, place], label))
    grid = w.add("Concat", coordinates[::-1], "grid", axis=2)
    grid = w.add("Transpose", [grid], "grid", perm=[0, 1, 3, 4, 2])
    # Only from below: `_after` gives the upper limit.
    return w.add("Max", [grid, w.constant("lowest", -FARTHEST)], "grid")
