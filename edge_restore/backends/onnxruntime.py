"""The ONNX Runtime backend: runs a model of the zoo on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge_restore import padding, tiles
from edge_restore.backends import memory
from edge_restore.cards import ModelCard, TensorPort, card_path, verify
from edge_restore.errors import (
    BackendError,
    DependencyError,
    InternalError,
    ModelError,
    OptionError,
)
from edge_restore.frames import Frame, Pixels

UnitImage = np.ndarray[Any, np.dtype[np.float32]]
"""float32 (height, width, 3) in [0, 1]."""

_TENSOR_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeRestorer:
    """Restores one frame at a time on the CPU: `submit` does the work, `collect` hands it over.

    The pixels of a submitted frame are read, never written; a restored frame gets an array of its
    own, so nothing that was handed out is touched again.

    Args:
        models: ONNX files with a card beside each, in the order of preference. The next one is
            tried where this ONNX Runtime lacks an operator of the one before.
        threads: how many threads a frame may use; None for one on each physical core.
        memory_budget: bytes for the network's activations, see `memory.greatest_area`.

    Raises:
        ModelError, CardError: a model is not ours or not what its card says.
        BackendError: ONNX Runtime can run none of the models.
        OptionError: `threads` or `memory_budget` is less than 1.
        DependencyError: ONNX Runtime is not installed.
    """

    name = "onnxruntime-cpu"
    in_flight = 1

    def __init__(
        self,
        models: Sequence[Path],
        *,
        threads: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise OptionError(
                f"the number of threads is {threads}",
                expected="1 or more",
                mend="leave the option out to use every core",
            )
        self._greatest_area = memory.greatest_area(memory_budget)
        self.model, self.card, self._session = _first_that_runs(models, threads)
        self._grid: tiles.TileGrid | None = None
        self._restored: list[Frame] = []

    def open(self, height: int, width: int) -> None:
        """Make ready for frames of this size, and run once so that the first frame finds the
        memory allocated.

        Raises:
            BackendError: the model cannot run here at this size.
            OptionError: the memory budget is too small for any tile of the frame.
        """
        multiple = self.card.multiple
        padded = padding.padded_size(height, width, multiple)
        self._check_size(padded)
        self._grid = tiles.plan(*padded, self._greatest_area, multiple)
        self._restored.clear()
        self._infer(np.zeros((self._grid.tile_height, self._grid.tile_width, 3), np.uint8))

    def submit(self, frame: Frame) -> None:
        """Restore a frame of the opened size."""
        if self._grid is None:
            raise InternalError("a frame was submitted to a restorer that is not open")
        frame.clock.begin("restore")
        height, width = frame.size
        padded = padding.pad_to_multiple(frame.pixels, self.card.multiple)
        restored = tiles.restore(padded, self._grid, self._infer)
        frame.pixels = np.ascontiguousarray(restored[:height, :width])
        frame.clock.end("restore")
        self._restored.append(frame)

    def restore_unrounded(self, pixels: Pixels) -> UnitImage:
        """Pixels of the opened size, restored: float32 (height, width, 3), clipped to [0, 1].

        Raises:
            InternalError: the restorer is not open, or its model is not of the form "float": the
                graph of a "camera" model rounds.
        """
        if self._grid is None or self.card.form != "float":
            raise InternalError(
                "unrounded pixels of a model that is not open, or not of form float"
            )
        height, width = pixels.shape[:2]
        padded = padding.pad_to_multiple(pixels, self.card.multiple)
        restored = tiles.restore(padded, self._grid, lambda tile: clipped(self._run(tile)))
        return np.ascontiguousarray(restored[:height, :width])

    def alone(self, pixels: Pixels) -> Callable[[], object]:
        """What runs the network once on pixels of the opened size, converted beforehand.

        For measuring the network itself; frames that are larger than a tile cannot be.
        """
        if self._grid is None:
            raise InternalError("the network of a restorer that is not open")
        padded = padding.pad_to_multiple(pixels, self.card.multiple)
        tile = np.ascontiguousarray(padded[: self._grid.tile_height, : self._grid.tile_width])
        image = tile[None] if self.card.form == "camera" else to_unit_range(tile)
        names = [self.card.output.name]
        return lambda: self._session.run(names, {self.card.input.name: image})

    def collect(self) -> Frame | None:
        """The frame last submitted, or None when it was collected."""
        return self._restored.pop(0) if self._restored else None

    def flush(self) -> list[Frame]:
        """The frame that was not collected, if there is one."""
        frames = list(self._restored)
        self._restored.clear()
        return frames

    def close(self) -> None:
        """Forget the frames. The model stays loaded: the restorer can be opened again."""
        self._restored.clear()
        self._grid = None

    def _check_size(self, padded: tuple[int, int]) -> None:
        port = self.card.input
        first = port.layout.index("H")
        fixed = port.shape[first : first + 2]
        if any(side not in (None, given) for side, given in zip(fixed, padded, strict=True)):
            raise BackendError(
                f"'{self.model}' takes {fixed[1]}x{fixed[0]} only; the frames, padded, are "
                f"{padded[1]}x{padded[0]}",
                expected="frames of the model's size",
                mend="export the model with dynamic height and width",
            )

    def _infer(self, pixels: Pixels) -> Pixels:
        """Run the network on uint8 (height, width, 3) of the padded size."""
        restored = self._run(pixels)
        if self.card.form == "camera":
            return restored[0]  # type: ignore[no-any-return]
        return from_unit_range(restored)

    def _run(self, pixels: Pixels) -> np.ndarray[Any, Any]:
        """The graph's own output for uint8 (height, width, 3) of the padded size."""
        camera = self.card.form == "camera"
        image = pixels[None] if camera else to_unit_range(pixels)
        try:
            (restored,) = self._session.run([self.card.output.name], {self.card.input.name: image})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            height, width = pixels.shape[:2]
            raise BackendError(
                f"'{self.model}' cannot run at {width}x{height}: {_first_line(error)}",
                expected="a model for this size, and memory for it",
                mend="give a smaller memory budget, so that the frame is restored in tiles",
            ) from error
        return restored  # type: ignore[no-any-return]


def to_unit_range(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    """uint8 (height, width, 3) -> float32 (1, 3, height, width) in [0, 1]."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    scaled: np.ndarray[Any, np.dtype[np.float32]]
    scaled = np.multiply(planes, np.float32(1 / 255), dtype=np.float32)
    return scaled


def from_unit_range(image: np.ndarray[Any, np.dtype[np.float32]]) -> Pixels:
    """float32 (1, 3, height, width), clipped to [0, 1] -> uint8 (height, width, 3), rounded."""
    levels = np.rint(np.clip(image[0], 0, 1) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def clipped(image: np.ndarray[Any, np.dtype[np.float32]]) -> UnitImage:
    """float32 (1, 3, height, width) -> float32 (height, width, 3), clipped to [0, 1]."""
    return np.ascontiguousarray(np.clip(image[0], 0, 1).transpose(1, 2, 0))


def description() -> str:
    """ONNX Runtime's version and execution providers; DependencyError when it is missing."""
    ort = _import()
    return f"ONNX Runtime {ort.__version__}, {', '.join(ort.get_available_providers())}"


def _import() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DependencyError(
            "onnxruntime", needed_for="the onnxruntime backend", extra=""
        ) from error


def _first_that_runs(models: Sequence[Path], threads: int | None) -> tuple[Path, ModelCard, Any]:
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
    for model in models:
        card = _card(model)
        try:
            session = ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        except no_operator as error:
            lacking.append(f"{model.name}: {_first_line(error)}")
            continue
        except Exception as error:  # see OnnxRuntimeRestorer._infer
            raise ModelError(
                f"ONNX Runtime cannot load '{model}': {_first_line(error)}",
                expected="an ONNX file that `python -m export` wrote",
                mend="export the model again, or upgrade onnxruntime",
            ) from error
        _check_port(model, card.input, session.get_inputs())
        _check_port(model, card.output, session.get_outputs())
        return model, card, session
    raise BackendError(
        f"ONNX Runtime {ort.__version__} can run none of the models:\n    "
        + "\n    ".join(lacking),
        expected="an ONNX Runtime with their operators",
        mend="pip install --upgrade onnxruntime",
    )


def _card(model: Path) -> ModelCard:
    """The model's card, after the model was compared with it."""
    if not model.is_file():
        raise ModelError(
            f"there is no model file '{model}'",
            expected="an ONNX file with its card beside it",
            mend="check the spelling; `edge-restore models` lists the models that come along",
        )
    path = card_path(model)
    if not path.is_file():
        raise ModelError(
            f"'{model}' is not one of our models: it has no card '{path.name}' beside it",
            expected="an ONNX file that `python -m export` wrote, with its card",
            mend="copy the card along with the model, or export the network with this project",
        )
    card = verify(path)
    if not isinstance(card, ModelCard) or card.onnx.file != model.name:
        raise ModelError(
            f"'{path}' is the card of another file, not of '{model.name}'",
            expected="the model's own card",
            mend="copy the model and its card together, under their own names",
        )
    return card


def _check_port(model: Path, port: TensorPort, found: Sequence[Any]) -> None:
    """Make sure that the graph has the one input or output that the card describes."""
    expected = (port.name, _TENSOR_TYPES[port.dtype], len(port.shape))
    graph = [(tensor.name, tensor.type, len(tensor.shape)) for tensor in found]
    if graph != [expected]:
        described = ", ".join(f"'{n}' {t} of {rank} dimensions" for n, t, rank in graph)
        raise ModelError(
            f"'{model}' has {described}",
            expected="only '{}' {} of {} dimensions, as its card says".format(*expected),
            mend="export the model again, so that card and graph agree",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
