"""From a weights file to an ONNX file with its card, or to a clear refusal."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import onnx
from torch import nn

from edge_restore.errors import ModelError, OptionError
from edge_restore.models.cards import (
    FileDigest,
    ModelCard,
    TensorPort,
    WeightsCard,
    card_path,
    check_model_output,
)
from edge_restore.storage.files import atomic_path
from export import graph, lowering, parity, plugin_node, precision
from train import weights as weights_files
from train.networks import NETWORKS
from train.networks.deform_conv import DeformConv2d

TASK = "deblur"


@dataclass(frozen=True)
class Options:
    """How a network is exported.

    Attributes:
        form: "float" or "camera", see `export.graph`.
        size: (height, width) of the graph, or None for dynamic ones.
        deformable: "DeformConv" for the standard node, "GridSample" to write it with GridSample,
            "plugin" for our own node, which TensorRT with our plugin runs.
        opset: of the ONNX file.
        precision: "fp32", or "fp16" with islands of FP32, see `export.precision`.
    """

    form: str = "float"
    size: tuple[int, int] | None = None
    deformable: str = "DeformConv"
    opset: int = 19
    precision: str = "fp32"


@dataclass(frozen=True)
class Composed:
    """A graph that is ready to be written.

    Attributes:
        model: the graph.
        runnable: what ONNX Runtime runs to check it: the same graph, except that the plugin's
            nodes are still DeformConv with its slices, sigmoid and activation.
        islands: the nodes that stay in FP32 in an FP16 graph.
    """

    model: onnx.ModelProto
    runnable: onnx.ModelProto
    islands: tuple[str, ...]


def export(
    network_name: str, weights: Path, out: Path, options: Options, *, name: str, command: str
) -> tuple[ModelCard, float]:
    """Write `out` and its card, after ONNX Runtime agreed with torch on three sizes.

    Nothing is written, and what stood at `out` stays, when anything is wrong.

    Args:
        network_name: which network the weights are expected to be of.
        name: what the card calls the model.
        command: what the card says that it was made with.

    Returns:
        The card, and the greatest offset in pixels that the comparison sampled with.

    Raises:
        UserError: the input cannot be used, or the outputs differ; the types say which.
        InternalError: a graph that is not valid.
    """
    check_model_output(out)
    network, trained = _load(network_name, weights)
    if options.deformable == "GridSample" and _has_deformable(network):
        lowering.check_opset(options.opset)
    composed = compose(network, options)
    deformable = options.deformable if _has_deformable(network) else "none"
    with atomic_path(out) as temporary, atomic_path(card_path(out)) as temporary_card:
        content = composed.model.SerializeToString()
        temporary.write_bytes(content)
        differences, reach = parity.check(
            composed.runnable, network, form=options.form, size=options.size,
            precision=options.precision, name=out.name,
        )  # fmt: skip
        card = ModelCard(
            name=name,
            network=network_name,
            task=TASK,
            form=options.form,
            deformable=deformable,
            opset=options.opset,
            multiple=trained.multiple,
            input=_port(graph.INPUT, options),
            output=_port(graph.OUTPUT, options),
            onnx=FileDigest(out.name, sha256(content).hexdigest(), len(content)),
            weights=FileDigest(weights.name, trained.weights.sha256),
            parameters=trained.parameters,
            parity=differences,
            scores=trained.scores,
            licence=trained.licence,
            command=command,
            precision=options.precision,
            fp32_islands=composed.islands,
        )
        card.write(temporary_card)
    return card, reach


def build(network: nn.Module, options: Options) -> onnx.ModelProto:
    """The graph of `network` with `options`, checked, not yet compared with torch."""
    return compose(network, options).model


def compose(network: nn.Module, options: Options) -> Composed:
    """The graph of `network` with `options`, and the one to check it with."""
    model = graph.build(network, form=options.form, size=options.size, opset=options.opset)
    if options.deformable == "GridSample":
        model = graph.finish(graph.simplify(lowering.lower(model)))
    islands: tuple[str, ...] = ()
    plugin = options.deformable == "plugin"
    if options.precision == "fp16":
        model, islands = precision.to_fp16(model, half_deform_conv=plugin)
        model = graph.finish(model)
    if not plugin:
        return Composed(model, model, islands)
    return Composed(graph.finish_custom(plugin_node.to_plugin(model)), model, islands)


def _load(network_name: str, weights: Path) -> tuple[nn.Module, WeightsCard]:
    if network_name not in NETWORKS:
        raise OptionError(
            f"no network is called '{network_name}'",
            expected="one of: " + ", ".join(NETWORKS),
            hint="choose one of these names",
        )
    network, card = weights_files.load(weights)
    if card.network != network_name:
        raise ModelError(
            f"'{weights}' holds weights of {card.network}, not of {network_name}",
            expected=f"weights whose card says {network_name}",
            hint=f"python -m export {card.network} --weights {weights}, or name other weights",
        )
    return network, card


def _has_deformable(network: nn.Module) -> bool:
    return any(isinstance(layer, DeformConv2d) for layer in network.modules())


def _port(name: str, options: Options) -> TensorPort:
    height, width = options.size or (None, None)
    if options.form == "camera":
        return TensorPort(name, "uint8", "NHWC", (1, height, width, 3))
    return TensorPort(name, "float32", "NCHW", (1, 3, height, width))
