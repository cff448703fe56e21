"""Checkpoint: the whole state of a training in one file, from which the same run goes on."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from edge_restore.errors import DataError, UserError, shown
from edge_restore.storage.files import atomic_path
from edge_restore.storage.plain_file import Kind, open_plain
from train.pack import Pack
from train.recipe import Recipe, parse

NAME = "checkpoint.pt"

_KIND = Kind(
    "a checkpoint",
    "the checkpoint that the run in this folder wrote",
    "remove it to train anew, or give another --out folder",
)


class _Stream:
    """A file for `torch.save`, which makes errors of its own of those of the system."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as failure:
            self.failure = failure
            raise

    def flush(self) -> None:
        self._file.flush()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; SinkError when there is no space for it."""
    with atomic_path(path, durable=True) as temporary, open(temporary, "wb", 0) as file:
        stream = _Stream(file)
        try:
            torch.save(state, stream)  # type: ignore[arg-type]
        except RuntimeError:
            if stream.failure is None:
                raise
            raise stream.failure from None


def load(
    path: Path, recipe: Recipe, pack: Pack, device: torch.device, workers: int
) -> dict[str, Any] | None:
    """The state in a checkpoint; None when there is none.

    Raises:
        DataError: it is none, is damaged, or is of another recipe, pack or number of processes.
    """
    if not path.exists():
        return None
    with open_plain(path, _KIND) as (file, _):
        content = file.read()
    _check_archive(path, content)
    with fitting(path):
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location=device, weights_only=True
        )
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
        known = [
            # Parsed, so that a key that came after the checkpoint has its default in both.
            ("recipe", parse(state["recipe"], f"the recipe in {path}"), recipe),
            ("training pack", state["pack"], pack.sha256),
            ("number of processes", len(state["sources"]), workers),
        ]
    for what, theirs, ours in known:
        if theirs != ours:
            raise DataError(
                f"{path} belongs to another {what}",
                expected="the recipe, pack and number of processes that made the checkpoint",
                hint="give another --out folder, or --init with the weights to start from them",
            )
    with fitting(path):
        _check_finite(state, "it")
    return state


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is because the checkpoint is not one of this training."""
    try:
        yield
    except (UserError, torch.cuda.OutOfMemoryError):  # no fault of the file
        raise
    except Exception as error:  # torch raises many kinds
        problem = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
        raise _KIND.unusable(path, shown(problem)) from error


def _check_finite(value: Any, name: str) -> None:
    """ValueError where a number anywhere in the state is not finite."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_finite(each, str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            _check_finite(each, name)
    elif isinstance(value, Tensor):
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"'{name}' holds numbers that are not finite")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{name}' is {value}")


def check_moments(of: torch.optim.Optimizer) -> None:
    """ValueError where an optimizer's tensors are not of their parameter's shape; torch takes them.

    A count of steps is one number.
    """
    for parameter, moments in of.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape not in (parameter.shape, ()):
                shape = tuple(parameter.shape)
                raise ValueError(f"'{name}' is {tuple(value.shape)} for a parameter of {shape}")


def place(
    state: dict[str, Any], network: nn.Module, steps: int
) -> tuple[int, float, dict[str, Any] | None]:
    """How far the run has come: steps, minutes and the best so far; ValueError for other types."""
    step, minutes, best = state["step"], state["minutes"], state["best"]
    if type(step) is not int or not 0 <= step <= steps:
        raise ValueError(f"'step' is {step}, not a whole number from 0 to {steps}")
    if not isinstance(minutes, int | float) or minutes < 0:
        raise ValueError(f"'minutes' is {minutes}, not a number from 0 on")
    if best is not None:
        numbers = [best["step"], *best["score"].values()]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("'best' has a score that is not a number")
        ours = {key: value.shape for key, value in network.state_dict().items()}
        if ours != {key: value.shape for key, value in best["weights"].items()}:
            raise ValueError("'best' does not hold weights of this network")
    return step, minutes, best


def _check_archive(path: Path, content: bytes) -> None:
    """Compare the checksums in the zip file that a checkpoint is; torch does not."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            wrong = archive.testzip()
    except Exception as error:  # BadZipFile, and what damage makes of its own arithmetic
        raise _KIND.unusable(path, str(error)) from error
    if wrong is not None:
        raise _KIND.unusable(path, f"the checksum of its member '{wrong}' is wrong")
