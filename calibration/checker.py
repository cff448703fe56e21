"""Running the gate: which graphs, on which pairs, and where the verdict goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from calibration import gate, latency, quantiser
from calibration.layers import QUANTISING
from edge_restore.cards import ModelCard, card_path
from edge_restore.errors import ModelError, OptionError
from edge_restore.files import check_writable
from edge_restore.pairs import find_pairs, spread
from edge_restore.progress import Progress
from edge_restore.quantisation import Gate


def check(
    model: Path, reference: Path, folders: Sequence[Path], *, fp16: Path | None = None,
    twin: Path | None = None, images: int | None = None,
    greatest_drop: float = gate.GREATEST_DROP, greatest_shift: float = gate.GREATEST_SHIFT,
) -> Gate:  # fmt: skip
    """Compare an INT8 graph with FP32 and write the verdict into its card.

    Args:
        model: the INT8 file.
        reference: the FP32 file of the same weights.
        folders: of pairs.
        fp16: a third file to have in the table.
        twin: an INT8 file with the same quantised weights and scales, that is run in place of
            `model`: one with our plugin's nodes runs in engines alone.
        images: pairs of each folder, evenly spread; None for all.

    Raises:
        ModelError: the files do not belong together, or cannot be run.
        DataError: a folder has no pairs, or a picture cannot be read.
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
    if images is not None and images < 1:
        raise OptionError(
            f"--images is {images}", expected="1 or more", mend="leave it out for all pairs"
        )
    sets = {folder.name: spread(find_pairs(folder), images) for folder in folders}
    floating = gate.runner(reference, reference_graph, reference_card)
    int8 = gate.runner(run_file, run_graph, run_card)
    half = gate.runner(fp16, *quantiser.load(fp16)) if fp16 else None
    with Progress(sum(map(len, sets.values())), "checking", unit="image") as progress:
        measured = [
            gate.compare(name, pairs, floating, int8, half, progress)
            for name, pairs in sets.items()
        ]
    told, slower = latency.of_engines(model, fp16)
    verdict = gate.verdict(
        measured, reference_card, run=run_card, greatest_drop=greatest_drop,
        greatest_shift=greatest_shift, latency=told, slower=slower,
    )  # fmt: skip
    replace(card, gate=verdict).write(card_path(model))
    return verdict


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
        mend="quantise that form with the same --scales",
    )


def _quantised(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The constants that Q/DQ nodes take, by name."""
    taken = {t for n in graph.graph.node if n.op_type in QUANTISING for t in n.input}
    return {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer if t.name in taken}
