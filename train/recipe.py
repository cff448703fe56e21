"""Recipe: everything that decides a training, read from a TOML file.

Unknown, missing and badly typed keys are collected and reported at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch

from edge_restore.errors import OptionError, RecipeError
from edge_restore.storage.json_fields import is_integer, is_number
from edge_restore.storage.json_file import abridged
from edge_restore.storage.plain_file import Kind
from train import ranges
from train.blur import BlurModel
from train.networks import NETWORKS, create
from train.simulator.compression import CompressionModel
from train.simulator.degradation import TASKS, Degradation
from train.simulator.noise import NoiseModel
from train.simulator.rain import RainModel
from train.simulator.trajectories import TRAJECTORIES
from train.toml_file import read_toml
from train.vgg import LAYERS

_NAMES = ", ".join(NETWORKS)
_KIND = Kind(
    "a recipe",
    "a TOML file such as those in train/recipes/",
    "check its path and its syntax",
    RecipeError,
)


@dataclass(frozen=True)
class Crop:
    """From step `step` on, patches of `patch` pixels square, `batch` of them per step."""

    step: int
    patch: int
    batch: int


@dataclass(frozen=True)
class DataRecipe:
    """Patches: `patch` pixels square, `batch` of them per step and process.

    `later`: tables of step, patch and batch, in order: crops that grow while training goes on
    (progressive learning; Restormer, Zamir et al., CVPR 2022, section 4).
    `zoom`: at most this many times as high, and as wide, is what a patch shows, or as many times
    less; the two are drawn apart, so that things are also stretched. 1 leaves pictures as they are.
    `smooth`: share of patches taken as they come; the others are to have some detail.
    `tiled`, `striped`: shares of the patches of sharp pictures over which tiles in perspective and
    stripes are laid (train/tiling.py). `waves`: share of the stripes that are soft.
    `subsampled`, `defocused`: shares of them whose colour has half the resolution, and which are
    partly out of focus, before they are blurred (train/soften.py).
    """

    patch: int = 96
    batch: int = 8
    zoom: float = 1.0
    smooth: float = 0.0
    tiled: float = 0.0
    striped: float = 0.0
    waves: float = 0.5
    subsampled: float = 0.0
    defocused: float = 0.0
    later: tuple[Crop, ...] = ()

    def crop(self, step: int) -> tuple[int, int]:
        """Side and number of the patches of a step."""
        chosen = [c for c in self.later if c.step <= step]
        return (chosen[-1].patch, chosen[-1].batch) if chosen else (self.patch, self.batch)


@dataclass(frozen=True)
class OptimiserRecipe:
    """`algorithm`: "adam", or "muon": Muon for the kernels between features, Adam for the rest.

    `schedule`: "cosine" or "polynomial" (with `power`), from `rate` to `last_rate` over `steps`,
    after `warmup` steps of linear rise; or "step": `rate` times `drop` for every `drop_every` steps
    gone by, never below `last_rate`. `clip`: largest gradient norm, 0 for none. `weight_decay`:
    Adam's is added to the gradient, Muon's shrinks the weights. `ema`: decay of the averaged
    weights, which are the ones kept.
    `offset_rate`: factor on the rate of the layers that predict deformable offsets and masks, 0.1
    by custom; it is zero for `offset_start` steps, then rises as long. Before the rest of the
    network makes sense, the quickest way down is to shut the masks, and training never returns.
    """

    steps: int
    algorithm: str = "adam"
    rate: float = 1e-3
    last_rate: float = 1e-6
    schedule: str = "cosine"
    power: float = 0.9
    drop: float = 0.1
    drop_every: int = 500000
    warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 0.0
    weight_decay: float = 0.0
    offset_rate: float = 0.1
    offset_start: int = 0
    ema: float = 0.999


@dataclass(frozen=True)
class LossRecipe:
    """`kind`: the pixel loss, one of train/losses.py: "l2" (SVDN, Eq. 8: half the mean squared
    error), "mse" (LMFN, Eq. 4), "l1" (DRCNet), "charbonnier", "rms" (FCN) or "log_mse".
    `epsilon` is added under the roots of "charbonnier" and "rms". `floor` is the mean squared error
    from which "log_mse" no longer asks for less: 1e-4 is 40 dB, which light blurs reach.

    `harm`: weight of what the restored picture loses where it came nearly sharp, 0 for none;
    `sharpness`: the mean squared error up to which a place counts as that.

    `motion`: weight of the motion guidance (train/guidance.py), 0 for none. It is weighed against
    the pixel loss as that stands: 10 suits "log_mse", whose values are decibels; beside "rms" (0.03
    for a patch of 30 dB) it leaves the pixels next to no say. For the first
    `motion_first` steps it is the only loss; then the sampling points are laid along the motion
    that was learned, and the recipe's warm-up and offset start begin anew.

    `vgg_file`: safetensors with the weights of `vgg`, "vgg16" or "vgg19" (train/vgg.py), for the
    two terms on features. `perceptual`: weight of the perceptual loss on `perceptual_layer` (SVDN,
    Eq. 9: 0.01). `contrast`: "intra" or "extra", the source of the negatives (train/contrast.py),
    or "none"; `contrast_weight` is alpha of DRCNet's Eq. 13.

    `position`: weight of the position loss (train/position.py; SVDN, Eq. 10: 0.0001), 0 for none.
    `margin`: its M, in pixels of the layer that samples; the paper does not give it. 2.83 leaves
    every point of an undeformed 5x5 kernel alone where nothing moves.

    `trust_ratio`: the stages of the network share out the pixel loss by trainable ratios (FCN).

    `distillation`: weight of the pixel loss towards what a trained network makes of the blurred
    picture, 0 for none; `teacher_file`: that network's weights, with their card.
    """

    kind: str = "l2"
    epsilon: float = 1e-3
    floor: float = 1e-4
    harm: float = 0.0
    sharpness: float = 1e-4
    motion: float = 0.0
    motion_first: int = 0
    vgg: str = "vgg16"
    vgg_file: str = ""
    perceptual: float = 0.0
    perceptual_layer: int = 12
    contrast: str = "none"
    contrast_weight: float = 0.04
    position: float = 0.0
    margin: float = 2.83
    trust_ratio: bool = False
    distillation: float = 0.0
    teacher_file: str = ""

    def looks_at_features(self) -> bool:
        """Whether any term needs VGG."""
        return self.perceptual > 0 or self.contrast != "none"

    def mistakes(self) -> list[str]:
        """What each key alone does not show."""
        # The layer after it halves the sides a fifth time, for which small patches are too small.
        found, last = [], LAYERS[self.vgg] - 2
        if self.looks_at_features() and not self.vgg_file:
            found.append("missing key 'loss.vgg_file', which 'perceptual' and 'contrast' need")
        if self.kind == "log_mse" and not self.floor:
            found.append("'loss.floor' is 0.0, of which there is no logarithm")
        if self.harm and not self.sharpness:
            found.append("'loss.sharpness' is 0.0, by which 'harm' divides")
        if self.distillation and not self.teacher_file:
            found.append("missing key 'loss.teacher_file', which 'distillation' needs")
        if not 0 <= self.perceptual_layer <= last:
            found.append(
                f"'loss.perceptual_layer' is {self.perceptual_layer}, "
                f"not a layer of {self.vgg}, 0 to {last}"
            )
        return found


@dataclass(frozen=True)
class ValidationRecipe:
    """Every `every` steps, on `patches` fixed patches of `size` pixels square.

    From step `later_from` on, every `later_every` steps. (0: as before.)
    `keep`: the weights that the training leaves: "last", those of the best validation by "psnr" or
    "ssim", or "both": of the last validation that beat the kept one in both (FCN, section 4.1).
    """

    every: int = 500
    patches: int = 16
    size: int = 192
    later_from: int = 0
    later_every: int = 0
    keep: str = "last"

    def due(self, step: int) -> bool:
        """Whether a validation follows step `step`."""
        later = self.later_every and step > self.later_from
        return step % (self.later_every if later else self.every) == 0


@dataclass(frozen=True)
class Recipe:
    """One training. `seed` fixes the initial weights, the patches and the blur.

    `task`: "deblur", "denoise" or "derain" by the table `blur`, `noise` or `rain`.
    """

    network: str
    optimiser: OptimiserRecipe
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    data: DataRecipe = field(default_factory=DataRecipe)
    task: str = "deblur"
    blur: BlurModel = field(default_factory=BlurModel)
    noise: NoiseModel = field(default_factory=NoiseModel)
    rain: RainModel = field(default_factory=RainModel)
    compression: CompressionModel = field(default_factory=CompressionModel)
    loss: LossRecipe = field(default_factory=LossRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)

    @property
    def degradation(self) -> Degradation:
        """What happens to the sharp patches."""
        return Degradation(self.task, self.blur, self.noise, self.rain, self.compression)


_CHOICES = {
    "task": TASKS,
    "trajectory": TRAJECTORIES,
    "algorithm": ("adam", "muon"),
    "schedule": ("cosine", "polynomial", "step"),
    "keep": ("last", "psnr", "ssim", "both"),
    "kind": ("l2", "l1", "mse", "charbonnier", "rms", "log_mse"),
    "vgg": tuple(LAYERS),
    "contrast": ("none", "intra", "extra"),
}


def _problem(path: str, value: Any) -> str:
    """What is wrong with a value of the right type; empty when nothing is."""
    if is_integer(value) or isinstance(value, float):
        return ranges.problem(path, value)
    return ranges.text_problem(path, value) if isinstance(value, str) else ""


def _mistakes(kind: type[Any], values: dict[str, Any]) -> list[str]:
    """What each key of a table alone does not show."""
    table = kind(**values)
    if isinstance(table, LossRecipe):
        return table.mistakes()
    if table.shortest > table.longest:
        return [f"'blur.shortest' is {table.shortest}, above 'blur.longest', {table.longest}"]
    return []


def _shown(value: Any) -> str:
    """As Python shows a value, which the messages had before."""
    return f"'{abridged(value)[1:-1]}'" if isinstance(value, str) else abridged(value)


def _build(kind: type[Any], table: dict[str, Any], where: str, errors: list[str]) -> Any:
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key in sorted(table.keys() - known.keys()):
        errors.append(f"unknown key '{where}{abridged(key)[1:-1]}' (known: {', '.join(known)})")
    for name, entry in known.items():
        required = (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        if name not in table:
            if required:
                errors.append(f"missing key '{where}{name}'")
            continue
        value, wanted = table[name], hints[name]
        path = re.sub(r"\[\d+\]", "", f"{where}{name}")
        if dataclasses.is_dataclass(wanted):
            if isinstance(value, dict):
                values[name] = _build(wanted, value, f"{where}{name}.", errors)  # type: ignore[arg-type]
            else:
                errors.append(f"'{where}{name}' is {abridged(value)}, not a table")
            continue
        if wanted == tuple[Crop, ...]:
            values[name] = _crops(value, f"{where}{name}", errors)
            continue
        if wanted is float and is_number(value):
            value = float(value)
        wanted = dict if wanted == dict[str, Any] else wanted
        if wanted is float and is_integer(value):  # too large for a float
            errors.append(ranges.problem(path, value))
        elif not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            errors.append(f"'{where}{name}' is {_shown(value)}, not of type {wanted.__name__}")
        elif name in _CHOICES and value not in _CHOICES[name]:
            known_ones = ", ".join(_CHOICES[name])
            errors.append(f"'{where}{name}' is '{abridged(value)[1:-1]}', not one of {known_ones}")
        elif problem := _problem(path, value):
            errors.append(problem.replace(path, f"{where}{name}", 1))
        else:
            values[name] = value
    try:
        if kind in (BlurModel, LossRecipe):
            errors += _mistakes(kind, values)
        return None if errors else kind(**values)
    except OptionError as error:
        errors.append(f"'{where.rstrip('.')}': {error.found}; expected {error.expected}")
        return None


def _crops(value: Any, where: str, errors: list[str]) -> tuple[Crop, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, dict) for entry in value):
        errors.append(f"'{where}' is {abridged(value)}, not an array of tables ([[{where}]])")
        return ()
    crops = [_build(Crop, entry, f"{where}[{i}].", errors) for i, entry in enumerate(value)]
    if not errors and any(a.step >= b.step for a, b in itertools.pairwise(crops)):
        errors.append(f"'{where}' has steps {[c.step for c in crops]}, which do not rise")
    return tuple(crops)


def _conflicts(recipe: Recipe) -> list[str]:
    """Keys of two tables that do not go together."""
    loss, data, found = recipe.loss, recipe.data, []
    if recipe.network in NETWORKS:
        found += ranges.argument_problems(recipe.arguments)
        found += [] if found else _network_problems(recipe)
    else:
        found.append(f"'network' is '{abridged(recipe.network)[1:-1]}', not one of {_NAMES}")
    if loss.looks_at_features() and data.patch < 16:
        found.append(f"'data.patch' is {data.patch}, and VGG's features need 16 or more")
    if loss.contrast == "extra" and data.batch < 2:
        found.append("'data.batch' is 1, and 'loss.contrast' = 'extra' needs other pictures in it")
    return found


def _network_problems(recipe: Recipe) -> list[str]:
    """Of a network's arguments together, and of patches that are too small for it."""
    multiple = int(NETWORKS[recipe.network].multiple)  # type: ignore[attr-defined]
    sides = {
        "data.patch": recipe.data.patch,
        "validation.size": recipe.validation.size,
        **{f"data.later[{i}].patch": crop.patch for i, crop in enumerate(recipe.data.later)},
    }
    found = [
        f"'{key}' is {side}, below the {multiple} that '{recipe.network}' needs"
        for key, side in sides.items()
        if side < multiple
    ]
    try:
        with torch.device("meta"):  # without memory for the weights
            create(recipe.network, **recipe.arguments)
    except OptionError as error:
        found.append(f"'arguments': {error.found}")
    return found


def listed(errors: list[str]) -> str:
    """The mistakes for a message, one a line, the first 100 of them."""
    more = [f"and {len(errors) - 100} more"] if len(errors) > 100 else []
    return "\n    ".join([*errors[:100], *more])


def parse(table: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A recipe from a table as TOML gives it.

    Raises:
        RecipeError: with every unknown, missing or bad key of the table.
    """
    errors: list[str] = []
    if not isinstance(table, dict):
        table = {}
        errors.append("it is no table")
    recipe = _build(Recipe, table, "", errors)
    if not errors:
        errors += _conflicts(recipe)
    if errors:
        raise RecipeError(
            f"{origin} has {len(errors)} mistake(s):\n    " + listed(errors),
            expected="the keys of train/recipe.py",
            hint="correct the keys named above; train/recipes/ has working examples",
        )
    assert isinstance(recipe, Recipe)
    return recipe


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file as a table.

    Raises:
        RecipeError: missing, or not TOML.
    """
    return read_toml(path, _KIND)


def read(path: Path) -> Recipe:
    """A recipe from a TOML file.

    Raises:
        RecipeError: missing, not TOML, or wrong keys.
    """
    return parse(read_table(path), str(path))


def as_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dictionaries, for a checkpoint or a card."""
    return dataclasses.asdict(recipe)
