"""Motion guidance: while training, the blur feature must tell how each place moved.

Deblurring alone teaches a network where and how things moved only through the sharpness of its
output, which takes long. The simulator knows the motion; a 1x1 convolution, thrown away after
training, reads it from SVDN's blur feature, and its error is added to the loss. Once it reads well,
the same convolution can lay the first sampling points along the motion. This is ours, not the
paper's: its position loss (Eq. 10) supervises the sampling points themselves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_restore.errors import RecipeError

_SCALE = 0.1
"""Pixels to units of about one."""


def motion_target(flows: Tensor, factor: int) -> Tensor:
    """Length and direction of the motion, at 1/factor of the resolution.

    Blur does not tell forth from back. Three of the channels therefore double the angle a:
    (l cos 2a, l sin 2a, l), where l is the distance from the first place to the last in pixels.
    The other four are the vector (dy, dx) itself, which sampling points need: turned so that
    dx >= 0, and turned so that dy >= 0. Each jumps somewhere, never at the same angle.

    Args:
        flows: (B, 2, 2, H, W), as in `train.blur.Exposure`; H and W multiples of `factor`.
        factor: averaged over squares of this side.

    Returns:
        (B, 7, H/factor, W/factor), in tens of pixels.
    """
    dy, dx = (flows[:, 1] - flows[:, 0]).unbind(1)
    length = (dy.square() + dx.square() + 1e-12).sqrt()
    rightward, downward = (torch.where(d < 0, -1.0, 1.0) for d in (dx, dy))
    target = torch.stack(
        (
            (dx.square() - dy.square()) / length, 2 * dx * dy / length, length,
            dy * rightward, dx * rightward, dy * downward, dx * downward,
        ), 1,
    )  # fmt: skip
    return F.avg_pool2d(target * _SCALE, factor)


class MotionGuide(nn.Module):
    """Reads the motion from what goes into a network's neck.

    Args:
        network: has `features`, which gives the blur feature of `blur_channels` channels first,
            and a `neck` that takes it first.

    Raises:
        RecipeError: it has none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        neck, channels = getattr(network, "neck", None), getattr(network, "blur_channels", None)
        if not isinstance(neck, nn.Module) or not isinstance(channels, int):
            raise RecipeError(
                f"{type(network).__name__} has no blur feature to guide",
                expected="loss.motion = 0 for this network",
                hint="remove 'motion' from the recipe's [loss]",
            )
        self.head = nn.Conv2d(channels, 7, 1)
        # At zero it learns to read what is there before it asks for changes.
        nn.init.zeros_(self.head.weight)
        self._blur: Tensor | None = None
        neck.register_forward_pre_hook(self._keep)

    def _keep(self, _neck: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._blur = inputs[0]

    def look(self, network: nn.Module, image: Tensor) -> None:
        """Run the network as far as its blur feature, in place of a whole forward pass."""
        self._blur = network.features(image)[0]  # type: ignore[operator]

    def loss(self, flows: Tensor) -> Tensor:
        """Mean squared error of the motion read from the network's last pass."""
        assert self._blur is not None
        read = self.head(self._blur.float())
        self._blur = None
        return F.mse_loss(read, motion_target(flows, flows.shape[-1] // read.shape[-1]))

    def lay_points(self, network: nn.Module) -> None:
        """Lay the network's first sampling points along the motion that the guide reads.

        A network whose neck has no sampling points is left alone.
        """
        lay = getattr(network.neck, "lay_points", None)
        if lay is not None:
            assert self.head.bias is not None
            lay(self.head.weight[3:5, :, 0, 0] / _SCALE, self.head.bias[3:5] / _SCALE)
