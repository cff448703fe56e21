"""Gaussian and Poisson noise, for training a denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_restore.errors import OptionError
from train.colour import to_linear, to_srgb
from train.simulator.trajectories import uniform

SEVERITIES = {"light": 15.0, "medium": 25.0, "heavy": 50.0}
"""Gaussian noise of each level, in levels of 255: the strengths that denoisers are compared at."""


@dataclass(frozen=True)
class NoiseModel:
    """Noise for `task = "denoise"`; each picture draws its own strength.

    Attributes:
        gaussian_least, gaussian: standard deviation of white Gaussian noise on the encoded picture,
            in levels of 255, drawn uniformly between them (blind denoising as in Zhang et al.,
            "Beyond a Gaussian Denoiser", IEEE TIP 2017, with its range up to 55).
        photons_least, photons: photons that a white pixel collects; the Poisson noise of their
            number, in linear light, comes before the Gaussian. Drawn log-uniformly between them;
            no Poisson noise when `photons` is 0.
    """

    gaussian_least: float = 0.0
    gaussian: float = 55.0
    photons_least: float = 0.0
    photons: float = 0.0

    def __post_init__(self) -> None:
        if self.gaussian_least > self.gaussian or self.photons_least > self.photons:
            raise OptionError(
                "the least noise is above the most: "
                f"gaussian {self.gaussian_least} to {self.gaussian}, "
                f"photons {self.photons_least} to {self.photons}",
                expected="gaussian_least <= gaussian and photons_least <= photons",
                hint="swap them",
            )
        if self.photons and self.photons_least < 1:
            raise OptionError(
                f"photons_least is {self.photons_least}",
                expected="1 or more where photons is not 0",
                hint="give the fewest photons that a white pixel may collect, such as 50",
            )

    @classmethod
    def of(cls, severity: str) -> NoiseModel:
        """Gaussian noise of exactly one level's strength.

        Raises:
            OptionError: no such level.
        """
        if severity not in SEVERITIES:
            raise OptionError(
                f"no noise severity is called '{severity}'",
                expected="one of: " + ", ".join(SEVERITIES),
                hint="choose one of these names",
            )
        return cls(gaussian_least=SEVERITIES[severity], gaussian=SEVERITIES[severity])


def noisy(srgb: Tensor, model: NoiseModel, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W), sRGB in [0, 1], with noise; clamped, not rounded."""
    shape = (srgb.shape[0], 1, 1, 1)
    if model.photons:
        low, high = math.log(model.photons_least), math.log(model.photons)
        photons = uniform(shape, low, high, srgb, generator).exp()
        srgb = to_srgb(torch.poisson(to_linear(srgb) * photons, generator) / photons)
    deviation = uniform(shape, model.gaussian_least, model.gaussian, srgb, generator) / 255
    noise = torch.randn(srgb.shape, generator=generator, device=srgb.device, dtype=srgb.dtype)
    return (srgb + noise * deviation).clamp(0, 1)
