"""Where SVDN's deformable layers look: sampling points, their masks, and their spread."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.networks.padding import pad_to_multiple
from train.networks.svdn import SVDN, TAPS, FeatureDeconvolution


class Sampling(NamedTuple):
    """Both layers' sampling points for one image; all on the features' grid of half the size.

    Attributes:
        places1, places2: (TAPS, 2, H, W), where each point lies relative to its own pixel, (dy, dx)
            in pixels of the features: the regular tap plus the learned offset.
        masks1, masks2: (TAPS, H, W) in [0, 1].
    """

    places1: Tensor
    masks1: Tensor
    places2: Tensor
    masks2: Tensor


class Points(NamedTuple):
    """Sampling points of one place, N of them.

    Attributes:
        places: (N, 2), (y, x) in pixels of the image.
        masks: (N,), each point's weight before the kernel's own.
    """

    places: Tensor
    masks: Tensor


@torch.no_grad()
def sample(network: SVDN, image: Tensor) -> Sampling:
    """What the neck predicts for an image.

    Args:
        network: with the deformable neck.
        image: RGB in [0, 1], (1, 3, H, W).
    """
    neck = network.neck
    assert isinstance(neck, FeatureDeconvolution)
    blur, _ = network.features(pad_to_multiple(image, network.multiple))
    results: list[Tensor] = []
    taps = torch.arange(TAPS, device=image.device)
    regular = torch.stack((taps // 5 - 2, taps % 5 - 2), dim=1).float()
    for ow in neck.offsets_and_masks(blur):
        offsets = ow[0, : 2 * TAPS].view(TAPS, 2, *ow.shape[2:])
        results += [offsets + regular[..., None, None], torch.sigmoid(ow[0, 2 * TAPS :])]
    return Sampling(*results)


def first_layer(sampling: Sampling, row: int, column: int) -> Points:
    """The first layer's 25 points at a pixel of the features: what the paper's Figure 6 shows.

    Feature (i, j) stands for the 2x2 pixels of the image whose middle is (2i + 0.5, 2j + 0.5).
    """
    places = sampling.places1[:, :, row, column]
    return Points(_in_image(places, row, column), sampling.masks1[:, row, column])


def composed(sampling: Sampling, row: int, column: int) -> Points:
    """Where the two layers together look from a pixel of the features: 25 x 25 points.

    The second layer reads the first one's output at its own 25 points; the first layer, seen from
    there, reads the features at its 25 points of that place. A point's place is the sum of both
    steps, its mask the product of both masks. Between pixels the first layer's places and masks
    are interpolated bilinearly, as its output is; beyond the border, where the second layer reads
    zero, the mask is 0.
    """
    size = sampling.masks1.shape[1:]
    steps = sampling.places2[:, :, row, column]
    at = steps + torch.tensor((row, column), device=steps.device)
    # align_corners=False maps pixel i to (2i + 1)/size - 1.
    grid = torch.stack(
        ((2 * at[:, 1] + 1) / size[1] - 1, (2 * at[:, 0] + 1) / size[0] - 1), dim=1
    ).view(1, 1, TAPS, 2)
    places = F.grid_sample(
        sampling.places1.reshape(1, 2 * TAPS, *size), grid, padding_mode="border",
        align_corners=False,
    ).view(TAPS, 2, TAPS)  # fmt: skip
    masks = F.grid_sample(
        sampling.masks1[None], grid, padding_mode="zeros", align_corners=False
    ).view(TAPS, TAPS)
    both = places.permute(2, 0, 1) + steps[:, None]
    products = sampling.masks2[:, row, column][:, None] * masks.T
    return Points(_in_image(both.reshape(-1, 2), row, column), products.flatten())


def spread(sampling: Sampling) -> Tensor:
    """How far the first layer's points are scattered: the blur map, (H, W) in pixels of the image.

    The paper's section 4.5 remarks that the larger the variation of the points, the blurrier the
    place, and gives no formula. Here: the points' standard deviation around their mean, weighted by
    the masks, sqrt(sum m |p - mean|^2 / sum m). A regular 5x5 kernel has sqrt(4) features, which
    are 4 pixels of the image.
    """
    weights = sampling.masks1 / sampling.masks1.sum(dim=0).clamp(min=1e-6)
    mean = (weights[:, None] * sampling.places1).sum(dim=0)
    variance = (weights * (sampling.places1 - mean).square().sum(dim=1)).sum(dim=0)
    return 2 * variance.sqrt()


def _in_image(places: Tensor, row: int, column: int) -> Tensor:
    centre = torch.tensor((row, column), device=places.device, dtype=places.dtype)
    return 2 * (places + centre) + 0.5
