"""TensorBoard: the curves and a few pictures of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_restore.machine import optional


class Board:
    """Writes event files that `tensorboard --logdir FOLDER` shows.

    Args:
        folder: made when missing; an earlier run's events there are kept up to `step`.
        step: that the training starts from.

    Raises:
        DependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        optional.require("tensorboard", needed_for="--tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Points of curves, by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, rows: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Blurred, restored and sharp (3, H, W) in [0, 1], side by side, one row each."""
        sheet = torch.cat([torch.cat([p.cpu().clamp(0, 1) for p in row], 2) for row in rows], 1)
        self._writer.add_image("blurred, restored, sharp", sheet, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
