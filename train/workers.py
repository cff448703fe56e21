"""Data-parallel training: several processes of one `torchrun`, each with its own patches.

The gradients are averaged in one message after the backward pass. The networks here are small (3 to
80 MB of gradients), and a step may touch only part of a network (train/guidance.py), which
torch's DistributedDataParallel would have to be told about.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from edge_restore.errors import OptionError


class Workers:
    """The processes of one training; a single one without torchrun.

    Attributes:
        rank: of this process, from 0. The first one validates, prints and saves.
        count: of processes.
        local: place of this process on its machine, which is its GPU's number.
    """

    def __init__(self, device: str) -> None:
        """Join the group that torchrun's environment names, by NCCL on GPUs, else by gloo.

        Raises:
            OptionError: the environment is half there.
        """
        self.rank, self.count, self.local = 0, 1, 0
        if "WORLD_SIZE" not in os.environ:
            return
        try:
            self.rank, self.count, self.local = (
                int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            )
        except (KeyError, ValueError) as error:
            raise OptionError(
                f"WORLD_SIZE is set, but the rest of torchrun's environment is not ({error})",
                expected="RANK, WORLD_SIZE and LOCAL_RANK as whole numbers",
                hint="start with torchrun, or unset WORLD_SIZE",
            ) from error
        if self.count > 1:
            # Its functions take the group of the moment of their import for a default. Torch
            # imports it sooner or later; after this line it would keep the group, and gloo's
            # threads, beyond `close`: now and then the interpreter aborted at its end.
            importlib.import_module("torch.distributed.nn.functional")
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over the processes.

        Those without a gradient must be the same in every process.
        """
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def mean(self, values: list[float], device: torch.device) -> list[float]:
        """The mean of each value over the processes: the same numbers in all of them."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        averages: list[float] = (tensor / self.count).tolist()
        return averages

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1:
            dist.destroy_process_group()
