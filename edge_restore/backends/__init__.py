"""Backends: what runs a network on this machine. All of them speak `restorer.Restorer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.backends.restorer import Restorer
from edge_restore.errors import BackendError, DependencyError, UserError

if TYPE_CHECKING:
    from edge_restore.backends.cpu import CpuRestorer

__all__ = ["NAMES", "BackendStatus", "available", "create"]

NAMES = ("auto", "onnxruntime", "openvino", "openvino-bf16", "tensorrt", "tensorrt-rtx")
"""What `create` understands; "auto" takes the fastest one that can run here."""

CPU_NAMES = ("onnxruntime", "openvino", "openvino-bf16")

_GPU_NAMES = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can run on this machine, and with what, or why not.

    Attributes:
        name: one of `NAMES`.
        available: whether it can run.
        detail: with what, or what is missing.
        hint: what to do about it; empty when there is nothing to do.
    """

    name: str
    available: bool
    detail: str
    hint: str = ""


def create(
    backend: str,
    models: Sequence[Path],
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
) -> Restorer:
    """Make a restorer.

    Args:
        backend: one of `NAMES`. "auto" takes a GPU's where it can run a model, and otherwise
            the fastest of the CPU's that is exact enough, see `choice.fastest`.
        models: ONNX files with a card beside each, in the order of preference: the first that the
            backend can run is taken.
        threads: how many the network may use; None lets the backend choose. A GPU's do not care.
        memory_budget: bytes for the network's activations; larger frames are restored in tiles.
            None takes half of the memory that is free. On a GPU frames are restored whole.

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
            hint="leave the option out to let the fastest be chosen",
        )
    if backend in _GPU_NAMES:
        from edge_restore.backends.tensorrt import TensorRTRestorer

        return TensorRTRestorer(models, backend)
    if backend == "auto" and (restorer := _on_a_gpu(models)) is not None:
        return restorer
    if backend == "auto":
        from edge_restore.backends import autoselect as choice

        backend = choice.fastest(models, threads=threads)
    return on_the_cpu(backend, models, threads=threads, memory_budget=memory_budget)


def first(models: Sequence[Path]) -> Restorer:
    """A restorer of a GPU's backend or else of the first that works on the CPU, unmeasured."""
    if (restorer := _on_a_gpu(models)) is not None:
        return restorer
    works = [name for name in CPU_NAMES if status(name).available]
    return on_the_cpu(works[0] if works else CPU_NAMES[0], models)


def on_the_cpu(
    backend: str,
    models: Sequence[Path],
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
) -> CpuRestorer:
    """A restorer of one of the CPU's backends, as `create`."""
    if backend == "onnxruntime":
        from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer

        return OnnxRuntimeRestorer(models, threads=threads, memory_budget=memory_budget)
    from edge_restore.backends.openvino import OpenVinoRestorer

    precision = "bf16" if backend == "openvino-bf16" else "fp32"
    return OpenVinoRestorer(
        models, precision=precision, threads=threads, memory_budget=memory_budget
    )


def available() -> list[BackendStatus]:
    """The state of every backend on this machine."""
    return [status(name) for name in CPU_NAMES] + [_gpu_status(n) for n in _GPU_NAMES]


def status(name: str) -> BackendStatus:
    """The state of one of the CPU's backends."""
    from edge_restore.backends import onnxruntime, openvino

    try:
        if name == "onnxruntime":
            return BackendStatus(name, True, onnxruntime.description())
        if name == "openvino-bf16" and not openvino.has_bfloat16():
            return BackendStatus(name, False, "this processor does not multiply bfloat16")
        return BackendStatus(name, True, openvino.description())
    except DependencyError as error:
        return BackendStatus(name, False, error.found, error.hint)


def _on_a_gpu(models: Sequence[Path]) -> Restorer | None:
    """The first GPU backend that can run one of the models; None without a GPU or its packages.

    A model that is not ours is not passed over here: the CPU's backend will say what is wrong.
    """
    from edge_restore.engine.gpu import this_gpu

    if this_gpu() is None:
        return None
    from edge_restore.backends.tensorrt import TensorRTRestorer

    for name in _GPU_NAMES:
        try:
            return TensorRTRestorer(models, name)
        except UserError:
            continue
    return None


def _gpu_status(name: str) -> BackendStatus:
    from edge_restore.backends.tensorrt import description as describe

    try:
        return BackendStatus(name, True, describe(name))
    except UserError as error:
        return BackendStatus(name, False, error.found, error.hint)
