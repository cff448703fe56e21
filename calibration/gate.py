"""Is the INT8 graph good enough? A comparison of FP32, FP16 and INT8 on pairs, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from calibration.runner import Runner
from edge_restore.engine.rounding import with_kept_rounding
from edge_restore.errors import ModelError
from edge_restore.evaluation.pairs import Pair
from edge_restore.evaluation.scoring import read_pair
from edge_restore.media.metrics import GREATEST_PSNR, finite_psnr, ssim
from edge_restore.models.cards import ModelCard
from edge_restore.models.quantisation import Gate, GateSet
from edge_restore.report import cells

GREATEST_DROP = 0.2
"""Of a set's mean PSNR against FP32, in dB."""

GREATEST_SHIFT = 0.1
"""Of a set's mean brightness against FP32, in levels of 255, either way."""


@dataclass
class ImageComparison:
    """One picture in each precision: what a set's numbers are made of."""

    name: str
    psnr: float
    psnr_int8: float
    psnr_fp16: float | None
    ssim: float
    ssim_int8: float
    shift: float
    column_errors: np.ndarray[Any, np.dtype[np.float64]]
    rows: int


def compare(
    name: str, pairs: Sequence[Pair], reference: Runner, int8: Runner, fp16: Runner | None = None
) -> GateSet:
    """Restore every pair's blurred picture in each precision and compare.

    Args:
        name: of the set.
        pairs: one or more.
        reference: the FP32 graph.
        int8: the graph in question.
        fp16: a third one, where it shall be in the table.

    Raises:
        DataError: a picture cannot be read.
    """
    return summary(name, [compare_pair(pair, reference, int8, fp16) for pair in pairs])


def compare_pair(
    pair: Pair, reference: Runner, int8: Runner, fp16: Runner | None = None
) -> ImageComparison:
    """As `compare`, for one pair."""
    blurred, sharp = read_pair(pair)
    truth, expected, found = sharp[0], reference.restored(blurred), int8.restored(blurred)
    half = fp16.restored(blurred) if fp16 else None
    difference = found.astype(np.float64) - expected
    return ImageComparison(
        pair.name,
        finite_psnr(expected, truth),
        finite_psnr(found, truth),
        None if half is None else finite_psnr(half, truth),
        ssim(expected, truth),
        ssim(found, truth),
        float(difference.mean()),
        np.square(difference).mean(axis=2).sum(axis=0),
        len(truth),
    )


def verdict(
    sets: Sequence[GateSet], reference: ModelCard, *, run: ModelCard, greatest_drop: float,
    greatest_shift: float, latency: str, slower: bool = False,
) -> Gate:  # fmt: skip
    """The gate's verdict over measured sets.

    Args:
        sets: one or more.
        reference: card of the FP32 graph.
        run: card of the INT8 graph that was run.
        latency: what is known of speed, in words.
        slower: whether the INT8 engine was measured and is not faster than the FP16 one.
    """
    failures = []
    for one in sets:
        # So written, NaN fails.
        if not one.drop <= greatest_drop:
            failures.append(f"{one.set}: loses {one.drop:.3f} dB, at most {greatest_drop:g}")
        if not abs(one.brightness_shift) <= greatest_shift:
            failures.append(
                f"{one.set}: brightness shifts by {one.brightness_shift:+.3f} levels, at most "
                f"{greatest_shift:g}"
            )
    if slower:
        failures.append(f"the INT8 engine is not faster than FP16: {latency}")
    return Gate(
        passed=not failures,
        reference_sha256=reference.onnx.sha256,
        run_sha256=run.onnx.sha256,
        greatest_drop=greatest_drop,
        greatest_shift=greatest_shift,
        sets=tuple(sets),
        latency=latency,
        failures=tuple(failures),
    )


def check_cards(reference: ModelCard, int8: ModelCard) -> None:
    """Make sure that the two are one network in two precisions; ModelError otherwise."""
    problem = ""
    if int8.precision != "int8":
        problem = f"'{int8.onnx.file}' is {int8.precision}, not INT8"
    elif reference.precision != "fp32":
        problem = f"the reference '{reference.onnx.file}' is {reference.precision}, not FP32"
    elif reference.form != int8.form:
        problem = f"'{int8.onnx.file}' is of form {int8.form}, the reference of {reference.form}"
    elif (
        reference.weights.sha256 != int8.weights.sha256
        and int8.quantisation is not None
        and int8.quantisation.method != "qat"
    ):
        problem = f"'{int8.onnx.file}' and '{reference.onnx.file}' are of different weights"
    if problem:
        raise ModelError(
            problem,
            expected="an INT8 graph, and the FP32 graph of the same weights and form",
            hint="name the FP32 model that it was made from with --reference",
        )


def runner(path: Path, model: onnx.ModelProto, card: ModelCard) -> Runner:
    """A runner of a graph of any precision; FP16 tensors are rounded as an engine would."""
    if card.deformable == "plugin":
        raise ModelError(
            f"'{path}' has nodes of our plugin, which ONNX Runtime cannot run",
            expected="a form that it can run, with the same scales and weights",
            hint="quantise the GridSample form with the same --scales, and name it with --twin",
        )
    if card.floating == "fp16":
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        return Runner(with_kept_rounding(model, inferred), card, plain=True)
    return Runner(model, card)


def table(gate: Gate) -> str:
    """The verdict as text: a line per set, then what is wrong."""
    header = ("set", "images", "FP32 dB", "FP16 dB", "INT8 dB", "drop", "SSIM", "INT8 SSIM",
              "worst image", "its drop", "brightness", "worst column")  # fmt: skip
    rows = [
        (
            one.set, str(one.images), f"{one.psnr:.3f}",
            "-" if one.psnr_fp16 is None else f"{one.psnr_fp16:.3f}",
            f"{one.psnr_int8:.3f}", f"{one.drop:+.3f}", f"{one.ssim:.4f}", f"{one.ssim_int8:.4f}",
            one.worst_image, f"{one.worst_drop:+.3f}", f"{one.brightness_shift:+.3f}",
            f"x={one.worst_column}: {one.worst_column_psnr:.1f} dB of {one.psnr_between:.1f}",
        )
        for one in gate.sets
    ]  # fmt: skip
    lines = [cells.text_table(header, rows), f"latency: {gate.latency}"]
    limits = f"at most {gate.greatest_drop:g} dB and {gate.greatest_shift:g} levels"
    lines.append(f"passed ({limits})" if gate.passed else f"failed ({limits}):")
    return "\n".join([*lines, *(f"  {failure}" for failure in gate.failures)])


def summary(name: str, images: Sequence[ImageComparison]) -> GateSet:
    """A set's numbers, of one picture or more."""
    worst = max(images, key=lambda image: image.psnr - image.psnr_int8)
    widest = max(len(image.column_errors) for image in images)
    errors, counts = np.zeros(widest), np.zeros(widest)
    for image in images:
        errors[: len(image.column_errors)] += image.column_errors
        counts[: len(image.column_errors)] += image.rows
    columns = errors / counts
    halves = [image.psnr_fp16 for image in images if image.psnr_fp16 is not None]
    return GateSet(
        set=name,
        images=len(images),
        psnr=float(np.mean([image.psnr for image in images])),
        psnr_int8=float(np.mean([image.psnr_int8 for image in images])),
        psnr_fp16=float(np.mean(halves)) if halves else None,
        ssim=float(np.mean([image.ssim for image in images])),
        ssim_int8=float(np.mean([image.ssim_int8 for image in images])),
        worst_image=worst.name,
        worst_drop=worst.psnr - worst.psnr_int8,
        brightness_shift=float(np.mean([image.shift for image in images])),
        worst_column=int(columns.argmax()),
        worst_column_psnr=_decibels(float(columns.max())),
        psnr_between=_decibels(float(errors.sum() / counts.sum())),
    )


def _decibels(square: float) -> float:
    return min(GREATEST_PSNR, float(-10 * np.log10(max(square / 255**2, 1e-12))))
