"""A recipe's task applied to a batch of sharp patches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from edge_restore.errors import OptionError
from train.blur import MARGIN, BlurModel, Exposure, expose
from train.colour import to_linear, to_srgb
from train.simulator.compression import CompressionModel, compressed
from train.simulator.noise import NoiseModel, noisy
from train.simulator.rain import RainModel, rain

TASKS = ("deblur", "denoise", "derain")
"""What a network may be trained to undo."""


@dataclass(frozen=True)
class Degradation:
    """What happens to sharp pictures.

    Attributes:
        task: of `TASKS`. "deblur" uses `blur`, "denoise" `noise`, "derain" `rain`; each no other.
        compression: comes last, for every task.
    """

    task: str = "deblur"
    blur: BlurModel = field(default_factory=BlurModel)
    noise: NoiseModel = field(default_factory=NoiseModel)
    rain: RainModel = field(default_factory=RainModel)
    compression: CompressionModel = field(default_factory=CompressionModel)

    @classmethod
    def of(
        cls, task: str, severity: str, *, trajectory: str = "walk", jpeg: bool = False
    ) -> Degradation:
        """A task at a named severity; with `jpeg`, compressed at that severity as well.

        Raises:
            OptionError: no such task, severity or trajectory.
        """
        if task not in TASKS:
            raise OptionError(
                f"no task is called '{task}'",
                expected="one of: " + ", ".join(TASKS),
                hint="choose one of these names",
            )
        compression = CompressionModel.of(severity) if jpeg else CompressionModel()
        if task == "denoise":
            return cls(task, noise=NoiseModel.of(severity), compression=compression)
        if task == "derain":
            return cls(task, rain=RainModel.of(severity), compression=compression)
        return cls(task, blur=BlurModel.of(severity, trajectory), compression=compression)

    @property
    def margin(self) -> int:
        """Border in pixels that `apply` needs around a patch, and cuts away."""
        return MARGIN if self.task == "deblur" else 0

    def apply(self, sharp: Tensor, generator: torch.Generator) -> Exposure:
        """Degraded pictures and their truth, `margin` pixels smaller on each side.

        Args:
            sharp: (B, 3, H, W) sRGB in [0, 1], floating.
            generator: all randomness, on the same device.

        Returns:
            Pictures in multiples of 1/255; without blur the flows are zero.
        """
        if self.task == "deblur":
            exposure = expose(sharp, self.blur, generator, margin=self.margin)
        else:
            if self.task == "denoise":
                degraded = noisy(sharp, self.noise, generator)
            else:
                degraded = to_srgb(rain(to_linear(sharp), self.rain, generator))
            count, _, height, width = sharp.shape
            still = sharp.new_zeros(count, 2, 2, height, width)
            exposure = Exposure((degraded * 255).round() / 255, sharp, still)
        if self.compression.jpeg:
            blurred = compressed(exposure.blurred, self.compression, generator)
            exposure = exposure._replace(blurred=blurred)
        return exposure
