"""Running the gate: which graphs, on which pairs, and where the verdict goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from calibration import gate, latency, quantiser
from calibration.layers import QUANTISING
from calibration.runner import Runner
from edge_restore.errors import BackendError, DataError, ModelError, OptionError
from edge_restore.evaluation.pairs import Pair, find_pairs, spread
from edge_restore.models.cards import ModelCard, card_path
from edge_restore.models.quantisation import Gate
from edge_restore.progress import Progress
from edge_restore.storage.files import check_writable

_SHOWN = 8


@dataclass(frozen=True)
class CheckOptions:
    """What a check compares and demands.

    Attributes:
        images: pairs of each folder, evenly spread; None for all.
        greatest_drop: of the mean PSNR, in dB.
        greatest_shift: of the mean of a channel, in levels of 255.
    """

    images: int | None = None
    greatest_drop: float = gate.GREATEST_DROP
    greatest_shift: float = gate.GREATEST_SHIFT


def check(
    model: Path,
    reference: Path,
    folders: Sequence[Path],
    *,
    options: CheckOptions = CheckOptions(),
    fp16: Path | None = None,
    twin: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Gate:
    """Compare an INT8 graph with FP32. `write` puts the verdict into its card.

    Args:
        model: the INT8 file.
        reference: the FP32 file of the same weights.
        folders: of pairs.
        fp16: a third file to have in the table.
        twin: an INT8 file with the same quantised weights and scales, that is run in place of
            `model`: one with our plugin's nodes runs in engines alone.
        options: what is compared and demanded.
        stopped: asked after each picture; then no further one is compared.

    Raises:
        Incomplete: pictures cannot be read, or it was stopped; with what the others gave.
        ModelError: the files do not belong together, or cannot be run.
        DataError: a folder has no pairs.
    """
    graph, card = quantiser.load(model)
    check_writable(card_path(model))
    run_file, run_graph, run_card = model, graph, card
    if twin is not None:
        run_file = twin
        run_graph, run_card = quantiser.load(twin)
        _check_twin(graph, card, run_graph, run_card)
    reference_graph, reference_card = quantiser.load(reference)
    gate.check_cards(reference_card, card)
    if options.images is not None and options.images < 1:
        raise OptionError(
            f"--images is {options.images}", expected="1 or more", hint="leave it out for all pairs"
        )
    sets = {
        name: spread(find_pairs(folder), options.images)
        for name, folder in zip(_set_names(folders), folders, strict=True)
    }
    floating = gate.runner(reference, reference_graph, reference_card)
    int8 = gate.runner(run_file, run_graph, run_card)
    half = gate.runner(fp16, *quantiser.load(fp16)) if fp16 else None
    compared, missing = _compared(sets, floating, int8, half, stopped)
    told, slower = ("", False) if missing else latency.of_engines(model, fp16)
    measured = [gate.summary(name, found) for name, found in compared.items() if found]
    verdict = gate.verdict(
        measured, reference_card, run=run_card, greatest_drop=options.greatest_drop,
        greatest_shift=options.greatest_shift, latency=told or "not measured", slower=slower,
    )  # fmt: skip
    if missing:
        raise Incomplete(missing, verdict, sum(map(len, sets.values())))
    return verdict


def write(model: Path, verdict: Gate) -> None:
    """Write the verdict into the model's card."""
    path = card_path(model)
    replace(ModelCard.read(path), gate=verdict).write(path)


class Incomplete(DataError):
    """Not all pictures were compared, so that there is no verdict.

    Attributes:
        so_far: what the others gave; None where there is none.
    """

    def __init__(self, missing: list[str], verdict: Gate, images: int) -> None:
        more = f"\n    and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        failures = (*verdict.failures, f"incomplete: {len(missing)} of {images} images are missing")
        self.so_far = replace(verdict, passed=False, failures=failures) if verdict.sets else None
        super().__init__(
            f"{len(missing)} of {images} images were not compared, so that there is no verdict:"
            + "".join(f"\n    {line}" for line in missing[:_SHOWN])
            + more,
            expected="pairs of images that can be read and that the graphs take",
            hint="correct or remove these pairs and check again",
        )


def _set_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, after its parent's where another has the same."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    if len(set(names)) < len(names):
        raise OptionError(
            f"two of the folders with pairs are called '{max(names, key=names.count)}'",
            expected="folders that can be told apart, each given once",
            hint="name each once with --pairs, or rename one",
        )
    return names


def _compared(
    sets: Mapping[str, Sequence[Pair]], floating: Runner, int8: Runner, half: Runner | None,
    stopped: Callable[[], bool],
) -> tuple[dict[str, list[gate.ImageComparison]], list[str]]:  # fmt: skip
    """What the pictures gave, by set, and which are missing and why."""
    compared: dict[str, list[gate.ImageComparison]] = {name: [] for name in sets}
    missing: list[str] = []
    with Progress(sum(map(len, sets.values())), "checking", unit="image") as progress:
        for name, pairs in sets.items():
            for pair in pairs:
                if stopped():
                    missing.append(f"{name}: {pair.name}: interrupted")
                    continue
                try:
                    compared[name].append(gate.compare_pair(pair, floating, int8, half))
                except (DataError, BackendError) as error:
                    missing.append(f"{name}: {pair.name}: {error.found}")
                progress.advance()
    return compared, missing


def _check_twin(
    graph: onnx.ModelProto, card: ModelCard, twin: onnx.ModelProto, twin_card: ModelCard
) -> None:
    """Make sure that both compute the same INT8 convolutions; ModelError otherwise."""
    found, expected = _quantised(twin), _quantised(graph)
    if card.quantisation is None or card.quantisation != twin_card.quantisation:
        problem = "is quantised otherwise"
    elif found.keys() != expected.keys():
        problem = "quantises other tensors"
    elif differing := [name for name in found if not np.array_equal(found[name], expected[name])]:
        problem = f"has another constant '{differing[0]}'"
    else:
        return
    raise ModelError(
        f"the twin '{twin_card.onnx.file}' {problem} than '{card.onnx.file}'",
        expected="the DeformConv or GridSample form of the same weights, of the same precision, "
        "with the same scales",
        hint="quantise that form with the same --scales",
    )


def _quantised(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The constants that Q/DQ nodes take, by name."""
    taken = {t for n in graph.graph.node if n.op_type in QUANTISING for t in n.input}
    return {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer if t.name in taken}
