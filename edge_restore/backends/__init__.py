"""Backends: what runs a network on this machine. All of them speak `restorer.Restorer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_restore.backends.restorer import Restorer
from edge_restore.errors import BackendError, DependencyError

__all__ = ["NAMES", "BackendStatus", "available", "create"]

NAMES = ("auto", "onnxruntime")
"""What `create` understands; "auto" takes the fastest one that can run here."""


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can run on this machine, and with what, or why not."""

    name: str
    available: bool
    detail: str


def create(
    backend: str,
    models: Sequence[Path],
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
) -> Restorer:
    """Make a restorer.

    Args:
        backend: one of `NAMES`.
        models: ONNX files with a card beside each, in the order of preference: the first that the
            backend can run is taken.
        threads: how many the network may use; None lets the backend choose.
        memory_budget: bytes for the network's activations; larger frames are restored in tiles.
            None takes half of the memory that is free.

    Raises:
        BackendError: `backend` is unknown, or can run none of the models.
        ModelError: a model is not ours.
        CardError: a model's card is malformed or does not match it.
        OptionError: `threads` or `memory_budget` makes no sense.
        DependencyError: the backend's package is not installed.
    """
    if backend not in NAMES:
        raise BackendError(
            f"there is no backend '{backend}'",
            expected=f"one of {', '.join(NAMES)}",
            mend="leave the option out to let the fastest be chosen",
        )
    from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer

    return OnnxRuntimeRestorer(models, threads=threads, memory_budget=memory_budget)


def available() -> list[BackendStatus]:
    """The state of every backend on this machine."""
    from edge_restore.backends.onnxruntime import description

    try:
        return [BackendStatus("onnxruntime", True, description())]
    except DependencyError as error:
        return [BackendStatus("onnxruntime", False, str(error.mend))]
