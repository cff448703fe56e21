"""Running an exported graph on the CPU: its pictures, and what its tensors hold on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from edge_restore.backends.cpu import from_unit_range, to_unit_range
from edge_restore.errors import BackendError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media.padding import pad_to_multiple
from edge_restore.models.cards import ModelCard

Activation = np.ndarray[Any, np.dtype[np.float32]]


class Runner:
    """A graph that takes uint8 frames, in memory.

    Args:
        model: the graph.
        card: of the model that it is, or was made from.
        tensors: float32 tensors that `activations` gives.
        plain: without ONNX Runtime's own rewriting of the graph.

    Raises:
        BackendError: this ONNX Runtime cannot run it.
        DependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self, model: onnx.ModelProto, card: ModelCard, tensors: Sequence[str] = (), *,
        plain: bool = False,
    ) -> None:  # fmt: skip
        ort = optional.require("onnxruntime", needed_for="calibration")
        self.card, self.tensors = card, tuple(tensors)
        if tensors:
            open_ended = onnx.ModelProto()
            open_ended.CopyFrom(model)
            open_ended.graph.output.extend(
                onnx.helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None) for t in tensors
            )
            model = open_ended
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        if plain:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, ["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot run the graph: "
                f"{str(error).splitlines()[0]}",
                expected="an ONNX Runtime with every operator of the graph",
                hint="pip install --upgrade onnxruntime; graphs with our plugin's nodes are run by "
                "engines alone",
            ) from error

    def restored(self, pixels: Pixels) -> Pixels:
        """A frame restored: uint8 (height, width, 3) of any size."""
        height, width = pixels.shape[:2]
        (restored,) = self._run([self.card.output.name], pixels)
        levels = restored[0] if self.card.form == "camera" else from_unit_range(restored)
        return np.ascontiguousarray(levels[:height, :width])

    def activations(self, pixels: Pixels) -> dict[str, Activation]:
        """What each of `tensors` holds for a frame."""
        return dict(zip(self.tensors, self._run(list(self.tensors), pixels), strict=True))

    def _run(self, outputs: list[str], pixels: Pixels) -> list[Any]:
        padded = pad_to_multiple(pixels, self.card.multiple)
        self._check_size(padded)
        image = padded[None] if self.card.form == "camera" else to_unit_range(padded)
        return self._session.run(outputs, {self.card.input.name: image})  # type: ignore[no-any-return]

    def _check_size(self, padded: Pixels) -> None:
        first = self.card.input.layout.index("H")
        fixed = self.card.input.shape[first : first + 2]
        if any(f not in (None, n) for f, n in zip(fixed, padded.shape, strict=False)):
            raise BackendError(
                f"the graph takes {fixed[0]}x{fixed[1]} only; a frame, padded, is "
                f"{padded.shape[0]}x{padded.shape[1]}",
                expected="frames of the graph's size",
                hint="collect with --size HxW, or export with dynamic height and width",
            )
