"""The range of every number in a recipe, looked at before the training starts.

What lies outside would end in hours: a rate of infinity in weights that are no numbers, a number
that is not finite in a card that cannot be written, a huge size in memory that is not there.
"""

from __future__ import annotations

import math
from typing import Any

from edge_restore.storage.json_file import abridged
from train.blur import LONGEST

_MAX_STEPS = 10**9
_MAX_SIDE = 4096
_MAX_BATCH = 4096
_MAX_WEIGHT = 1e4
_BELOW_ONE = 1 - 1e-9

_STEPS = (0, _MAX_STEPS)
_COUNT = (1, _MAX_STEPS)
_SHARE = (0, 1)
_WEIGHT = (0, _MAX_WEIGHT)

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.patch": (8, _MAX_SIDE),
    "data.batch": (1, _MAX_BATCH),
    "data.zoom": (1, 16),
    "data.smooth": _SHARE,
    "data.tiled": _SHARE,
    "data.striped": _SHARE,
    "data.waves": _SHARE,
    "data.subsampled": _SHARE,
    "data.defocused": _SHARE,
    "data.later.step": _STEPS,
    "data.later.patch": (8, _MAX_SIDE),
    "data.later.batch": (1, _MAX_BATCH),
    "optimiser.steps": _COUNT,
    "optimiser.rate": (0, 10),
    "optimiser.last_rate": (0, 10),
    "optimiser.power": (0, 100),
    "optimiser.drop": _SHARE,
    "optimiser.drop_every": _COUNT,
    "optimiser.warmup": _STEPS,
    "optimiser.beta1": (0, _BELOW_ONE),
    "optimiser.beta2": (0, _BELOW_ONE),
    "optimiser.clip": (0, 1e6),
    "optimiser.weight_decay": (0, 10),
    "optimiser.offset_rate": (0, 100),
    "optimiser.offset_start": _STEPS,
    "optimiser.ema": _SHARE,
    "loss.epsilon": (1e-9, 1),
    "loss.floor": _SHARE,
    "loss.harm": _WEIGHT,
    "loss.sharpness": _SHARE,
    "loss.motion": _WEIGHT,
    "loss.motion_first": _STEPS,
    "loss.perceptual": _WEIGHT,
    "loss.perceptual_layer": (0, 100),
    "loss.contrast_weight": _WEIGHT,
    "loss.position": _WEIGHT,
    "loss.margin": (0, 1000),
    "loss.distillation": _WEIGHT,
    "validation.every": _COUNT,
    "validation.patches": (1, 4096),
    "validation.size": (16, _MAX_SIDE),
    "validation.later_from": _STEPS,
    "validation.later_every": _STEPS,
    "blur.shortest": (0, LONGEST),
    "blur.longest": (0, LONGEST),
    "blur.skew": (0, 100),
    "blur.still": _SHARE,
    "blur.rotation": _SHARE,
    "blur.layers": _SHARE,
    "blur.read_noise": _SHARE,
    "blur.shot_noise": _SHARE,
    "blur.softness": (0, 16),
    "blur.highlights": (0, 1000),
    "blur.exposure": (0, 8),
    "noise.gaussian_least": (0, 255),
    "noise.gaussian": (0, 255),
    "noise.photons_least": (0, 1e9),
    "noise.photons": (0, 1e9),
    "rain.streaks": (0, 1000),
    "rain.longest": (1, 64),
    "rain.opacity": _SHARE,
    "rain.mist": _SHARE,
    "rain.slant": (0, 90),
    "compression.jpeg": _SHARE,
    "compression.jpeg_worst": (1, 100),
    "compression.jpeg_best": (1, 100),
}
"""Lowest and highest value by the key's path, both allowed."""

_ARGUMENTS: dict[str, tuple[float, float]] = {
    "width": (1, 1024),
    "block_width": (1, 1024),
    "blocks": (1, 64),
    "stages": (1, 16),
    "repeats": (1, 64),
    "raw_repeats": (0, 64),
    "threshold": _SHARE,
    "delta": (1e-12, 1),
}
_MAX_LEVELS = 16
_LEAST = 2.0**-126
"""What lies below is 0 in training, which counts in float32 and without denormals."""
_MAX_TEXT = 4096


def problem(path: str, value: Any) -> str:
    """What is wrong with the number at `path`, e.g. "'optimiser.rate' is -1.0, not 0 or more"."""
    low, high = RANGES[path]
    return _outside(path, value, low, high)


def text_problem(path: str, value: str) -> str:
    """What is wrong with a string; empty when nothing is."""
    if len(value) > _MAX_TEXT or "\0" in value:
        return f"'{path}' is {abridged(value)}, not a name"
    return ""


def argument_problems(arguments: dict[str, Any], where: str = "arguments.") -> list[str]:
    """What is wrong with the arguments of a network, apart from their names."""
    found = []
    for key, value in arguments.items():
        name = f"{where}{abridged(key)[1:-1]}"
        if isinstance(value, list | tuple):
            whole = all(type(v) is int and 0 <= v < _MAX_LEVELS for v in value)
            if not whole or len(value) > _MAX_LEVELS:
                found.append(f"'{name}' is {abridged(value)}, not a list of levels")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(_outside(name, value, *_ARGUMENTS.get(key, (0, 1024))))
        elif value is not None and not isinstance(value, bool):
            found.append(f"'{name}' is {abridged(value)}, not a number, true or false")
    return [problem for problem in found if problem]


def _outside(path: str, value: float, low: float, high: float) -> str:
    if 0 < abs(value) < _LEAST:
        return f"'{path}' is {abridged(value)}, not 0 or {_LEAST:.2g} or more"
    if low <= value <= high:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{path}' is {value}, not a number from {low:g} to {high:g}"
    bound = f"{low:g} or more" if value < low else f"{high:.10g} or less"
    return f"'{path}' is {abridged(value)}, not {bound}"
