"""The network that goes into the builder: parsed from ONNX, its types counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_restore.engine import read_back
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.plan import Plan, export_command
from edge_restore.errors import BackendError, ModelError
from edge_restore.models import onnx_graph
from edge_restore.models.model import Model

_LOWER_PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}


@dataclass(frozen=True)
class Parsed:
    """A parsed network.

    Attributes:
        definition: the library's INetworkDefinition.
        typed: how many of its matrix layers are typed "int8", "fp16", "fp32", "other".
        strong: whether the builder must keep to these types.
        parser: kept, because the network's weights are in its memory.
    """

    definition: Any
    typed: Mapping[str, int]
    strong: bool
    parser: Any


def typings(flavour: Flavour) -> tuple[bool, ...]:
    """Whether to type the network weakly, in the order to try.

    Strongly typed networks are complete from TensorRT 10.12 on. Where the flags of weakly typed
    ones are still there, they are the second try.
    """
    weak_possible = hasattr(flavour.trt.BuilderFlag, "FP16")
    if not flavour.network_flags:
        return (True,)
    return (False, True) if weak_possible else (False,)


def allow_lower_precision(trt: Any, config: Any, precision: str) -> None:
    """Let the builder of a weakly typed network use the precision."""
    for name in _LOWER_PRECISION_FLAGS[precision]:
        if (flag := getattr(trt.BuilderFlag, name, None)) is not None:
            config.set_flag(flag)


def parse(
    builder: Any, logger: Any, plan: Plan, *, weak: bool, content: bytes | None = None
) -> Parsed:
    """Read the plan's ONNX file, or the one in `content`.

    Raises:
        BackendError: an operator that the flavour cannot take, or that it misreads; names it and
            its node.
        ModelError: the graph does not carry the precision that its card says.
        CardError: the file is not the one of the plan any more.
    """
    trt = plan.flavour.trt
    definition = builder.create_network(0 if weak else plan.flavour.network_flags)
    parser = trt.OnnxParser(definition, logger)
    if content is None:
        content = Model.of_card(plan.model, plan.card).content
    if not parser.parse(content):
        raise _unparsed(parser, plan)
    what = f"'{plan.model.name}'"
    read_back.check(plan.flavour, definition, onnx_graph.read(content, what), what)
    layers = [definition.get_layer(i) for i in range(definition.num_layers)]
    _refuse_rounded_coordinates(trt, layers, plan)
    typed = _typed(trt, layers)
    if not weak and not typed[plan.precision]:
        found = ", ".join(f"{n} {kind}" for kind, n in typed.items() if n) or "none"
        raise ModelError(
            f"'{plan.model}' does not carry {plan.precision}, though its card says so: its "
            f"convolutions are {found}",
            expected=f"convolutions typed {plan.precision}",
            hint="export the model again, so that card and graph agree",
        )
    return Parsed(definition, typed, not weak, parser)


def _unparsed(parser: Any, plan: Plan) -> BackendError:
    problems, operators = [], []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        operator, node = _text(error, "node_operator"), _text(error, "node_name")
        description = str(error.desc()).strip().splitlines()
        reason = description[0] if description else "no reason given"
        if operator:
            operators.append(operator)
            problems.append(f"the operator {operator} of the node '{node}': {reason}")
        else:
            problems.append(reason)
    hint = "export the model again for this flavour, see docs/engines.md"
    if {"DeformConv", "EdgeRestoreDeformConv"} & set(operators):
        out = plan.model.with_name(f"{plan.card.name}-gridsample-{plan.precision}.onnx")
        hint = export_command(
            plan.card, precision=plan.precision, deformable="GridSample", out=Path(out.name)
        )
    return BackendError(
        f"{plan.flavour.title} {plan.flavour.version} cannot take '{plan.model.name}':\n    "
        + "\n    ".join(problems or ["the parser gave no reason"]),
        expected="a graph of operators that it has",
        hint=hint,
    )


def _text(error: Any, name: str) -> str:
    """A field of a parser's error; old versions lack some."""
    return str(getattr(error, name)()) if hasattr(error, name) else ""


def _refuse_rounded_coordinates(trt: Any, layers: list[Any], plan: Plan) -> None:
    """The library's own plugin for DeformConv rounds coordinates in FP16, see docs/engines.md."""
    for layer in layers:
        if layer.name.endswith("DeformConv") and "PLUGIN" in layer.type.name:
            ours = "EdgeRestoreDeformConv" in layer.name
            if not ours and layer.get_input(0).dtype == trt.DataType.HALF:
                raise BackendError(
                    f"the node '{layer.name}' (DeformConv) is typed FP16, where the plugin of "
                    f"{plan.flavour.title} rounds sampling coordinates to whole pixels",
                    expected="DeformConv in FP32, or our plugin",
                    hint=export_command(
                        plan.card,
                        precision=plan.precision,
                        deformable="plugin",
                        out=Path(f"{plan.card.name}-plugin-{plan.precision}.onnx"),
                    ),
                )


def _typed(trt: Any, layers: list[Any]) -> dict[str, int]:
    """How many convolutions and products there are of each type.

    A quantised one is a convolution of FP16 or FP32 whose weights come as INT8 constants.
    """
    matrix = {trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION}
    matrix.add(trt.LayerType.MATRIX_MULTIPLY)
    names = {trt.DataType.HALF: "fp16", trt.DataType.FLOAT: "fp32", trt.DataType.INT8: "int8"}
    counts = Counter(
        names.get(layer.get_output(0).dtype, "other") for layer in layers if layer.type in matrix
    )
    quantising = sum(layer.type == trt.LayerType.QUANTIZE for layer in layers)
    constants = sum(
        layer.type == trt.LayerType.CONSTANT and layer.get_output(0).dtype == trt.DataType.INT8
        for layer in layers
    )
    # Weights may also come as floating constants that are quantised in the graph.
    quantised = constants or (1 if quantising else 0)
    return {"int8": quantised, **{kind: counts[kind] for kind in ("fp16", "fp32", "other")}}
