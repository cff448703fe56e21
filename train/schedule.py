"""Learning rates over the steps of a training."""

from __future__ import annotations

import math

from train.recipe import OptimiserRecipe


def rate(step: int, recipe: OptimiserRecipe, *, again: int = 0) -> float:
    """The learning rate of step `step`, counted from 0.

    Linear rise over `warmup` steps, then from `rate` to `last_rate`: a half cosine, the polynomial
    (1 - t)^power of SVDN, section 4.2, or the steps of LMFN, section 4.1. The rise is repeated from
    step `again` on.
    """
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    rise = min(1.0, (step - again + 1) / max(1, recipe.warmup)) if step >= again else 1.0
    if recipe.schedule == "step":
        return rise * max(
            recipe.last_rate, recipe.rate * recipe.drop ** (step // recipe.drop_every)
        )
    t = min(1.0, (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
    fall = (
        0.5 * (1 + math.cos(math.pi * t))
        if recipe.schedule == "cosine"
        else (1 - t) ** recipe.power
    )
    return rise * (recipe.last_rate + (recipe.rate - recipe.last_rate) * fall)


def offset_factor(step: int, recipe: OptimiserRecipe) -> float:
    """What `rate` is multiplied by for the layers that predict deformable offsets and masks."""
    if recipe.offset_start == 0:
        return recipe.offset_rate
    rise = (step - recipe.offset_start) / recipe.offset_start
    return recipe.offset_rate * min(1.0, max(0.0, rise))
