"""Recipe: everything that decides a training, read from a TOML file.

Unknown, missing and badly typed keys are collected and reported at once.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from edge_restore.errors import OptionError, RecipeError
from train.blur import BlurModel
from train.simulator.compression import CompressionModel
from train.simulator.degradation import TASKS, Degradation
from train.simulator.noise import NoiseModel
from train.simulator.rain import RainModel
from train.simulator.trajectories import TRAJECTORIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataRecipe:
    """Patches: `patch` pixels square, `batch` of them per step."""

    patch: int = 96
    batch: int = 8


@dataclass(frozen=True)
class OptimiserRecipe:
    """`algorithm`: "adam", or "muon": Muon for the kernels between features, Adam for the rest.

    `schedule`: "cosine" or "polynomial" (with `power`), from `rate` to `last_rate` over `steps`,
    after `warmup` steps of linear rise. `clip`: largest gradient norm, 0 for none. `ema`: decay of
    the averaged weights, which are the ones kept.
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
    warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 0.0
    offset_rate: float = 0.1
    offset_start: int = 0
    ema: float = 0.999


@dataclass(frozen=True)
class LossRecipe:
    """`kind`: "l2" (SVDN Eq. 8: half the mean squared error), "l1", "charbonnier" or "log_mse".

    `motion`: weight of the motion guidance (train/guidance.py), 0 for none. For the first
    `motion_first` steps it is the only loss; then the sampling points are laid along the motion
    that was learned, and the recipe's warm-up and offset start begin anew.
    """

    kind: str = "l2"
    epsilon: float = 1e-3
    motion: float = 0.0
    motion_first: int = 0


@dataclass(frozen=True)
class ValidationRecipe:
    """Every `every` steps, on `patches` fixed patches of `size` pixels square."""

    every: int = 500
    patches: int = 16
    size: int = 192


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
    "schedule": ("cosine", "polynomial"),
    "kind": ("l2", "l1", "charbonnier", "log_mse"),
}
_AT_LEAST_ONE = ("steps", "patch", "batch", "every", "patches", "size")


def _build(kind: type[Any], table: dict[str, Any], where: str, errors: list[str]) -> Any:
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key in sorted(table.keys() - known.keys()):
        errors.append(f"unknown key '{where}{key}' (known: {', '.join(known)})")
    for name, entry in known.items():
        required = (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        if name not in table:
            if required:
                errors.append(f"missing key '{where}{name}'")
            continue
        value, wanted = table[name], hints[name]
        if dataclasses.is_dataclass(wanted):
            if isinstance(value, dict):
                values[name] = _build(wanted, value, f"{where}{name}.", errors)  # type: ignore[arg-type]
            else:
                errors.append(f"'{where}{name}' is {value!r}, not a table")
            continue
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        wanted = dict if wanted == dict[str, Any] else wanted
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            errors.append(f"'{where}{name}' is {value!r}, not of type {wanted.__name__}")
        elif name in _CHOICES and value not in _CHOICES[name]:
            errors.append(f"'{where}{name}' is '{value}', not one of {', '.join(_CHOICES[name])}")
        elif name in _AT_LEAST_ONE and value < 1:
            errors.append(f"'{where}{name}' is {value}, not 1 or more")
        elif wanted is float and not value >= 0:
            errors.append(f"'{where}{name}' is {value}, not 0 or more")
        else:
            values[name] = value
    try:
        return None if errors else kind(**values)
    except OptionError as error:
        errors.append(f"'{where.rstrip('.')}': {error.found}; expected {error.expected}")
        return None


def parse(table: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A recipe from a table as TOML gives it.

    Raises:
        RecipeError: with every unknown, missing or bad key of the table.
    """
    errors: list[str] = []
    recipe = _build(Recipe, table, "", errors)
    if errors:
        raise RecipeError(
            f"{origin} has {len(errors)} mistake(s):\n    " + "\n    ".join(errors),
            expected="the keys of train/recipe.py",
            mend="correct the keys named above; train/recipes/ has working examples",
        )
    assert isinstance(recipe, Recipe)
    return recipe


def read(path: Path) -> Recipe:
    """A recipe from a TOML file.

    Raises:
        RecipeError: missing, not TOML, or wrong keys.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"recipe {path} cannot be read ({error})",
            expected="a TOML file such as those in train/recipes/",
            mend="check its path and its syntax",
        ) from error
    return parse(table, str(path))


def as_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dictionaries, for a checkpoint or a card."""
    return dataclasses.asdict(recipe)
