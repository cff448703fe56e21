"""Rain: streaks of falling drops and the mist behind them, for training a derainer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_restore.errors import OptionError
from train.simulator.trajectories import uniform

SEVERITIES = {
    "light": (10.0, 14.0, 0.45, 0.0),
    "medium": (25.0, 22.0, 0.6, 0.1),
    "heavy": (50.0, 32.0, 0.75, 0.2),
}
"""Streaks per 100x100 pixels, their length in pixels, their opacity, and mist; each at most."""

_LAYERS = ((1.0, 1.0), (0.5, 0.7))
"""Near and distant rain: the factor on the streaks' length, and that on their opacity."""


@dataclass(frozen=True)
class RainModel:
    """Rain for `task = "derain"`. Each picture draws its own, from a third of these figures up.

    Attributes:
        streaks: per 100x100 pixels in each of the two layers, at most.
        longest: length of a streak in pixels, at most 64.
        opacity: share of a streak's pixel that shows the drop, not the scene, at most.
        mist: share of light from distant drops, evenly over the picture, at most.
        slant: angle of the rain from the vertical in degrees, either way, at most.
    """

    streaks: float = 50.0
    longest: float = 32.0
    opacity: float = 0.75
    mist: float = 0.2
    slant: float = 30.0

    def __post_init__(self) -> None:
        wrong = [name for name in ("opacity", "mist") if getattr(self, name) > 1]
        if wrong or not 1 <= self.longest <= 64:
            raise OptionError(
                f"rain with opacity {self.opacity}, mist {self.mist}, longest {self.longest}",
                expected="opacity and mist of 1 or less, longest from 1 to 64 pixels",
                hint="correct these keys",
            )

    @classmethod
    def of(cls, severity: str) -> RainModel:
        """The rain of a named level.

        Raises:
            OptionError: no such level.
        """
        if severity not in SEVERITIES:
            raise OptionError(
                f"no rain severity is called '{severity}'",
                expected="one of: " + ", ".join(SEVERITIES),
                hint="choose one of these names",
            )
        return cls(*SEVERITIES[severity])


def _streak(length: Tensor, angle: Tensor, width: Tensor, reach: int) -> Tensor:
    """One streak per entry, its middle in the middle: (B, 2*reach+1, 2*reach+1) in [0, 1]."""
    steps = torch.arange(-reach, reach + 1, device=length.device, dtype=length.dtype)
    y, x = steps.view(1, -1, 1), steps.view(1, 1, -1)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along, across = y * cos + x * sin, x * cos - y * sin
    beyond = (along.abs() - length.view(-1, 1, 1) / 2).clamp(min=0)
    return torch.exp(-0.5 * (beyond.square() + across.square()) / width.view(-1, 1, 1).square())


def rain(linear: Tensor, model: RainModel, generator: torch.Generator) -> Tensor:
    """Pictures with rain: (B, 3, H, W), linear light in [0, 1].

    A drop that falls through a pixel hides it for a part of the exposure and shows the sky in its
    place: I = (1 - a) * I_scene + a * I_drop, in linear light (Garg and Nayar, "Vision and Rain",
    IJCV 75(1), 2007). Streaks lie where drops are sown at random; those of one picture
    are parallel.
    """
    count, _, height, width = linear.shape
    third = (count, 1, 1, 1)
    sky = uniform(third, 0.6, 1.0, linear, generator)
    angle = uniform((count,), -1.0, 1.0, linear, generator) * math.radians(model.slant)
    mist = uniform(third, 0.0, model.mist, linear, generator)
    linear = linear + mist * (sky - linear)
    for shorter, fainter in _LAYERS:
        density = uniform(third, model.streaks / 3, model.streaks, linear, generator) / 10_000
        longest = model.longest * shorter
        length = uniform((count,), longest / 3, longest, linear, generator)
        opacity = uniform(third, model.opacity / 3, model.opacity, linear, generator) * fainter
        thickness = uniform((count,), 0.5, 0.9, linear, generator) * (0.5 + 0.5 * shorter)
        reach = math.ceil(longest / 2) + 3
        shape = (count, 1, height + 2 * reach, width + 2 * reach)
        drops = uniform(shape, 0.0, 1.0, linear, generator)
        # Below the density there is a drop, and how far below is its strength.
        drops = torch.where(drops < density, 0.3 + 0.7 * drops / density, torch.zeros_like(drops))
        streaks = F.conv2d(
            drops.transpose(0, 1), _streak(length, angle, thickness, reach)[:, None], groups=count
        ).transpose(0, 1)
        linear = linear + (streaks.clamp(max=1.0) * opacity) * (sky - linear)
    return linear
