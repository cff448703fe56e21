"""The zoo's networks with Q/DQ nodes, which it does not ship, and cards for changed graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_restore.media.images import read_image
from edge_restore.media.photo import PHOTO
from edge_restore.models import zoo
from edge_restore.models.cards import FileDigest, ModelCard, card_path, verify
from edge_restore.storage.files import sha256

SVDN_INTERIOR = "groups."
"""How the names of SVDN's residual groups begin."""


def write_card(path: Path, like: str, precision: str, **changes: Any) -> Path:
    """Write the card of a graph: that of the zoo's model `like`, with changes."""
    card = verify(card_path(zoo.find(like)[0]))
    assert isinstance(card, ModelCard)
    digest = FileDigest(path.name, sha256(path), path.stat().st_size)
    changes = {"deformable": "GridSample", "onnx": digest, "precision": precision, **changes}
    replace(card, **changes).write(card_path(path))
    return path


def interior(source: Path) -> list[str]:
    """The convolutions to quantise: not the first, the last, or those of offsets and masks."""
    import onnx

    names = [node.name for node in onnx.load(str(source)).graph.node if node.op_type == "Conv"]
    grouped = [name for name in names if name.startswith(SVDN_INTERIOR)]
    return grouped or names[1:-1]


def quantise(source: Path, target: Path) -> None:
    """Q/DQ around the interior convolutions, by ONNX Runtime, as docs/engines.md shows it."""
    quantization = pytest.importorskip("onnxruntime.quantization", reason="it makes the Q/DQ nodes")
    photo = read_image(PHOTO)

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.frames: Iterator[dict[str, Any]] = iter(
                {"image": photo[None, y : y + 64, 900:996]} for y in (300, 600)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.frames, None)

    quantization.quantize_static(
        str(source),
        str(target),
        Frames(),
        quant_format=quantization.QuantFormat.QDQ,
        nodes_to_quantize=interior(source),
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        # TensorRT takes symmetric scales alone, and no quantised biases.
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
