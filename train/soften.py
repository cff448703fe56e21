"""What makes edges of a sharp picture soft, though nothing moved: coarse colour, depth of field.

A network that has met only crisp truths takes every soft edge for a motion and sharpens it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.blur import softened
from train.pack import Picture

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), as JPEG has them."""


def _planes(picture: Picture) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 255]."""
    return torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)[None].float()


def _picture(planes: Tensor) -> Picture:
    rounded: Picture = planes[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return rounded


def subsampled(picture: Picture, random: np.random.Generator) -> Picture:
    """The picture (H, W, 3) RGB uint8 with colour of half the resolution, as JPEG and video have.

    4:2:2, 4:2:0, or a third of the resolution as in one enlarged after that; read back as libjpeg
    does, with a triangle. Luma stays, but where a saturated colour ends, what bleeds over leaves 0
    to 255 and is cut off, which softens luma, too.
    """
    cell = ((1, 2), (2, 2), (3, 3))[random.integers(3)]
    planes = _planes(picture)
    size = planes.shape[-2:]
    luma = (planes * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    coarse = F.avg_pool2d(planes - luma, cell, ceil_mode=True)
    whole = (coarse.shape[-2] * cell[0], coarse.shape[-1] * cell[1])
    colour = F.interpolate(coarse, whole, mode="bilinear", align_corners=False)
    return _picture(luma + colour[..., : size[0], : size[1]])


def defocused(picture: Picture, random: np.random.Generator) -> Picture:
    """The picture (H, W, 3) uint8, out of focus on one side of a line, all of it drawn at random.

    Gaussian, of 0.4 to 2 pixels; the change from the one side to the other takes 1 to 100 pixels.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn = random.uniform(0.0, 2 * np.pi)
    side = np.cos(turn) * (y - height / 2) + np.sin(turn) * (x - width / 2)
    place = np.quantile(side, random.uniform(0.1, 0.8))
    share = 1 / (1 + np.exp(-np.clip((side - place) / (0.25 * 100 ** random.random()), -30, 30)))
    planes = _planes(picture)
    deviation = torch.tensor([0.4 * 5.0 ** random.random()])
    soft = softened(planes, deviation, min(6, height - 1, width - 1))
    return _picture(torch.lerp(planes, soft, torch.from_numpy(share)[None, None].float()))
