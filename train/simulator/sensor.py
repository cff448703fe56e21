"""The sensor: how light becomes numbers. Exposure, highlights, photon and read noise."""

from __future__ import annotations

import torch
from torch import Tensor

from train.simulator.trajectories import uniform

WHITE = 0.8
"""Linear light from which a pixel may in truth be brighter than the picture could say."""


def overexposed(
    linear: Tensor, highlights: float, exposure: float, generator: torch.Generator
) -> Tensor:
    """Light as it was before a camera clipped it: some of it is above 1.

    A picture cannot tell a white wall from the sun. So the nearly white pixels are made brighter,
    by a factor that grows from 1 at `WHITE` to one drawn per picture at 1; then the whole picture
    is lightened or darkened. What is above 1 must stay so until the exposure is integrated, and be
    clipped then: a moving lamp leaves a white streak, not a grey one. (Rim et al., "Realistic Blur
    Synthesis for Learning Image Deblurring", ECCV 2022, add light to saturated pixels
    before averaging for the same reason.)

    Args:
        linear: (B, 3, H, W) linear light in [0, 1].
        highlights: the brightest highlight, in multiples of white; 1 or less for none.
        exposure: change in exposure in stops, either way, at most.
        generator: on the same device; nothing is drawn for what is switched off.

    Returns:
        (B, 3, H, W) linear light, 0 or more.
    """
    shape = (linear.shape[0], 1, 1, 1)
    if highlights > 1:
        gain = uniform(shape, 1.0, highlights, linear, generator)
        ramp = ((linear.amax(dim=1, keepdim=True) - WHITE) / (1 - WHITE)).clamp(0, 1).square()
        linear = linear * (1 + (gain - 1) * ramp)
    if exposure:
        linear = linear * 2.0 ** uniform(shape, -exposure, exposure, linear, generator)
    return linear


def with_noise(
    light: Tensor, read_noise: float, shot_noise: float, generator: torch.Generator
) -> Tensor:
    """Light with a sensor's noise, of a strength that is drawn for each picture.

    The variance is read**2 + shot**2 * light, the usual approximation of photon noise by a
    Gaussian (Foi et al., IEEE TIP 2008).

    Args:
        light: (B, 3, H, W), linear.
        read_noise, shot_noise: standard deviations at black and at white, at most.
        generator: on the same device.
    """
    shape = (light.shape[0], 1, 1, 1)
    read = uniform(shape, 0.0, read_noise, light, generator)
    shot = uniform(shape, 0.0, shot_noise, light, generator)
    noise = torch.randn(light.shape, generator=generator, device=light.device, dtype=light.dtype)
    return light + noise * (read**2 + shot**2 * light).sqrt()
