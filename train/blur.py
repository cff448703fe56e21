"""Synthetic motion blur: what a sensor integrates while the camera shakes and things move.

A sharp picture is seen at `SUBFRAMES` instants of one exposure, each instant warped by the camera's
shift and rotation, with one layer in front that moves on its own and covers what is behind it at
that instant; the instants are averaged in linear light, noise is added there, and the result is
clipped and encoded to 8-bit sRGB. How things move and what the sensor does is in train/simulator.
Averaging instants follows the GoPro data set (Nah et al., CVPR 2017, Eq. 1-2); lengths are in
pixels of the picture.

The ground truth is the picture where it was on average during the exposure; it is not resampled.
The GoPro set takes the instant in the middle instead. The two lie 0.05 of the blur's length apart
in the median, in a direction that the blurred picture does not tell: a network trained on the
middle instant learns to be vague.

Everything runs on the tensors' device and takes its randomness from one generator.
"""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_restore.errors import OptionError
from train.colour import to_linear, to_srgb
from train.simulator.sensor import overexposed, with_noise
from train.simulator.trajectories import SUBFRAMES, TRAJECTORIES, paths, uniform

LONGEST = 32.0
"""The longest blur, in pixels: a patch must have this margin to not show its edge."""

MARGIN = math.ceil(LONGEST / 2)
"""Border of a patch, in pixels, that hides its mirrored surroundings."""

SEVERITIES: dict[str, tuple[float, float]] = {
    "light": (2.0, 6.0),
    "medium": (6.0, 14.0),
    "heavy": (14.0, 28.0),
}
"""Length of the camera's path over one exposure, in pixels: shortest and longest of each level."""


@dataclass(frozen=True)
class BlurModel:
    """What may happen during an exposure.

    Attributes:
        shortest, longest: camera path length in pixels.
        skew: lengths are drawn as shortest + (longest - shortest) * u**skew with u uniform in
            [0, 1]: 1 is uniform, more prefers light blur.
        still: share of pictures without any motion (the network must leave them alone).
        rotation: share of a picture's motion at its edge that comes from rotation, at most.
        layers: share of pictures with an object moving on its own.
        read_noise: standard deviation of the signal-independent noise, linear units, at most.
        shot_noise: standard deviation of the photon noise at full white, linear units, at most.
        softness: standard deviation in pixels of the lens's blur, at most. The truth has it too:
            a picture that is soft without motion must not be sharpened.
        trajectory: how things move, of `train.simulator.trajectories.TRAJECTORIES`.
        highlights: the brightest that a white pixel may in truth have been, in multiples of white,
            so that moving lights leave streaks (`train.simulator.sensor`); 1 or less for none.
        exposure: change in exposure in stops, either way, at most; the truth has it too.
    """

    shortest: float = 0.0
    longest: float = 28.0
    still: float = 0.04
    skew: float = 1.0
    rotation: float = 0.5
    layers: float = 0.35
    read_noise: float = 0.002
    shot_noise: float = 0.006
    softness: float = 0.0
    trajectory: str = "walk"
    highlights: float = 0.0
    exposure: float = 0.0

    def __post_init__(self) -> None:
        if self.trajectory not in TRAJECTORIES:
            raise OptionError(
                f"no trajectory is called '{self.trajectory}'",
                expected="one of: " + ", ".join(TRAJECTORIES),
                hint="choose one of these names",
            )

    @classmethod
    def of(cls, severity: str, trajectory: str = "walk") -> BlurModel:
        """The evaluation's model of a named level: camera shake with rotation, one layer.

        Raises:
            OptionError: no such level or trajectory.
        """
        if severity not in SEVERITIES:
            raise OptionError(
                f"no blur severity is called '{severity}'",
                expected="one of: " + ", ".join(SEVERITIES),
                hint="choose one of these names",
            )
        shortest, longest = SEVERITIES[severity]
        return cls(shortest=shortest, longest=longest, still=0.0, trajectory=trajectory)


class Exposure(NamedTuple):
    """Motion-blurred pictures, their truth, and how everything moved.

    Attributes:
        blurred, sharp: (B, 3, H, W) sRGB in [0, 1].
        flows: (B, 2, 2, H, W), pixels: where each point of the sharp picture was when the shutter
            opened and when it closed, relative to its place in `sharp`, as (dy, dx).
            These are the bi-directional flows that SVDN approximates the blur by (section 3.3).
    """

    blurred: Tensor
    sharp: Tensor
    flows: Tensor


def _displacements(
    shift: Tensor, angle: Tensor, centre: Tensor, size: tuple[int, int], margin: int
) -> Tensor:
    """How far from each pixel the cameras look at T instants, after a shift and a turn.

    shift (N, T, 2) and centre (N, 2) in pixels as (y, x), angle (N, T) in radians, both taken from
    their mean; returns (N, T, 2, H - 2*margin, W - 2*margin) in pixels, for the middle of the view.
    """
    shift = shift - shift.mean(dim=1, keepdim=True)
    angle = (angle - angle.mean(dim=1, keepdim=True))[..., None, None]
    like: dict[str, Any] = {"device": shift.device, "dtype": shift.dtype}
    centre = centre[:, None, None, None]
    y = torch.arange(margin, size[0] - margin, **like).view(-1, 1) - centre[..., 0]
    x = torch.arange(margin, size[1] - margin, **like) - centre[..., 1]
    cos, sin = angle.cos(), angle.sin()
    turned = torch.stack(((cos - 1) * y - sin * x, sin * y + (cos - 1) * x), 2)
    return turned + shift[..., None, None]


def _warp(images: Tensor, displacements: Tensor, margin: int) -> Tensor:
    """Pictures (N, C, H, W) as seen with displacements (N, T, 2, h, w): (N, C, T, h, w).

    Outside, the picture is mirrored. Bicubic: bilinear sampling softens an instant that falls
    between the pixels, which the truth is not, and teaches to sharpen whatever moved at all.
    The overshoot at an edge may fall below zero.
    """
    count, channels, height, width = images.shape
    rows, columns = displacements.shape[-2:]
    like: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
    y = displacements[:, :, 0] + torch.arange(margin, margin + rows, **like).view(-1, 1)
    x = displacements[:, :, 1] + torch.arange(margin, margin + columns, **like)
    if images.device.type == "cpu" and images.dtype == torch.float32 and (cv2 := _opencv()):
        return torch.stack([_remapped(cv2, *each) for each in zip(images, y, x, strict=True)])
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # The instants of a picture lie below each other: one picture's samples, and nothing is copied.
    seen = F.grid_sample(
        images, grid.flatten(1, 2), mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return seen.view(count, channels, -1, rows, columns)


def _remapped(cv2: ModuleType, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The picture (C, H, W) at the places (T, h, w): (C, T, h, w), by OpenCV on a CPU.

    It has the same kernel (a = -0.75) and the same mirror as `grid_sample`, and takes a quarter of
    its time.
    """
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    seen = np.empty((*y.shape, image.shape[0]), np.float32)
    for instant, rows, columns in zip(seen, y.numpy(), x.numpy(), strict=True):
        cv2.remap(pixels, columns, rows, cv2.INTER_CUBIC, instant, cv2.BORDER_REFLECT)
    return torch.from_numpy(seen).permute(3, 0, 1, 2)


@functools.cache
def _opencv() -> ModuleType | None:
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None


def _instants(length: float) -> slice:
    """Every n-th of the instants, first and last included, so that two are at most 1 px apart."""
    stride = next(n for n in (4, 3, 2, 1) if n == 1 or length * n <= SUBFRAMES - 1)
    return slice(None, None, stride)


def _groups(
    longest: list[float], moves: list[bool], *, alone: bool
) -> list[tuple[slice | Tensor, slice, bool]]:
    """Pictures that are made at once: which, their instants, whether something moves in them.

    One `alone` keeps its instants in the cache of a CPU. A GPU gets all that are alike, because for
    it the number of calls is what takes time.
    """
    if alone:
        pictures = enumerate(zip(longest, moves, strict=True))
        return [(slice(i, i + 1), _instants(length), moving) for i, (length, moving) in pictures]
    alike: dict[tuple[int, bool], list[int]] = {}
    for i, (length, moving) in enumerate(zip(longest, moves, strict=True)):
        alike.setdefault((_instants(length).step, moving), []).append(i)
    return [
        (torch.tensor(which), slice(None, None, stride), moving)
        for (stride, moving), which in alike.items()
    ]


def _motion(
    length: Tensor, size: tuple[int, int], model: BlurModel, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Shifts, angles and centres for `_displacements`: a path, part of it turned into rotation."""
    count = length.shape[0]
    share = uniform((count,), 0.0, model.rotation, length, generator)
    displacement = paths(length * (1 - share), generator, model.trajectory)
    reach = 0.5 * math.hypot(*size)
    # The turn follows its own path; at the distance `reach` it moves a pixel by share * length.
    turn = paths(length * share, generator, model.trajectory)[..., 0] / reach
    half = torch.tensor(size, device=length.device, dtype=length.dtype) / 2
    centre = half + uniform((count, 2), -1.0, 1.0, length, generator) * half * 2
    return displacement, turn, centre


def _blobs(count: int, size: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Soft-edged random shapes, (count, 1, H, W) in [0, 1], over a third or so of the picture."""
    coarse = torch.randn(count, 1, 4, 4, generator=generator, device=like.device, dtype=like.dtype)
    field = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    # A slope of a few pixels: the edge of a thing is sharp but not aliased.
    gradient = max(size) / 4 / 1.5
    return torch.sigmoid((field - 0.35) * gradient)


def softened(linear: Tensor, deviation: Tensor, reach: int = 3) -> Tensor:
    """Pictures (B, C, H, W) after Gaussian blurs of `deviation` (B,) pixels, 0 for none.

    Of 2 * reach + 1 taps; mirrored outside, so `reach` is less than either side.
    """
    count, channels, height, width = linear.shape
    x = torch.arange(-reach, reach + 1, device=linear.device, dtype=linear.dtype)
    weights = torch.exp(-0.5 * (x / deviation.clamp(min=1e-3)[:, None]).square())
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    planes = F.pad(linear, 4 * (reach,), mode="reflect")
    planes = planes.reshape(1, -1, height + 2 * reach, width + 2 * reach)
    groups = count * channels
    planes = F.conv2d(planes, weights.view(groups, 1, 1, -1), groups=groups)
    planes = F.conv2d(planes, weights.view(groups, 1, -1, 1), groups=groups)
    return planes.view(linear.shape)


def expose(
    sharp: Tensor, model: BlurModel, generator: torch.Generator, *, margin: int = 0
) -> Exposure:
    """Take a motion-blurred picture of each sharp one.

    Args:
        sharp: (B, 3, H, W) sRGB in [0, 1], floating.
        model: what may happen.
        generator: randomness, on the same device as `sharp`.
        margin: border in pixels that is cut away at the end; `LONGEST` / 2 hides the mirror.

    Returns:
        Pictures of (H - 2*margin, W - 2*margin), rounded to multiples of 1/255, and their flows.
    """
    count, _, height, width = sharp.shape
    size = (height, width)
    still = uniform((count,), 0.0, 1.0, sharp, generator) < model.still
    drawn = uniform((count,), 0.0, 1.0, sharp, generator) ** model.skew
    length = (model.shortest + (model.longest - model.shortest) * drawn) * ~still
    linear = to_linear(sharp)
    if model.softness:
        deviation = uniform((count,), 0.0, model.softness, sharp, generator)
        linear = softened(linear, deviation)
    linear = overexposed(linear, model.highlights, model.exposure, generator)
    # The layer in front shows the batch's next picture (or this one), mirrored, through a shape.
    moving = (uniform((count,), 0.0, 1.0, sharp, generator) < model.layers) & ~still
    cut = slice(margin, height - margin), slice(margin, width - margin)
    truth = linear[..., cut[0], cut[1]].clone()
    blurred = torch.empty_like(truth)
    flows = truth.new_empty(count, 2, 2, *truth.shape[2:])
    motion = _motion(length, size, model, generator)
    object_length = uniform((count,), 0.0, model.longest, sharp, generator)
    object_motion = _motion(object_length, size, model, generator)
    shapes = _blobs(count, size, sharp, generator)
    front = torch.cat((linear.roll(1, 0).flip(-1), shapes), dim=1)
    longest = torch.where(moving, torch.maximum(length, object_length), length).tolist()
    for which, chosen, moves in _groups(longest, moving.tolist(), alone=sharp.device.type == "cpu"):
        shift, turn, centre = (part[which] for part in motion)
        view = _displacements(shift[:, chosen], turn[:, chosen], centre, size, margin)
        # Things move against the camera's look.
        flow = -view[:, [0, -1]]
        seen = _warp(linear[which], view, margin)
        if moves:
            shift, turn, centre = (part[which] for part in object_motion)
            view = _displacements(shift[:, chosen], turn[:, chosen], centre, size, margin)
            layer = _warp(front[which], view, margin)
            seen = seen + layer[:, 3:] * (layer[:, :3] - seen)
            still_front = front[which][..., cut[0], cut[1]]
            shape = still_front[:, 3:]
            truth[which] += shape * (still_front[:, :3] - truth[which])
            flow = torch.where(shape[:, None] > 0.5, -view[:, [0, -1]], flow)
        flows[which] = flow
        blurred[which] = seen.mean(dim=2).clamp(min=0)
    blurred = to_srgb(with_noise(blurred, model.read_noise, model.shot_noise, generator))
    return Exposure((blurred * 255).round() / 255, (to_srgb(truth) * 255).round() / 255, flows)
