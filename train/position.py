"""SVDN's position loss: its sampling points shall lie near the optical flow (section 3.3).

All lengths here are in pixels of the layer that samples, which for SVDN are two of the image's.
Points and flows are (dy, dx).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_restore.errors import RecipeError

_TINY = 1e-12
"""Square of a flow, in pixels, below which it counts as none."""


def distance_to_flow(point: Tensor, flow: Tensor) -> Tensor:
    """Distance from a point to the line from (0, 0) to the end of a flow (Algorithm 1).

    The nearest place of the line is the foot of the perpendicular where that lies on it, else one
    of its ends. As printed, lines 1 and 3 of the algorithm have u and v exchanged, as against
    lines 2 and 6: a point in the middle of the flow would be far from it. And where u = 0, no
    abscissa (line 2) tells whether the foot lies on the line. So what the algorithm is said to give
    is computed in another way: the foot as a share of the flow, held between the ends. Without
    motion, u = v = 0, the paper's quotient is 0/0; the line is then the point (0, 0).

    Args:
        point: (..., 2, H, W).
        flow: the same, or broadcastable to it.

    Returns:
        (..., H, W).
    """
    square = flow.square().sum(dim=-3, keepdim=True).clamp(min=_TINY)
    share = ((point * flow).sum(dim=-3, keepdim=True) / square).clamp(0, 1)
    # Unlike a square root, this norm has a gradient of zero at zero.
    distance: Tensor = torch.linalg.vector_norm(point - share * flow, dim=-3)
    return distance


def sampling_points(offsets: Tensor) -> Tensor:
    """Where a deformable kernel samples, relative to its centre.

    Args:
        offsets: (N, 2 K, H, W) for a square kernel of K taps, (dy, dx) interleaved.

    Returns:
        (N, K, 2, H, W).
    """
    count, channels, height, width = offsets.shape
    side = math.isqrt(channels // 2)
    line = torch.arange(side, device=offsets.device, dtype=offsets.dtype) - (side - 1) / 2
    kernel = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2, 1, 1)
    return offsets.view(count, channels // 2, 2, height, width) + kernel


def position(offsets: Tensor, flows: Tensor, margin: float) -> Tensor:
    """Mean over all sampling points of max(min(d1, d2), M) (Eq. 10).

    A point nearer than the margin costs M whatever it does, so its gradient is zero.

    Args:
        offsets: of the first deformable layer, (N, 2 K, H, W).
        flows: (N, 2, 2, H, W), to where things were before and after, for each place of the layer.
        margin: M.
    """
    points = sampling_points(offsets)
    distances = distance_to_flow(points[:, None], flows[:, :, None])
    return distances.amin(dim=1).clamp(min=margin).mean()


def flows_of_layer(flows: Tensor, height: int, width: int) -> Tensor:
    """The image's flows, (N, 2, 2, H, W), averaged over a layer's places and in its pixels."""
    scale = flows.new_tensor((height / flows.shape[-2], width / flows.shape[-1]))
    small = F.adaptive_avg_pool2d(flows.flatten(1, 2), (height, width))
    return small.view(*flows.shape[:3], height, width) * scale.view(2, 1, 1)


class PositionLoss(nn.Module):
    """The position loss of a network's last pass, from the offsets that it predicted in it.

    Args:
        network: its `neck` has `ow1`, which predicts offsets and masks of the first deformable
            layer in three channels a tap, offsets first (`FeatureDeconvolution`).
        margin: M of Eq. 10.

    Raises:
        RecipeError: the network has no sampling points.
    """

    def __init__(self, network: nn.Module, margin: float) -> None:
        super().__init__()
        predicts = getattr(getattr(network, "neck", None), "ow1", None)
        if not isinstance(predicts, nn.Module):
            raise RecipeError(
                f"this {type(network).__name__} has no sampling points to lay along the motion",
                expected="loss.position = 0 for this network",
                hint="remove 'position' from the recipe's [loss]",
            )
        self.margin = margin
        self._offsets: Tensor | None = None
        predicts.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._offsets = output[:, : output.shape[1] // 3 * 2]

    def forward(self, flows: Tensor) -> Tensor:
        """Flows (N, 2, 2, H, W) in pixels of the image, as in `train.blur.Exposure` -> a scalar."""
        assert self._offsets is not None
        offsets, self._offsets = self._offsets.float(), None
        return position(offsets, flows_of_layer(flows, *offsets.shape[-2:]), self.margin)
