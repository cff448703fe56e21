"""Recipes: what `python -m train` makes of a TOML file that is damaged or asks for nonsense.

Silently wrong is a recipe that is accepted though Python's own reader refuses the file, or though
it holds a number that is negative or not finite; and a card that says another value than the recipe
does, or that no JSON reader takes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate, training
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_VALUES = (
    "0", "-1", "-0.0", "1", "1.5", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "true", '""',
    '"x"', '"../../etc/passwd"', "[]", "{}", "[1, 2]", "9223372036854775807",
    "-9223372036854775808", "18446744073709551616", "9" * 5000, "1979-05-27", "07:32:00",
    '"\\u0000"', '"\\u001b[31m"', "0x7fffffff", "2147483648", "1e30",
)  # fmt: skip
_PLACES = (
    ("", "recipe"), ("data", "data"), ("optimiser", "optimiser"), ("loss", "loss"),
    ("validation", "validation"), ("blur", "blur"), ("noise", "noise"), ("rain", "rain"),
    ("compression", "compression"), ("arguments", "arguments"),
)  # fmt: skip


class RecipeKind(Kind):
    """See the module."""

    name = "recipe"
    imports = ("numpy", "cv2", "torch", "safetensors.torch")

    def make(self) -> None:
        training.make(self.corpus)

    def measure(self, sandbox: Sandbox) -> None:
        def attack(work: Path) -> Attack:
            corpus.link(self.corpus / "recipe.toml", work / "r.toml")
            return self._command("nothing")

        corpus.sound_run(self.name, attack, sandbox)
        self.keys = sandbox.call(_keys)

    def attack(self, rng: random.Random, work: Path) -> Attack:
        if rng.random() < 0.02:
            fed = f"a {corpus.odd_file(rng, work / 'r.toml')}"
            return self._command(fed, lambda _: (SILENT, "read from no plain file"))
        how = rng.random()
        if how < 0.3:
            data, fed = mutate.damage(training.RECIPE.encode(), rng)
        elif how < 0.4:
            data, fed = _text(rng)
        else:
            data, fed = self._values(rng)
        (work / "r.toml").write_bytes(data)
        return self._command(fed, self._judge)

    def _values(self, rng: random.Random) -> mutate.Damage:
        """One or two keys of the recipe with values that they should not have."""
        table = tomllib.loads(training.RECIPE)
        lines: dict[str, dict[str, str]] = {"": {}}
        for key, value in table.items():
            if isinstance(value, dict) and key != "arguments":
                lines[key] = {name: json.dumps(its) for name, its in value.items()}
            elif key != "arguments":
                lines[""][key] = json.dumps(value)
        lines["arguments"] = {"width": "4"}
        said = []
        for _ in range(rng.choice((1, 1, 1, 2))):
            where, keys = rng.choice(list(self.keys.items()))
            key = rng.choice(keys if rng.random() < 0.95 else ["unknown", "__class__"])
            value = rng.choice(_VALUES)
            lines.setdefault(where, {})[key] = value
            said.append(f"{where}.{key} = {value[:30]}")
        text = ""
        for where, its in lines.items():
            text += f"[{where}]\n" if where else ""
            text += "".join(f"{key} = {value}\n" for key, value in its.items())
        return text.encode(), "; ".join(said)

    def _command(self, fed: str, judge: Any = None) -> Attack:
        data = str(self.corpus / "pack.npz")
        words = ["run", "r.toml", "--data", data, "--out", "run", *training.WORDS, "0.002"]
        return Attack("train", words, fed, judge, outputs=("run",))

    def _judge(self, outcome: Outcome) -> Verdict:
        try:
            given = tomllib.loads((outcome.work / "r.toml").read_text(encoding="utf-8-sig"))
        except ValueError as error:
            return SILENT, f"Python's own reader refuses it: {error}"
        cards = list((outcome.work / "run").glob("*.card.json"))
        if len(cards) != 1:
            return SILENT, f"{len(cards)} cards were written"
        try:
            card = json.loads(cards[0].read_bytes(), parse_constant=_refuse)
        except ValueError as error:
            return SILENT, f"the card is none: {error}"
        if problem := _differs(given, card["recipe"], ""):
            return SILENT, problem
        same = given == tomllib.loads(training.RECIPE)
        return (EQUAL if same else CHANGED), ""


def _keys() -> dict[str, list[str]]:
    """The keys of a recipe by table, "" for its top."""
    from typing import get_type_hints

    from train.recipe import Recipe

    hints = get_type_hints(Recipe)
    found = {"": [f.name for f in dataclasses.fields(Recipe)], "arguments": ["width", "blocks"]}
    for name, kind in hints.items():
        if dataclasses.is_dataclass(kind):
            found[name] = [f.name for f in dataclasses.fields(kind)]
            found[""].remove(name)
    return found


def _differs(given: Any, kept: Any, where: str) -> str:
    """What of the given recipe the card does not say, or what nobody could mean."""
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return f"{where} is no table in the card"
        for key, value in given.items():
            if key not in kept:
                return f"the key {where}{key} was passed over"
            if problem := _differs(value, kept[key], f"{where}{key}."):
                return problem
        return ""
    if isinstance(given, int | float) and not isinstance(given, bool):
        if not math.isfinite(given) or given < 0:
            return f"{where} is {given}"
        if abs(given) > 1e18:
            return f"{where} is {given:g}"
        return "" if kept == given else f"{where} is {kept} in the card"
    if isinstance(given, list):
        return "" if list(given) == kept else f"{where} is {kept} in the card"
    return "" if kept == given else f"{where} is {kept} in the card"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _text(rng: random.Random) -> mutate.Damage:
    """TOML that is odd as a text."""
    plain = training.RECIPE
    depth = rng.choice((100, 5000, 100_000))
    name, text = rng.choice(
        (
            ("nested lists", f"seed = {'[' * depth}{']' * depth}\n{plain}"),
            ("nested tables", f"{plain}[a{'.a' * depth}]\nx = 1\n"),
            ("inline tables", f"x = {'{a = ' * depth}1{'}' * depth}\n{plain}"),
            ("a key twice", f'network = "lmfn"\n{plain}'),
            ("a table twice", f"{plain}[data]\npatch = 32\n"),
            ("a BOM", f"\ufeff{plain}"),
            ("CRLF", plain.replace("\n", "\r\n")),
            ("NUL", plain.replace("\n", "\0\n", 1)),
            ("an unclosed string", plain.replace('"lmfn"', '"lmfn')),
            ("comments", f"# {'x' * 1_000_000}\n{plain}"),
            ("a dotted key", plain.replace("[data]\npatch", "[data]\na.b.c = 1\npatch")),
            (
                "another network",
                plain.replace('"lmfn"', rng.choice(('"svdn "', '"nope"', '"__init__"', '"os"'))),
            ),
        )
    )
    if rng.random() < 0.2:
        return text.encode("utf-16"), f"{name}, UTF-16"
    return text.encode("utf-8"), f"{name} {depth}" if name.startswith(
        ("nested", "inline")
    ) else name


KIND = RecipeKind
