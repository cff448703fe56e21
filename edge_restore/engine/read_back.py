"""Is the network that a parser made the one of the ONNX file, attribute by attribute?

A parser that does not know a word of the file may take something else for it, without an error:
several of TensorRT's take GridSample's mode "linear" for nearest neighbor. So every layer that was
made of a node is read back and compared with that node. What is compared is what the library lets
one read; an operator that is not in `_COMPARED` is taken on trust.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edge_restore.engine.flavour import Flavour
from edge_restore.errors import BackendError
from edge_restore.models.onnx_graph import Node, OnnxGraph, Tensor

Difference = tuple[str, Any, Any]
"""An attribute's name, its value in the file, and the layer's."""

_UNREADABLE = object()
"""What this version of the library does not tell."""

_CLASSES = {
    "ACTIVATION": "IActivationLayer",
    "CAST": "ICastLayer",
    "CONCATENATION": "IConcatenationLayer",
    "CONVOLUTION": "IConvolutionLayer",
    "DECONVOLUTION": "IDeconvolutionLayer",
    "DEQUANTIZE": "IDequantizeLayer",
    "ELEMENTWISE": "IElementWiseLayer",
    "GATHER": "IGatherLayer",
    "GRID_SAMPLE": "IGridSampleLayer",
    "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
    "NORMALIZATION": "INormalizationLayer",
    "POOLING": "IPoolingLayer",
    "QUANTIZE": "IQuantizeLayer",
    "REDUCE": "IReduceLayer",
    "RESIZE": "IResizeLayer",
    "SHUFFLE": "IShuffleLayer",
    "SLICE": "ISliceLayer",
    "SOFTMAX": "ISoftMaxLayer",
    "UNARY": "IUnaryLayer",
}
"""The class that shows a layer's own attributes; a parsed network gives them all as ILayer."""


@dataclass(frozen=True)
class _Layer:
    """A layer of the network, its class set, and the kind that it had before."""

    kind: str
    layer: Any

    def read(self, name: str) -> Any:
        """An attribute in plain Python: enum members by their names, dimensions as tuples."""
        value: Any = getattr(self.layer, name, _UNREADABLE)
        if value is _UNREADABLE or isinstance(value, (bool, int, float)):
            return value
        if hasattr(value, "name"):
            return value.name
        try:
            return tuple(value) if value is not None else _UNREADABLE
        except (TypeError, ValueError):  # dimensions that are not known yet
            return _UNREADABLE

    @property
    def rank(self) -> int:
        """Of its output."""
        return len(self.layer.get_output(0).shape)


class _Reader:
    """A node with its defaults, and the constants that it takes."""

    def __init__(self, node: Node, graph: OnnxGraph, made: dict[str, Node]) -> None:
        self.node, self.graph, self.made = node, graph, made

    def get(self, name: str, default: Any) -> Any:
        value = self.node.attributes.get(name)
        return default if value is None else value

    def constant(self, place: int) -> Tensor | None:
        """The constant input at a place; through the DequantizeLinear of quantised weights."""
        name = self.node.inputs[place] if place < len(self.node.inputs) else ""
        maker = self.made.get(name)
        if maker is not None and maker.operator == "DequantizeLinear":
            name = maker.inputs[0]
        elif maker is not None and maker.operator == "Constant":
            value = maker.attributes.get("value")
            return value if isinstance(value, Tensor) else None
        return self.graph.constants.get(name)

    def number(self, place: int, default: float) -> float | None:
        """A constant of one element, `default` where the input is left out, None if computed."""
        if place >= len(self.node.inputs) or not self.node.inputs[place]:
            return default
        tensor = self.constant(place)
        values = tensor.floats() if tensor is not None else None
        return float(values[0]) if values is not None and values.size else None


def check(flavour: Flavour, definition: Any, graph: OnnxGraph, what: str) -> int:
    """Compare every layer of a parsed network with the node that it was made of.

    Args:
        definition: the library's INetworkDefinition, just parsed.
        graph: what was parsed.
        what: what messages call the file.

    Returns:
        How many nodes were compared.

    Raises:
        BackendError: a layer has another attribute than its node, or a node whose layer is to be
            compared has none.
    """
    layers = _layers(flavour.trt, definition)
    made = {tensor: node for node in graph.nodes for tensor in node.outputs}
    compared, wrong = 0, []
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or node.operator not in _COMPARED:
            continue
        kind, always, differences = _COMPARED[node.operator]
        candidates = [*layers[node.label], *layers[node.outputs[0]]]
        found = [view for view in candidates if view.kind == kind]
        if not found:
            if always:
                wrong.append(f"'{node.label}' ({node.operator}): no layer of the kind {kind}")
            continue
        compared += 1
        reader = _Reader(node, graph, made)
        wrong += [
            f"'{node.label}' ({node.operator}): {name} is {got}, and {value} in the file"
            for name, value, got in differences(reader, found[0])
            if got is not _UNREADABLE and not _equal(value, got)
        ]
    if wrong:
        shown = wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])
        raise BackendError(
            f"{flavour.title} {flavour.version} misreads {what}:\n    " + "\n    ".join(shown),
            expected="a network with the attributes of the ONNX file",
            hint="use another version of it; where GridSample is named, export the model again "
            "with --opset 19",
        )
    return compared


def _layers(trt: Any, definition: Any) -> dict[str, list[_Layer]]:
    """The layers by the name of the node that they were made of, and by their output's."""
    found: dict[str, list[_Layer]] = defaultdict(list)
    for place in range(definition.num_layers):
        layer = definition.get_layer(place)
        kind = layer.type.name
        names = {str(layer.name), str(getattr(layer, "metadata", "") or "")}
        names |= {text[13:-1] for text in list(names) if text.startswith("[ONNX Layer: ")}
        names |= {str(layer.get_output(i).name) for i in range(layer.num_outputs)}
        if (shown := getattr(trt, _CLASSES.get(kind, ""), None)) is not None:
            layer.__class__ = shown
            for name in names:
                found[name].append(_Layer(kind, layer))
    return found


def _equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) or isinstance(found, float):
        return bool(abs(expected - found) <= 1e-6 * max(1.0, abs(expected)))
    if isinstance(expected, tuple) and isinstance(found, tuple):
        return tuple(map(int, expected)) == tuple(map(int, found))
    return bool(expected == found)


def _window(r: _Reader, view: _Layer, dims: int) -> Iterator[Difference]:
    """Strides and pads, in two or so dimensions."""
    yield "strides", r.get("strides", (1,) * dims), view.read("stride_nd")
    mode = r.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = r.get("pads", (0,) * 2 * dims) if mode == "NOTSET" else (0,) * 2 * dims
        yield "pads before", pads[:dims], view.read("pre_padding")
        yield "pads after", pads[dims:], view.read("post_padding")


def _convolution(r: _Reader, view: _Layer) -> Iterator[Difference]:
    weight = r.constant(1)
    kernel = r.get("kernel_shape", weight.dims[2:] if weight is not None else None)
    groups = r.get("group", 1)
    if kernel is not None:
        yield "kernel_shape", kernel, view.read("kernel_size_nd")
    if weight is not None:
        transposed = r.node.operator == "ConvTranspose"
        channels = weight.dims[1] * groups if transposed else weight.dims[0]
        yield "output channels", channels, view.read("num_output_maps")
    dims = len(kernel) if kernel is not None else view.rank - 2
    yield "dilations", r.get("dilations", (1,) * dims), view.read("dilation_nd")
    yield "group", groups, view.read("num_groups")
    shaped = any(r.get("output_padding", ())) or r.get("output_shape", ())
    if shaped:  # what is left of the pads then is the parser's own business
        yield "strides", r.get("strides", (1,) * dims), view.read("stride_nd")
    else:
        yield from _window(r, view, dims)


def _pooling(r: _Reader, view: _Layer) -> Iterator[Difference]:
    kernel = r.get("kernel_shape", ())
    average = r.node.operator == "AveragePool"
    yield "kind", "AVERAGE" if average else "MAX", view.read("type")
    yield "kernel_shape", kernel, view.read("window_size_nd")
    yield from _window(r, view, len(kernel))
    if r.get("auto_pad", "NOTSET") == "NOTSET":
        rounding = "EXPLICIT_ROUND_UP" if r.get("ceil_mode", 0) else "EXPLICIT_ROUND_DOWN"
        yield "ceil_mode", rounding, view.read("padding_mode")
    if average:
        excludes = not r.get("count_include_pad", 0)
        yield "count_include_pad", excludes, view.read("average_count_excludes_padding")


_INTERPOLATION = {
    "bilinear": "LINEAR", "linear": "LINEAR", "nearest": "NEAREST", "bicubic": "CUBIC",
    "cubic": "CUBIC",
}  # fmt: skip
_BORDER = {"zeros": "FILL", "border": "CLAMP", "reflection": "REFLECT"}
_COORDINATES = {
    "align_corners": "ALIGN_CORNERS",
    "asymmetric": "ASYMMETRIC",
    "half_pixel": "HALF_PIXEL",
    "pytorch_half_pixel": "HALF_PIXEL",
}
_NEAREST = {
    "round_prefer_floor": "HALF_DOWN", "round_prefer_ceil": "HALF_UP", "floor": "FLOOR",
    "ceil": "CEIL",
}  # fmt: skip


def _grid_sample(r: _Reader, view: _Layer) -> Iterator[Difference]:
    mode = r.get("mode", "bilinear")  # "linear" is the default from opset 20 on: the same
    yield "mode", _INTERPOLATION.get(mode, mode), view.read("interpolation_mode")
    border = r.get("padding_mode", "zeros")
    yield "padding_mode", _BORDER.get(border, border), view.read("sample_mode")
    yield "align_corners", bool(r.get("align_corners", 0)), view.read("align_corners")


def _resize(r: _Reader, view: _Layer) -> Iterator[Difference]:
    mode = r.get("mode", "nearest")
    yield "mode", _INTERPOLATION.get(mode, mode), view.read("resize_mode")
    coordinates = r.get("coordinate_transformation_mode", "half_pixel")
    yield (
        "coordinate_transformation_mode", _COORDINATES.get(coordinates, coordinates),
        view.read("coordinate_transformation"),
    )  # fmt: skip
    if mode == "nearest":
        rounding = r.get("nearest_mode", "round_prefer_floor")
        yield "nearest_mode", _NEAREST.get(rounding, rounding), view.read("nearest_rounding")
    if mode == "cubic":
        yield "cubic_coeff_a", float(r.get("cubic_coeff_a", -0.75)), view.read("cubic_coeff")
        yield "exclude_outside", bool(r.get("exclude_outside", 0)), view.read("exclude_outside")


def _activation(kind: str, **values: tuple[str, float]) -> Callable[..., Iterator[Difference]]:
    """`values` are the layer's attributes: the node's name for each, and its default."""

    def differences(r: _Reader, view: _Layer) -> Iterator[Difference]:
        yield "kind", kind, view.read("type")
        for name, (attribute, default) in values.items():
            yield attribute, float(r.get(attribute, default)), view.read(name)

    return differences


def _clip(r: _Reader, view: _Layer) -> Iterator[Difference]:
    yield "kind", "CLIP", view.read("type")
    for place, name, attribute in ((1, "min", "alpha"), (2, "max", "beta")):
        limit = r.number(place, float("nan"))
        if limit is not None and limit == limit:
            yield name, limit, view.read(attribute)


def _one_axis(
    attribute: str, default: int, name: str, *, mask: bool = False
) -> Callable[..., Iterator[Difference]]:
    def differences(r: _Reader, view: _Layer) -> Iterator[Difference]:
        axis = r.get(attribute, default) % max(1, view.rank)
        yield attribute, 1 << axis if mask else axis, view.read(name)

    return differences


def _reduction(operation: str) -> Callable[..., Iterator[Difference]]:
    def differences(r: _Reader, view: _Layer) -> Iterator[Difference]:
        yield "kind", operation, view.read("op")
        yield "keepdims", bool(r.get("keepdims", 1)), view.read("keep_dims")
        rank = len(view.layer.get_input(0).shape)
        axes = r.get("axes", None)
        if axes is None and len(r.node.inputs) > 1 and r.node.inputs[1]:
            given = r.constant(1)
            if given is None:
                return
            axes = given.integers()
        if axes is None and r.get("noop_with_empty_axes", 0):
            return
        mask = sum(1 << axis % rank for axis in (axes or range(rank)))
        yield "axes", mask, view.read("axes")

    return differences


def _layer_norm(r: _Reader, view: _Layer) -> Iterator[Difference]:
    yield "epsilon", float(r.get("epsilon", 1e-5)), view.read("epsilon")
    first = r.get("axis", -1) % view.rank
    mask = sum(1 << axis for axis in range(first, view.rank))
    yield "axis", mask, view.read("axes")


def _transpose(r: _Reader, view: _Layer) -> Iterator[Difference]:
    rank = view.rank
    perm = r.get("perm", tuple(reversed(range(rank))))
    found = [view.read(name) for name in ("first_transpose", "second_transpose")]
    if _UNREADABLE in found:
        return
    first, second = (tuple(f[:rank]) for f in found)
    yield "perm", perm, tuple(first[axis] for axis in second)


_DEPTH_FIRST, _CHANNEL_FIRST = (0, 3, 4, 1, 5, 2), (0, 1, 4, 2, 5, 3)


def _depth_to_space(r: _Reader, view: _Layer) -> Iterator[Difference]:
    wanted = _DEPTH_FIRST if r.get("mode", "DCR") == "DCR" else _CHANNEL_FIRST
    found = view.read("second_transpose")
    yield "mode", wanted, found if found is _UNREADABLE else found[:6]


_ELEMENT_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF",
                  16: "BF16"}  # fmt: skip


def _cast(r: _Reader, view: _Layer) -> Iterator[Difference]:
    wanted = _ELEMENT_TYPES.get(r.get("to", 0))
    if wanted is not None:
        yield "to", wanted, view.layer.get_output(0).dtype.name


def _quantise(r: _Reader, view: _Layer) -> Iterator[Difference]:
    """Axis, type, and that there is no zero point, which the library has no place for."""
    scale, zero = r.constant(1), r.constant(2)
    if scale is not None and scale.dims and scale.dims != (1,):
        axis = r.get("axis", 1) % view.rank
        yield "axis", axis, view.read("axis")
    if zero is not None and zero.type == 3:
        values = b"".join(bytes(v) for v in zero.raw) or bytes(map(bool, zero.integers()))
        yield "zero point", False, any(values)
        if r.node.operator == "QuantizeLinear":
            yield "output type", "INT8", view.layer.get_output(0).dtype.name


def _operation(name: str, attribute: str = "op") -> Callable[..., Iterator[Difference]]:
    return lambda r, view: iter([("kind", name, view.read(attribute))])


def _product(r: _Reader, view: _Layer) -> Iterator[Difference]:
    """Nothing of MatMul is transposed."""
    for name in ("op0", "op1"):
        yield name, "NONE", view.read(name)


def _slice(r: _Reader, view: _Layer) -> Iterator[Difference]:
    """Axes and steps, and starts where they are not computed: the layer has an input for them then.

    Newer libraries keep to the node's axes, older ones tell all of them.
    """
    constants = [r.constant(place) for place in (1, 3, 4)]
    starts, axes, steps = (c.integers() if c is not None else None for c in constants)
    if starts is None or (len(r.node.inputs) > 3 and axes is None):
        return
    wanted = tuple(axis % view.rank for axis in (axes or range(len(starts))))
    stride = steps or (1,) * len(wanted)
    computed = view.layer.num_inputs > 1 and view.layer.get_input(1) is not None
    if (found := view.read("axes")) is not _UNREADABLE:
        yield "axes", wanted, found
    else:
        places = dict(zip(wanted, zip(starts, stride, strict=False), strict=False))
        starts, stride = zip(*(places.get(i, (0, 1)) for i in range(view.rank)), strict=True)
    yield "steps", stride, view.read("stride")
    if not computed and min(starts) >= 0:
        yield "starts", starts, view.read("start")


_Comparison = tuple[str, bool, Callable[[_Reader, _Layer], Iterator[Difference]]]

_ELEMENTWISE = {
    "Add": "SUM", "Sub": "SUB", "Mul": "PROD", "Div": "DIV", "Min": "MIN", "Max": "MAX",
    "Pow": "POW", "Greater": "GREATER", "Less": "LESS", "Equal": "EQUAL", "And": "AND", "Or": "OR",
}  # fmt: skip
_UNARY = {
    "Round": "ROUND", "Abs": "ABS", "Neg": "NEG", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT",
    "Floor": "FLOOR", "Ceil": "CEIL", "Erf": "ERF", "Reciprocal": "RECIP",
}  # fmt: skip
_REDUCTIONS = {
    "ReduceMean": "AVG", "ReduceSum": "SUM", "ReduceMax": "MAX", "ReduceMin": "MIN",
    "ReduceProd": "PROD",
}  # fmt: skip

_COMPARED: dict[str, _Comparison] = {
    "AveragePool": ("POOLING", True, _pooling),
    "Cast": ("CAST", False, _cast),
    "Clip": ("ACTIVATION", False, _clip),
    "Concat": ("CONCATENATION", False, _one_axis("axis", 0, "axis")),
    "Conv": ("CONVOLUTION", True, _convolution),
    "ConvTranspose": ("DECONVOLUTION", True, _convolution),
    "DepthToSpace": ("SHUFFLE", True, _depth_to_space),
    "DequantizeLinear": ("DEQUANTIZE", True, _quantise),
    "Elu": ("ACTIVATION", True, _activation("ELU", alpha=("alpha", 1.0))),
    "Gather": ("GATHER", False, lambda r, view: iter(
        [("axis", r.get("axis", 0) % len(view.layer.get_input(0).shape), view.read("axis"))])),
    "GridSample": ("GRID_SAMPLE", True, _grid_sample),
    "HardSigmoid": ("ACTIVATION", True, _activation(
        "HARD_SIGMOID", alpha=("alpha", 0.2), beta=("beta", 0.5))),
    "LayerNormalization": ("NORMALIZATION", False, _layer_norm),
    "LeakyRelu": ("ACTIVATION", True, _activation("LEAKY_RELU", alpha=("alpha", 0.01))),
    "MatMul": ("MATRIX_MULTIPLY", True, _product),
    "MaxPool": ("POOLING", True, _pooling),
    "QuantizeLinear": ("QUANTIZE", True, _quantise),
    "Relu": ("ACTIVATION", True, _activation("RELU")),
    "Resize": ("RESIZE", True, _resize),
    "Sigmoid": ("ACTIVATION", True, _activation("SIGMOID")),
    "Slice": ("SLICE", False, _slice),
    "Softmax": ("SOFTMAX", True, _one_axis("axis", -1, "axes", mask=True)),
    "Tanh": ("ACTIVATION", True, _activation("TANH")),
    "Transpose": ("SHUFFLE", False, _transpose),
    **{name: ("ELEMENTWISE", False, _operation(kind)) for name, kind in _ELEMENTWISE.items()},
    **{name: ("UNARY", False, _operation(kind)) for name, kind in _UNARY.items()},
    **{name: ("REDUCE", False, _reduction(kind)) for name, kind in _REDUCTIONS.items()},
}  # fmt: skip
"""For each operator: the kind of its layer, whether there is one in any case, what is compared."""
