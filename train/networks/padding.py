"""Padding to a network's multiple and cropping back, for (N, C, H, W) tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad bottom and right by reflection until H and W are multiples of `multiple`.

    A side too short to reflect (shorter than the padding plus one) repeats its edge instead.
    """
    height, width = image.shape[-2:]
    for axis, short in ((0, -height % multiple), (1, -width % multiple)):
        if short:
            side = (height, width)[axis]
            amounts = (0, 0, 0, short) if axis == 0 else (0, short, 0, 0)
            image = F.pad(image, amounts, mode="reflect" if short < side else "replicate")
    return image


def crop(image: Tensor, like: Tensor) -> Tensor:
    """The top left part of `image` that has the height and width of `like`."""
    return image[..., : like.shape[-2], : like.shape[-1]]
