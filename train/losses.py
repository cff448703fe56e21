"""Pixel losses. Restored and sharp are (N, 3, H, W) in [0, 1]; the result is a scalar."""

from __future__ import annotations

from torch import Tensor

from train.recipe import LossRecipe


def l2(restored: Tensor, sharp: Tensor) -> Tensor:
    """Half the mean squared error (SVDN, Eq. 8)."""
    return 0.5 * (restored - sharp).square().mean()


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean squared error (LMFN, Eq. 4, there summed over the colours)."""
    return (restored - sharp).square().mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute error."""
    return (restored - sharp).abs().mean()


def charbonnier(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) (Charbonnier et al., ICIP 1994): L1, smooth at zero."""
    return ((restored - sharp).square() + epsilon**2).sqrt().mean()


def log_mse(restored: Tensor, sharp: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over the batch of 10 log10(MSE + floor): minus the PSNR (HINet, Chen et al., 2021).

    Lightly and heavily blurred patches weigh the same, where `l2` is ruled by the heaviest;
    `floor` keeps patches that are as good as perfect (40 dB) from ruling in turn.
    """
    return 10 * ((restored - sharp).square().mean(dim=(1, 2, 3)) + floor).log10().mean()


def pixel_loss(restored: Tensor, sharp: Tensor, recipe: LossRecipe) -> Tensor:
    """The loss that the recipe names."""
    if recipe.kind == "charbonnier":
        return charbonnier(restored, sharp, recipe.epsilon)
    return {"l1": l1, "l2": l2, "mse": mse, "log_mse": log_mse}[recipe.kind](restored, sharp)
