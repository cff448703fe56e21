"""From an exported graph and a calibration set to scales, and from scales to an INT8 model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import onnx

from calibration import layers as graph_layers
from calibration import qdq, ranges
from calibration.calibration_set import CalibrationSet
from calibration.layers import Layer
from calibration.ranges import PERCENTILE, Histogram
from calibration.runner import Runner
from calibration.scales import Scales
from edge_restore.errors import DataError, ModelError, OptionError
from edge_restore.models.cards import FileDigest, ModelCard, card_path, check_model_output
from edge_restore.models.model import Model
from edge_restore.models.quantisation import Quantisation
from edge_restore.progress import Progress
from edge_restore.storage.files import atomic_path


def load(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    """A graph and its card, after the two were compared.

    Raises:
        ModelError, CardError: as `Model.read`.
    """
    model = Model.read(path)
    return onnx.load_model_from_string(model.content), model.card


def choose(
    found: Sequence[Layer], only: Collection[str] = (), keep: Collection[str] = ()
) -> list[Layer]:
    """The layers that become INT8: those of the default policy, or some of them.

    Args:
        found: all convolutions of the graph.
        only: names to take; none for all that the policy allows.
        keep: names to leave in floating point.

    Raises:
        OptionError: a name is none of a convolution, or the policy keeps it; or none is left.
    """
    known = {layer.name: layer for layer in found}
    for name in (*only, *keep):
        if name not in known:
            raise OptionError(
                f"the graph has no convolution '{name}'",
                expected="names as `python -m calibration layers MODEL` prints them",
                hint="correct the name",
            )
        if name in only and known[name].kept:
            raise OptionError(
                f"'{name}' stays in floating point: {known[name].kept}",
                expected="interior convolutions",
                hint="leave the name out",
            )
    chosen = [
        layer for layer in found
        if not layer.kept and (not only or layer.name in only) and layer.name not in keep
    ]  # fmt: skip
    if not chosen:
        raise OptionError(
            "no convolution is left to quantise",
            expected="one or more interior convolutions",
            hint="name fewer with --keep",
        )
    return chosen


def find_scales(
    model: onnx.ModelProto, card: ModelCard, frames: CalibrationSet, *, method: str = "mse",
    percentile: float = PERCENTILE, chosen: Sequence[Layer] | None = None, skips: bool = True,
) -> Scales:  # fmt: skip
    """The scales of the chosen layers, from what they read while the frames are restored.

    Each frame is restored twice: once for the greatest magnitude, once for the histogram.

    Args:
        model: the FP32 graph with DeformConv nodes.
        method: see `calibration.ranges.threshold`.
        chosen: None for the default policy's.
        skips: whether residual additions read 8 bits too.

    Raises:
        ModelError: the graph is quantised, typed or lowered already.
        DataError: an activation is not finite, or always zero.
    """
    found = graph_layers.layers(model, card.multiple)
    chosen = choose(found) if chosen is None else chosen
    tensors = list(dict.fromkeys(layer.tensor for layer in chosen))
    steps = steps_of(model, card, frames, tensors, method, percentile)
    named = {layer.name: steps[layer.tensor] for layer in chosen}
    return Scales(
        network=card.network,
        weights_sha256=card.weights.sha256,
        layers=named,
        skips=qdq.skips(model, named) if skips else (),
        method=method,
        frames=len(frames.frames),
        set_sha256=frames.sha256,
        macs_share=share(found, named),
    )


def steps_of(
    model: onnx.ModelProto, card: ModelCard, frames: CalibrationSet, tensors: Sequence[str],
    method: str, percentile: float = PERCENTILE,
) -> dict[str, float]:  # fmt: skip
    """The scale of each tensor; as `find_scales`."""
    if method not in ranges.METHODS:
        ranges.threshold(Histogram.empty(0.0), method)
    runner = Runner(model, card, tensors)
    greatest = dict.fromkeys(tensors, 0.0)
    with Progress(2 * len(frames.pixels), "calibrating", unit="frame") as progress:
        for pixels in frames.pixels:
            for name, values in runner.activations(pixels).items():
                # So written, NaN stays.
                greatest[name] = max(float(abs(values).max()), greatest[name])
            progress.advance()
        for name, value in greatest.items():
            if not 0 < value < float("inf"):
                raise DataError(
                    f"the tensor '{name}' holds nothing but {value:g} on the calibration frames",
                    expected="finite values other than zero",
                    hint="collect other frames, or leave the layer out with --keep",
                )
        histograms = {name: Histogram.empty(value) for name, value in greatest.items()}
        for pixels in frames.pixels:
            for name, values in runner.activations(pixels).items():
                histograms[name].add(values, relative=method == "mse")
            progress.advance()
    limits = {n: ranges.threshold(h, method, percentile) for n, h in histograms.items()}
    return qdq.shared_steps(model, {name: ranges.scale(limit) for name, limit in limits.items()})


def share(found: Sequence[Layer], chosen: Collection[str]) -> float:
    """Of all multiply-accumulates of convolutions, those of the chosen ones: 0 to 1."""
    total = sum(layer.macs for layer in found)
    return sum(layer.macs for layer in found if layer.name in chosen) / total


def write(
    model: onnx.ModelProto, card: ModelCard, scales: Scales, out: Path, *, command: str
) -> ModelCard:
    """Write the INT8 form of `model` and its card, whole or not at all.

    The card has no gate yet: `python -m calibration check` adds it.

    Raises:
        ModelError: the scales are of other weights, or the graph is quantised already.
    """
    check_model_output(out)
    if scales.weights_sha256 != card.weights.sha256:
        raise ModelError(
            f"the scales are of other weights ({scales.weights_sha256[:12]}...) than "
            f"'{card.onnx.file}' ({card.weights.sha256[:12]}...)",
            expected="scales that were found on a graph of the same weights",
            hint="export both graphs from one file, and find the scales anew",
        )
    if scales.network != card.network:
        raise ModelError(
            f"the scales are of '{scales.network:.60}', and '{card.onnx.file}' is {card.network}",
            expected="scales that were found on a graph of the same network",
            hint="find the scales anew",
        )
    if card.precision == "int8":
        graph_layers.check(model)  # says so
    quantised = qdq.insert(model, scales)
    with atomic_path(out) as temporary, atomic_path(card_path(out)) as temporary_card:
        content = quantised.SerializeToString()
        temporary.write_bytes(content)
        written = replace(
            card,
            onnx=FileDigest(out.name, sha256(content).hexdigest(), len(content)),
            precision="int8",
            parity=(),
            command=command,
            quantisation=Quantisation(
                rest=card.precision,
                method=scales.method,
                layers=len(scales.layers),
                macs_share=scales.macs_share,
                frames=scales.frames,
                set_sha256=scales.set_sha256,
            ),
        )
        written.write(temporary_card)
    return written
