"""How a camera or a thing moves during one exposure: four models of a path of given length."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_restore.errors import OptionError

SUBFRAMES = 25
"""Instants per exposure: 24 steps, which 2, 3 and 4 divide."""

_IMPULSE_STEPS = 4
"""Steps of the particle of `_impulses` between two instants."""


def uniform(
    shape: tuple[int, ...], low: float, high: float, like: Tensor, g: torch.Generator
) -> Tensor:
    """Uniform random numbers in [low, high), of the kind and on the device of `like`."""
    return torch.rand(shape, generator=g, device=like.device, dtype=like.dtype) * (high - low) + low


def _normal(shape: tuple[int, ...], like: Tensor, g: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=g, device=like.device, dtype=like.dtype)


def _direction(angle: Tensor) -> Tensor:
    return torch.stack((angle.sin(), angle.cos()), dim=-1)


def _walk(like: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth random walk: the heading is kept for most of an exposure and slowly bent.

    As the random acceleration of Boracchi and Foi (IEEE TIP 2012) makes it, without impulses.
    """
    count = like.shape[0]
    heading = uniform((count, 1), 0.0, 2 * math.pi, like, generator)
    # Between a straight line (0) and a curl. With these two figures the ends of a path are 0.97 of
    # its length apart in the median and 0.61 at the tenth percentile; for the demo's hand-held
    # camera, a sum of tremor and sway, it is 0.95 and 0.67.
    bend = uniform((count, 1), 0.0, 1.0, like, generator) ** 2 * 0.8
    turn = _normal((count, SUBFRAMES), like, generator)
    # Twice smoothed noise: the heading changes slowly.
    kernel = torch.ones(1, 1, 7, device=like.device, dtype=like.dtype) / 7
    for _ in range(2):
        turn = F.conv1d(F.pad(turn[:, None], (3, 3), mode="replicate"), kernel)[:, 0]
    angle = heading + bend * torch.cumsum(turn, dim=1)
    pace = 1.0 + 0.4 * torch.sin(
        torch.linspace(0, math.pi, SUBFRAMES, device=like.device, dtype=like.dtype)
        * uniform((count, 1), 0.3, 2.0, like, generator)
        + heading
    )
    return torch.cumsum(_direction(angle) * pace[..., None], dim=1)


def _straight(like: Tensor, generator: torch.Generator) -> Tensor:
    """A straight line at constant velocity: a pan, or anything within a short exposure."""
    heading = uniform((like.shape[0], 1), 0.0, 2 * math.pi, like, generator)
    instants = torch.arange(SUBFRAMES, device=like.device, dtype=like.dtype)
    return _direction(heading) * instants[:, None]


def _impulses(like: Tensor, generator: torch.Generator) -> Tensor:
    """A particle of constant speed, pushed at random, pulled back, at times thrown about.

    The model of Boracchi and Foi, "Modeling the performance of image restoration from motion
    blur", IEEE TIP 21(8), 2012: each step's velocity gets a Gaussian perturbation, a pull towards
    the start, and with a small probability an impulse that nearly reverses it (somebody presses
    the shutter), then its norm is restored. Theirs has 2000 steps and parameters for them. Ours
    has 96, and draws for each path: a Gaussian turn of at most 1.2 rad over the exposure, a pull
    of at most 8 per path length and exposure, and two impulses on average at most.
    """
    count = like.shape[0]
    steps = (SUBFRAMES - 1) * _IMPULSE_STEPS
    nervous, loose, tied = uniform((3, count, 1), 0.0, 1.0, like, generator)
    push = _normal((steps, count, 2), like, generator) * loose * 1.2 / math.sqrt(steps)
    thrown = uniform((steps, count, 1), 0.0, 1.0, like, generator) < nervous * 2 / steps
    back = uniform((steps, count), math.pi - 0.5, math.pi + 0.5, like, generator)
    cos, sin = back.cos()[..., None], back.sin()[..., None]
    heading = uniform((count,), 0.0, 2 * math.pi, like, generator)
    velocity = _direction(heading)
    place = torch.zeros_like(velocity)
    places = [place]
    for i in range(steps):
        reversed_ = torch.cat(
            (velocity[:, :1] * cos[i] - velocity[:, 1:] * sin[i],
             velocity[:, :1] * sin[i] + velocity[:, 1:] * cos[i]), dim=1,
        )  # fmt: skip
        # `place` is in path lengths once divided by the steps.
        velocity = velocity + push[i] - 8 * tied * place / steps / steps
        velocity = velocity + 2 * reversed_ * thrown[i]
        velocity = velocity / velocity.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        place = place + velocity
        places.append(place)
    return torch.stack(places[::_IMPULSE_STEPS], dim=1)


def _tremor(like: Tensor, generator: torch.Generator) -> Tensor:
    """Tremor on top of sway: what a hand does, as the demo's camera (edge_restore/demo) has it.

    Two bands of six tones each and per axis: sway at 0.6 to 2.5 Hz, tremor at 8 to 12 Hz with a
    third of its amplitude (the tremor's band after McAuley and Marsden, Brain 123, 2000; the rest
    is an assumption). The exposure lasts 1/60 to 1/4 s: a short one is a line, a long one a knot.
    """
    count, tones = like.shape[0], 6
    seconds = 60.0 ** -uniform((count, 1, 1, 1), math.log(4, 60), 1.0, like, generator)
    time = torch.linspace(0, 1, SUBFRAMES, device=like.device, dtype=like.dtype)
    time = time[None, :, None, None] * seconds
    path = like.new_zeros(count, SUBFRAMES, 2)
    for low, high, amplitude in ((0.6, 2.5, 0.4), (8.0, 12.0, 0.13)):
        frequency = uniform((count, 1, 2, tones), low, high, like, generator)
        phase = uniform((count, 1, 2, tones), 0.0, 2 * math.pi, like, generator)
        path += amplitude * torch.sin(2 * math.pi * frequency * time + phase).sum(dim=-1)
    return path


_MODELS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "walk": _walk,
    "straight": _straight,
    "impulses": _impulses,
    "tremor": _tremor,
}

TRAJECTORIES = (*_MODELS, "mixed")
"""The models by name; "mixed" draws one of the others for each picture."""


def paths(length: Tensor, generator: torch.Generator, trajectory: str = "walk") -> Tensor:
    """Paths of a hand or a thing over one exposure, one per entry of `length`.

    Args:
        length: (B,) path length in pixels.
        generator: on the same device.
        trajectory: one of `TRAJECTORIES`.

    Returns:
        (B, SUBFRAMES, 2) displacement (dy, dx) in pixels, zero on average.

    Raises:
        OptionError: no such trajectory.
    """
    if trajectory == "mixed":
        drawn = torch.rand(length.shape, generator=generator, device=length.device)
        every = torch.stack([model(length, generator) for model in _MODELS.values()])
        chosen = (drawn * len(every)).long().clamp(max=len(every) - 1)
        path = every[chosen, torch.arange(len(length), device=length.device)]
    elif trajectory in _MODELS:
        path = _MODELS[trajectory](length, generator)
    else:
        raise OptionError(
            f"no trajectory is called '{trajectory}'",
            expected="one of: " + ", ".join(TRAJECTORIES),
            hint="choose one of these names",
        )
    steps = (path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(dim=1)
    path = path * (length / steps)[:, None, None]
    centred: Tensor = path - path.mean(dim=1, keepdim=True)
    return centred
