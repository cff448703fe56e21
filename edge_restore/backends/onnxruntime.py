"""The ONNX Runtime backend: runs a model of the zoo on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_restore.backends import finiteness
from edge_restore.backends.cpu import CpuRestorer, Image, first_line
from edge_restore.errors import BackendError, ModelError
from edge_restore.machine import optional
from edge_restore.models.model import Model


class OnnxRuntimeRestorer(CpuRestorer):
    """Restores with ONNX Runtime on the CPU, see `CpuRestorer`.

    Args:
        models: ONNX files with a card beside each, in the order of preference. The next one is
            tried where this ONNX Runtime lacks an operator of the one before.
        threads: how many threads a frame may use; None for one on each physical core, or
            fewer where a container allows fewer.
        memory_budget: bytes for the network's activations, see `memory.max_area`.

    Raises:
        ModelError, CardError: a model is not ours or not what its card says.
        BackendError: ONNX Runtime can run none of the models.
        OptionError: `threads` or `memory_budget` is less than 1.
        DependencyError: ONNX Runtime is not installed.
    """

    name = "onnxruntime-cpu"

    def __init__(
        self,
        models: Sequence[Path],
        *,
        threads: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        super().__init__(threads, memory_budget)
        self._loaded, self._session = _first_that_runs(models, self._threads)
        self.model, self.card = self._loaded.path, self._loaded.card
        self.precision = self.card.precision

    def _prepare(self, height: int, width: int) -> None:
        """A session takes every size."""

    def _graph(self, image: Image) -> tuple[Image, float]:
        outputs = [self.card.output.name, finiteness.SUM]
        restored, total = self._session.run(outputs, {self.card.input.name: image})
        return restored, float(total)


def description() -> str:
    """ONNX Runtime's version and execution providers; DependencyError when it is missing."""
    ort = _import()
    return f"ONNX Runtime {ort.__version__}, {', '.join(ort.get_available_providers())}"


def _import() -> ModuleType:
    return optional.require("onnxruntime", needed_for="the onnxruntime backend")


def _first_that_runs(models: Sequence[Path], threads: int | None) -> tuple[Model, Any]:
    ort = _import()
    states = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    no_operator = (states.NotImplemented, states.Fail, states.InvalidGraph)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told once
    # Planning one block for all activations takes 2400 to 3200 bytes per pixel where the arena by
    # itself takes 1920, and saves no time.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    lacking = []
    for path in models:
        model = Model.read(path)
        try:
            session = ort.InferenceSession(
                finiteness.watched(model), options, ["CPUExecutionProvider"]
            )
        except no_operator as error:
            lacking.append(f"{path.name}: {first_line(error)}")
            continue
        except Exception as error:  # see CpuRestorer._run
            raise ModelError(
                f"ONNX Runtime cannot load '{path}': {first_line(error)}",
                expected="an ONNX file that `python -m export` wrote",
                hint="export the model again, or upgrade onnxruntime",
            ) from error
        return model, session
    raise BackendError(
        f"ONNX Runtime {ort.__version__} can run none of the models:\n    "
        + "\n    ".join(lacking),
        expected="an ONNX Runtime with their operators",
        hint="pip install --upgrade onnxruntime",
    )
