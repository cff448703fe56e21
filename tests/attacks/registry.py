"""The kinds of input by their names."""

from __future__ import annotations

import importlib

from tests.attacks.kind import Kind

MODULES = {
    "card": "card",
    "cache": "cache",
    "manifest": "manifest",
    "report_json": "report_json",
    "options": "options",
    "video": "video",
    "picture": "picture",
    "onnx": "onnx_model",
    "lpips": "lpips",
    "scales": "scales",
    "calibration_set": "calibration_set",
    "pack": "pack",
    "recipe": "recipe",
    "weights": "weights",
}
"""Those that need torch come last: a worker that has imported it takes longer to fork."""

WEIGHTS = {"pack": 0.5, "recipe": 0.7, "weights": 0.5, "lpips": 0.6}
"""How many cases a kind gets beside the others' 1: fewer where one takes longer."""

COSTS = {
    "card": (3, 0.06), "cache": (1, 0.06), "manifest": (1, 0.03), "report_json": (2, 0.2),
    "options": (20, 0.1), "video": (6, 0.13), "picture": (15, 0.08), "onnx": (4, 0.1),
    "lpips": (3, 0.4), "scales": (5, 0.06), "calibration_set": (5, 0.06), "pack": (7, 0.2),
    "recipe": (8, 0.1), "weights": (10, 0.25),
}  # fmt: skip
"""About how many seconds the sound inputs of a kind take, and one case, to share out the work."""


def names() -> list[str]:
    """All kinds, in the order in which a worker runs them."""
    return list(MODULES)


def find(name: str) -> type[Kind]:
    """The class of a kind."""
    module = importlib.import_module(f"tests.attacks.{MODULES[name]}")
    found: type[Kind] = module.KIND
    return found


def shares(cases: int, chosen: list[str]) -> dict[str, int]:
    """How many of the cases each of the chosen kinds gets; together exactly `cases`."""
    total = sum(WEIGHTS.get(name, 1.0) for name in chosen)
    found = {name: int(cases * WEIGHTS.get(name, 1.0) / total) for name in chosen}
    found[chosen[0]] += cases - sum(found.values())
    return found


def jobs(shares: dict[str, int], workers: int) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """For each worker the kinds that it runs, and which numbers of their cases.

    The sound inputs of a kind are made by each worker that runs it: so few do as suffice.
    """
    parts = -(-workers // len(shares))
    pieces = []
    for name, count in shares.items():
        once, each = COSTS.get(name, (5, 0.1))
        for part in range(parts):
            pieces.append((once + each * count / parts, name, (part, count, parts)))
    found: list[list[tuple[str, tuple[int, int, int]]]] = [[] for _ in range(workers)]
    load = [0.0] * workers
    for cost, name, numbers in sorted(pieces, reverse=True):
        least = load.index(min(load))
        load[least] += cost
        found[least].append((name, numbers))
    order = list(MODULES)
    return [sorted(its, key=lambda job: order.index(job[0])) for its in found]
