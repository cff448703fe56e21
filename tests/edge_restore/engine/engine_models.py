"""The zoo's networks as graphs that TensorRT-RTX takes: FP32, FP16, INT8, each with its card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore import zoo
from edge_restore.cards import FileDigest, ModelCard, card_path, verify
from edge_restore.files import sha256

INTERIOR = "groups."
"""Convolutions that are quantised: not the first, the last, or those of offsets and masks."""


def lowered(name: str) -> Any:
    """The zoo's network with GridSample, as `python -m export --deformable GridSample` writes it,
    as an onnx.ModelProto."""
    onnx = pytest.importorskip("onnx", reason="the graphs are made with onnx")
    onnxsim = pytest.importorskip("onnxsim", reason="the graphs are simplified as on export")
    lowering = pytest.importorskip("export.lowering", reason="the wheel has no export room")
    model = onnx.load(str(zoo.find(name)[0]))
    simplified, same = onnxsim.simplify(lowering.lower(model))
    assert same
    return simplified


def write(
    model: Any, folder: Path, name: str, precision: str, islands: tuple[str, ...] = ()
) -> Path:
    """Write a graph with the card that its export would have; its path."""
    import onnx

    path = folder / f"{name}-gridsample-{precision}.onnx"
    onnx.save(model, str(path))
    return write_card(path, name, precision, islands)


def write_card(path: Path, name: str, precision: str, islands: tuple[str, ...] = ()) -> Path:
    """Write the card of a graph that was made from the zoo's network."""
    card = verify(card_path(zoo.find(name)[0]))
    assert isinstance(card, ModelCard)
    replace(
        card,
        deformable="GridSample",
        onnx=FileDigest(path.name, sha256(path), path.stat().st_size),
        precision=precision,
        fp32_islands=islands,
    ).write(card_path(path))
    return path


def quantise(source: Path, target: Path) -> None:
    """Q/DQ around the interior convolutions, by ONNX Runtime, as docs/engines.md shows it."""
    quantization = pytest.importorskip("onnxruntime.quantization", reason="it makes the Q/DQ nodes")
    import onnx

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.frames: Iterator[dict[str, Any]] = iter(
                {"image": np.random.default_rng(i).integers(0, 256, (1, 32, 48, 3), np.uint8)}
                for i in range(2)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.frames, None)

    nodes = [n.name for n in onnx.load(str(source)).graph.node if n.op_type == "Conv"]
    quantization.quantize_static(
        str(source),
        str(target),
        Frames(),
        quant_format=quantization.QuantFormat.QDQ,
        nodes_to_quantize=[name for name in nodes if name.startswith(INTERIOR)],
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        # TensorRT takes symmetric scales alone, and no quantised biases.
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
