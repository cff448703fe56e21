"""Optimisers: Adam, and Muon for the convolutions in between."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from train.precision import multiplies_in_bfloat16
from train.recipe import OptimiserRecipe

OFFSETS = "offsets"
"""The role of the parameter group that predicts deformable offsets and masks."""


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is orthogonalised (Jordan et al., "Muon", 2024).

    Each kernel (Cout, ...) is seen as a matrix of Cout rows. All singular values of its update are
    brought to about one, so that directions with small gradients are learned as fast as the large
    ones: which way a thing moved is such a small signal. The update is scaled by
    0.2 sqrt(largest side) to have the size of Adam's (Liu et al., 2025, Eq. 4).

    Args:
        parameters: of two dimensions or more.
        lr: learning rate, as one would choose it for Adam.
        momentum: Nesterov's.
        weight_decay: each step takes lr * weight_decay of a weight away (Liu et al., 2025, Eq. 3).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient stay."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            gradients = [p.grad for p in moved]
            for p in moved:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in moved]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p, update in zip(moved, ahead, strict=True):
                alike[p.shape].append((p, update))
            for shape, pairs in alike.items():
                matrices = torch.stack([update.reshape(shape[0], -1) for _, update in pairs])
                size = 0.2 * math.sqrt(max(matrices.shape[1:]))
                kernels = [p for p, _ in pairs]
                updates = [update.reshape(shape) for update in _orthogonal(matrices)]
                if group["weight_decay"]:
                    torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(kernels, updates, alpha=-group["lr"] * size)


def _orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(B, rows, columns) with singular values of about one, by Newton-Schulz iterations."""
    x = matrices.bfloat16() if multiplies_in_bfloat16(matrices.device) else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(steps):
        # The quintic of the Muon report: steep at zero, and between 0.7 and 1.2 near one.
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    orthogonal: Tensor = (x.mT if tall else x).float()
    return orthogonal


def make(
    network: nn.Module, beside: nn.Module | None, recipe: OptimiserRecipe
) -> list[torch.optim.Optimizer]:
    """What the recipe trains the network with, and what learns `beside` it.

    Offsets and masks have a group of their own with the entry `role` = `OFFSETS`. With "muon", the
    kernels between features are Muon's; those at the image, offsets, masks, biases and slopes stay
    Adam's.
    """
    own: Callable[[], list[nn.Parameter]] | None = getattr(network, "offset_parameters", None)
    offsets = own() if own is not None else []
    chosen = {id(p) for p in offsets}
    others = [p for p in network.parameters() if id(p) not in chosen]
    inner = []
    if recipe.algorithm == "muon":
        inner = [p for p in others if p.ndim == 4 and min(p.shape[:2]) > 4]
        chosen = {id(p) for p in inner}
        others = [p for p in others if id(p) not in chosen]
    others += beside.parameters() if beside else []
    groups: list[dict[str, Any]] = [{"params": others}]
    if offsets:
        groups.append({"params": offsets, "role": OFFSETS})
    betas = (recipe.beta1, recipe.beta2)
    decay = recipe.weight_decay
    adam = torch.optim.Adam(groups, lr=recipe.rate, betas=betas, fused=True, weight_decay=decay)
    return [adam, Muon(inner, recipe.rate, weight_decay=decay)] if inner else [adam]
