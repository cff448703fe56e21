"""The protocol that every backend speaks, and all that the pipeline knows of one."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from edge_restore.errors import InternalError
from edge_restore.frames import Frame, Pixels
from edge_restore.models.cards import ModelCard


class Restorer(Protocol):
    """Takes frames and gives them back restored, in order.

    Life: `open` once, then any number of `submit` and `collect`, then `flush`, then `close`.
    A backend knows nothing of sources, sinks or queues. It stamps the stage "restore" on each
    frame's clock: begin when the frame is submitted, end when its restored pixels are on the host.
    """

    name: str
    """What reports call it, e.g. "onnxruntime-cpu"."""

    @property
    def precision(self) -> str:
        """What it computes in: "fp32", "bf16", "fp16" or "int8"."""

    card: ModelCard
    """The model that it runs, of those it was given."""

    in_flight: int
    """How many frames may be submitted before one must be collected: 1 on a CPU."""

    def open(self, height: int, width: int) -> None:
        """Make ready for frames of this size: allocate, warm up.

        Raises:
            BackendError: the model cannot run here at this size.
        """

    def submit(self, frame: Frame) -> None:
        """Begin restoring a frame of the opened size."""

    def collect(self) -> Frame | None:
        """The oldest submitted frame, restored (same frame, new pixels), or None when
        fewer than `in_flight` are under way and none is ready."""

    def flush(self) -> list[Frame]:
        """Every frame still under way, restored, in order."""

    def close(self) -> None:
        """Give everything back. Safe to call twice."""


def restore_one(restorer: Restorer, pixels: Pixels) -> Pixels:
    """A picture of the opened size, restored and waited for; no frame may be under way.

    Raises:
        InternalError: the restorer gave no frame, or several.
    """
    restorer.submit(Frame(pixels, index=0, pts=0, time_base=Fraction(1)))
    frame = restorer.collect()
    frames = [frame] if frame is not None else restorer.flush()
    if len(frames) != 1:
        raise InternalError(f"{restorer.name} gave {len(frames)} frames for one")
    return frames[0].pixels
