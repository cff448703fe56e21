"""What the CPU's backends have in common: sizes, tiles, conversions, the order of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_restore.backends import finiteness, memory, tiles
from edge_restore.errors import BackendError, InternalError, ModelError, OptionError
from edge_restore.frames import Frame, Pixels
from edge_restore.machine import limits
from edge_restore.media import padding
from edge_restore.models.cards import ModelCard
from edge_restore.models.model import Model

UnitImage = np.ndarray[Any, np.dtype[np.float32]]
"""float32 (height, width, 3) in [0, 1]."""

Image = np.ndarray[Any, np.dtype[Any]]
"""A graph's input or output: uint8 (1, H, W, 3) or float32 (1, 3, H, W)."""


class CpuRestorer(ABC):
    """Restores one frame at a time on the CPU: `submit` does the work, `collect` hands it over.

    The pixels of a submitted frame are read, never written; a restored frame gets an array of its
    own, so nothing that was handed out is touched again.

    Args:
        threads: how many a frame may use; None lets the library choose, within the processors that
            this process may keep busy.
        memory_budget: bytes for the network's activations, see `memory.max_area`.

    Raises:
        OptionError: `threads` or `memory_budget` is less than 1.
    """

    name: str
    precision: str
    model: Path
    card: ModelCard
    _loaded: Model
    in_flight = 1

    def __init__(self, threads: int | None, memory_budget: int | None) -> None:
        if threads is not None and threads < 1:
            raise OptionError(
                f"the number of threads is {threads}",
                expected="1 or more",
                hint="leave the option out to use every core",
            )
        self._threads = limits.threads() if threads is None else threads
        self._max_area = memory.max_area(memory_budget)
        self._grid: tiles.TileGrid | None = None
        self._restored: list[Frame] = []
        self._doing = ""
        """What is being restored, for messages."""

    @abstractmethod
    def _prepare(self, height: int, width: int) -> None:
        """Make ready for images of this size; called by `open` with a tile's."""

    @abstractmethod
    def _graph(self, image: Image) -> tuple[Image, float]:
        """The graph's own output for an image of the prepared size, and `finiteness.SUM`."""

    def open(self, height: int, width: int) -> None:
        """Make ready for frames of this size, and run once so that the first frame finds the
        memory allocated.

        Raises:
            BackendError: the model cannot run here at this size, or gives what is not finite.
            ModelError: it gives frames of another size.
            OptionError: the memory budget is too small for any tile of the frame.
        """
        multiple = self.card.multiple
        padded = padding.padded_size(height, width, multiple)
        self._check_size(padded)
        self._grid = tiles.plan(*padded, self._max_area, multiple)
        self._restored.clear()
        self._prepare(self._grid.tile_height, self._grid.tile_width)
        self._doing = "a black frame"
        self._try(self._grid.tile_height, self._grid.tile_width)
        self._doing = "an image"

    def submit(self, frame: Frame) -> None:
        """Restore a frame of the opened size.

        Raises:
            BackendError: the network's output is not finite; names the frame and the layer.
        """
        if self._grid is None:
            raise InternalError("a frame was submitted to a restorer that is not open")
        frame.clock.begin("restore")
        self._doing = f"frame {frame.index}"
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

        For measuring the network itself; a frame that is restored in tiles takes all of them.
        """
        images = self._images(pixels)
        return lambda: [self._graph(image) for image in images]

    def _images(self, pixels: Pixels) -> list[Image]:
        """The network's inputs for pixels of the opened size, one for each tile."""
        if self._grid is None:
            raise InternalError("the network of a restorer that is not open")
        padded = padding.pad_to_multiple(pixels, self.card.multiple)
        parts = [np.ascontiguousarray(padded[cut]) for cut in self._grid.slices()]
        return [self._image(part) for part in parts]

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
                hint="export the model with dynamic height and width",
            )

    def _infer(self, pixels: Pixels) -> Pixels:
        """Run the network on uint8 (height, width, 3) of the padded size."""
        restored = self._run(pixels)
        if self.card.form == "camera":
            return restored[0]  # type: ignore[no-any-return]
        return from_unit_range(restored)

    def _image(self, pixels: Pixels) -> Image:
        """uint8 (height, width, 3) as the graph takes it."""
        return pixels[None] if self.card.form == "camera" else to_unit_range(pixels)

    def _try(self, height: int, width: int) -> None:
        """Run once on black, and make sure that the output has the input's size."""
        image = np.zeros((height, width, 3), np.uint8)
        given, taken = self._run(image).shape, self._image(image).shape
        if given != taken:
            raise ModelError(
                f"'{self.model}' gives {list(given)} for {list(taken)} ({self.card.input.layout})",
                expected="a frame of the same size and channels, restored",
                hint="use a model that restores; one that enlarges is not run here",
            )

    def _run(self, pixels: Pixels) -> Image:
        """The graph's own output for uint8 (height, width, 3) of the padded size."""
        image = self._image(pixels)
        try:
            restored, total = self._graph(image)
        except Exception as error:  # the libraries' exceptions have no common base of their own
            height, width = pixels.shape[:2]
            raise BackendError(
                f"'{self.model}' cannot run at {width}x{height}: {first_line(error)}",
                expected="a model for this size, and memory for it",
                hint="give a smaller memory budget, so that the frame is restored in tiles",
            ) from error
        if not np.isfinite(total):
            raise self._not_finite(image)
        return restored

    def _not_finite(self, image: Image) -> BackendError:
        """The error for an image whose restored one holds NaN or infinity."""
        layer = finiteness.first_layer(self._loaded, {self.card.input.name: image})
        where = (
            f"the first layer whose output is not is '{layer.name}' ({layer.operator})"
            if layer is not None
            else f"no layer's output is in ONNX Runtime, only in {self.name} ({self.precision})"
        )
        return BackendError(
            f"the output of '{self.model}' for {self._doing} is not finite: {where}",
            expected="finite numbers",
            hint="use another model or backend; after a training, an earlier checkpoint",
        )


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


def first_line(error: Exception) -> str:
    """What an exception says first, for a message of our own."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
