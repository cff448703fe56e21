"""Contrastive regularisation: near the sharp picture, far from pictures that are not it.

Distances are taken between VGG features, so that they weigh structure. DRCNet (Li et al., ECCV
2022) makes its negatives from the picture itself (Intra-CR); the older way takes other pictures
(Extra-CR; Wu et al., "Contrastive Learning for Compact Single Image Dehazing", CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LAMBDAS = (0.90, 0.95, 1.00)
"""DRCNet's mixtures (section 4.2), which are also the number of its negatives."""

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""For the first layer of each block (`train.vgg.first_of_blocks`). DRCNet does not name its layers
and weights; these are those of Wu et al., whom it follows."""

_EPSILON = 1e-7
"""Against 0/0 where restored, sharp and blurred are all the same."""


def mixture(blurred: Tensor, sharp: Tensor, weight: float) -> Tensor:
    """J* = lambda J + (1 - lambda) I: a negative of Intra-CR (DRCNet, Eq. 11).

    Args:
        blurred: I, (N, 3, H, W).
        sharp: J, the same shape.
        weight: lambda, one of `LAMBDAS`.
    """
    return torch.lerp(blurred, sharp, weight)


def others_of_batch(features: dict[int, Tensor]) -> list[dict[int, Tensor]]:
    """The negatives of Extra-CR: for each picture, others of its batch.

    Args:
        features: of the blurred pictures, (N, C, h, w) by layer, N at least 2.

    Returns:
        As many negatives as Intra-CR has, or all others of a batch too small for that.

    Raises:
        ValueError: there are no others.
    """
    count = len(next(iter(features.values())))
    if count < 2:  # train/recipe.py refuses such a recipe
        raise ValueError("Extra-CR takes its negatives from the batch, which is one picture")
    turns = range(1, min(len(LAMBDAS), count - 1) + 1)
    return [{layer: f.roll(turn, 0) for layer, f in features.items()} for turn in turns]


def contrast(restored: Tensor, sharp: Tensor, negatives: Sequence[Tensor]) -> Tensor:
    """l1(G(X), G(J)) over the mean of l1(G(X), G(J*)): the second term of DRCNet's Eq. 13.

    The paper has three negatives but does not say how their distances meet. With lambda = 1 the
    negative is J itself, and a ratio of its own would be the constant 1, without a gradient. So the
    mean distance is below the line; that lambda then keeps the ratio below three.

    Args:
        restored: G(X), a feature map of the restored pictures.
        sharp: G(J), the same shape.
        negatives: G(J*) of each negative, the same shape.

    Returns:
        A scalar; distances are means over the batch and all elements.
    """
    away = torch.stack([(restored - negative).abs().mean() for negative in negatives]).mean()
    return (restored - sharp).abs().mean() / (away + _EPSILON)
