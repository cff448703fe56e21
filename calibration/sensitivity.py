"""What each convolution costs in PSNR when it alone is INT8, and how many can be had for how much.

The frontier is greedy: convolutions are made INT8 one after another, the one with the least loss
for its multiply-accumulates first, and after each the whole is measured again, because errors do
not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import onnx

from calibration import layers as graph_layers
from calibration import qdq, quantiser
from calibration.calibration_set import CalibrationSet
from calibration.crops import Crop, mean_psnr
from calibration.layers import Layer
from calibration.runner import Runner
from calibration.scales import Scales
from edge_restore.errors import OptionError
from edge_restore.models.cards import ModelCard
from edge_restore.progress import Progress
from edge_restore.report import cells
from edge_restore.storage.files import write_text
from edge_restore.storage.json_file import encode

SCHEMA = "edge_restore.int8_sensitivity/1"


@dataclass(frozen=True)
class LayerDrop:
    """What one convolution costs when it alone is INT8.

    Attributes:
        name: of its node.
        macs_share: of the network's multiply-accumulates, 0 to 1.
        drop: PSNR of FP32 less PSNR with this layer in INT8, in dB.
    """

    name: str
    macs_share: float
    drop: float


@dataclass(frozen=True)
class FrontierPoint:
    """What the first so many convolutions cost together.

    Attributes:
        added: the one that came last.
        layers: how many are INT8.
        macs_share: theirs, 0 to 1.
        drop: PSNR of FP32 less PSNR of these in INT8, in dB.
    """

    added: str
    layers: int
    macs_share: float
    drop: float


@dataclass(frozen=True)
class Sensitivity:
    """The measurement of one network.

    Attributes:
        network: "svdn", ...
        method: how thresholds were chosen.
        crops: how many pictures the PSNR is of.
        psnr: of the FP32 graph, in dB.
        layers: in the graph's order.
        frontier: in the order in which layers were added.
        budget: the greatest drop allowed, in dB.
        chosen: how many of the frontier's layers the budget allows.
    """

    network: str
    method: str
    crops: int
    psnr: float
    layers: tuple[LayerDrop, ...]
    frontier: tuple[FrontierPoint, ...]
    budget: float
    chosen: int
    schema: str = field(default=SCHEMA)

    def chosen_names(self) -> list[str]:
        """The layers within the budget."""
        return [point.added for point in self.frontier[: self.chosen]]

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_text(path, encode(asdict(self), indent=2) + "\n")

    def table(self) -> str:
        """One line per layer, the costliest first, then the frontier."""
        head = f"{self.network}: FP32 {self.psnr:.3f} dB on {self.crops} crops; {self.method}"
        return f"{head}\n\n{tables(self.layers, self.frontier)}"


def tables(layers: Sequence[LayerDrop], frontier: Sequence[FrontierPoint]) -> str:
    """One line per layer, the costliest first, then the frontier, as far as there is one."""
    order = sorted(layers, key=lambda layer: -layer.drop)
    text = "each layer alone:\n" + cells.text_table(
        ("layer", "MACs", "drop dB"),
        [(la.name, f"{la.macs_share:.1%}", f"{la.drop:+.4f}") for la in order],
    )
    if frontier:
        text += "\n\none after another:\n" + cells.text_table(
            ("added", "layers", "MACs", "drop dB"),
            [(p.added, str(p.layers), f"{p.macs_share:.1%}", f"{p.drop:+.4f}") for p in frontier],
        )
    return text


class NothingWithin(OptionError):
    """Not even one layer is within the budget.

    Attributes:
        measured: every layer's cost, as a table.
    """

    def __init__(self, measured: str, found: str, *, expected: str, hint: str) -> None:
        self.measured = measured
        super().__init__(found, expected=expected, hint=hint)


class Interrupted(Exception):
    """The measurement was stopped before its end; its message is what was measured, as a table."""


@dataclass(frozen=True)
class SensitivityOptions:
    """How layers are quantised, and what they may cost.

    Attributes:
        budget: the greatest drop, in dB.
        method: of choosing ranges (calibration/ranges.py).
        skips: quantise the inputs of additions, too.
    """

    budget: float
    method: str = "mse"
    skips: bool = True


def measure(
    model: onnx.ModelProto,
    card: ModelCard,
    frames: CalibrationSet,
    crops: Sequence[Crop],
    options: SensitivityOptions,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Sensitivity, Scales]:
    """The sensitivity of a graph, and the scales of the largest set within the budget.

    Args:
        model: the FP32 graph with DeformConv nodes.
        frames: to learn ranges from.
        crops: to measure PSNR on.
        options: how layers are quantised, and what they may cost.
        stopped: asked before each graph; then no further one is measured.

    Raises:
        Interrupted: it was stopped.
        ModelError, DataError: as `quantiser.find_scales`.
        NothingWithin: not even one layer is within the budget.
    """
    found = graph_layers.layers(model, card.multiple)
    candidates = quantiser.choose(found)
    scales = quantiser.find_scales(
        model, card, frames, method=options.method, chosen=candidates, skips=options.skips
    )
    reference = _psnr(model, card, crops)
    with Progress(2 * len(candidates), "measuring", unit="graph") as progress:
        alone: list[LayerDrop] = []
        frontier: list[FrontierPoint] = []

        def check_stopped() -> None:
            if stopped():
                raise Interrupted(tables(alone, frontier) if alone else "")

        for layer in candidates:
            check_stopped()
            drop = reference - _psnr_of(model, card, crops, scales, [layer.name], options.skips)
            share = quantiser.share(found, [layer.name])
            alone.append(LayerDrop(layer.name, share, drop))
            progress.advance()
        taken: list[str] = []
        for one in sorted(alone, key=lambda layer: layer.drop / layer.macs_share):
            check_stopped()
            taken.append(one.name)
            drop = reference - _psnr_of(model, card, crops, scales, taken, options.skips)
            share = quantiser.share(found, taken)
            frontier.append(FrontierPoint(one.name, len(taken), share, drop))
            progress.advance()
    within = [point.layers for point in frontier if point.drop <= options.budget]
    if not within:
        best = min(point.drop for point in frontier)
        raise NothingWithin(
            tables(alone, frontier),
            f"no layer can be INT8 within {options.budget:g} dB; the least loss is {best:.3f} dB",
            expected="a budget that one layer keeps",
            hint="give a larger --min-psnr, other calibration frames, or train with quantisation: "
            "python -m calibration qat",
        )
    sensitivity = Sensitivity(
        card.network, options.method, len(crops), reference, tuple(alone), tuple(frontier),
        options.budget,
        max(within),
    )  # fmt: skip
    return sensitivity, subset(model, scales, found, sensitivity.chosen_names(), options.skips)


def subset(
    model: onnx.ModelProto, scales: Scales, found: Sequence[Layer], names: Sequence[str],
    skips: bool,
) -> Scales:  # fmt: skip
    """The scales of some of the layers."""
    layers = {name: scales.layers[name] for name in scales.layers if name in names}
    return replace(
        scales,
        layers=layers,
        skips=qdq.skips(model, layers) if skips else (),
        macs_share=quantiser.share(found, layers),
    )


def _psnr_of(
    model: onnx.ModelProto, card: ModelCard, crops: Sequence[Crop], scales: Scales,
    names: Sequence[str], skips: bool,
) -> float:  # fmt: skip
    layers = {name: scales.layers[name] for name in scales.layers if name in names}
    placed = qdq.place(model, layers, qdq.skips(model, layers) if skips else ())
    return _psnr(placed, card, crops)


def _psnr(model: onnx.ModelProto, card: ModelCard, crops: Sequence[Crop]) -> float:
    runner = Runner(model, card)
    return mean_psnr([runner.restored(crop.blurred) for crop in crops], crops)
