"""A process that runs its share of the cases, one after another, and prints a JSON line for each.

It must have no second thread when it forks: a child would inherit that one's locks, held.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.attacks import kind as kinds
from tests.attacks import registry
from tests.attacks.kind import Kind
from tests.attacks.sandbox import OutsideError, Sandbox, remove, snapshot, verdict

AFRESH = 400
"""Every so many cases one is run in a Python of its own, with what importing and ending bring."""


@dataclass(frozen=True)
class Result:
    """What came of one case; `fed` and `told` only where it is a fault or was asked for alone."""

    kind: str
    case: int
    verdict: str
    why: str = ""
    fed: str = ""
    command: tuple[str, ...] = ()
    told: str = ""
    seconds: float = 0.0


def prepared(name: str, sandbox: Sandbox) -> Kind:
    """The kind with its corpus made and measured."""
    kind = registry.find(name)
    for module in (*kind.imports, "edge_restore.cli"):
        importlib.import_module(module)
    corpus = sandbox.root / f"corpus-{name}-{os.getpid()}"
    corpus.mkdir()
    made = kind(corpus)
    sandbox.call(made.make, seconds=300.0)
    for path in (*corpus.rglob("*"), corpus):
        path.chmod(0o555 if path.is_dir() else 0o444)
    made.measure(sandbox)
    if len(threads := os.listdir("/proc/self/task")) != 1:
        raise RuntimeError(f"{len(threads)} threads before the first case of '{name}'")
    return made


def run_case(kind: Kind, number: int, seed: int, sandbox: Sandbox, *, keep: bool = False) -> Result:
    """Run one case; its seed depends on the kind and the number alone."""
    case = sandbox.root / f"{kind.name}-{number}"
    work = case / "work"
    work.mkdir(parents=True)
    attack = kind.attack(random.Random(f"{seed}/{kind.name}/{number}"), work)
    before = snapshot(work)
    try:
        outcome = sandbox.run(attack, case, afresh=number % AFRESH == AFRESH - 1)
        found, why = verdict(attack, outcome, before, sandbox)
    except OutsideError as error:
        raise RuntimeError(f"case {number} of {kind.name} reaches outside: {error}") from error
    told: dict[str, object] = {}
    if keep or found in kinds.FAULTS:
        told = {
            "fed": attack.fed,
            "command": (attack.program, *attack.arguments),
            "told": f"{outcome.out[-1500:]}\n{outcome.err[-3000:]}",
        }
    if not keep:
        remove(case)
    return Result(kind.name, number, found, why, seconds=round(outcome.seconds, 3), **told)  # type: ignore[arg-type]


def run_share(
    jobs: Sequence[tuple[str, Sequence[int]]], seed: int, sandbox: Sandbox
) -> Iterator[Result]:
    """The results of several kinds' cases, as they come."""
    for name, numbers in jobs:
        kind = prepared(name, sandbox)
        for number in range(*numbers):
            yield run_case(kind, number, seed, sandbox)


def main() -> None:
    """Read what to do as a JSON object from standard input; print results."""
    job = json.load(sys.stdin)
    sandbox = Sandbox(Path(job["root"]))
    results = run_share(job["jobs"], job["seed"], sandbox)
    # What a corpus's making or a judge prints must not get between the results.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for result in results:
        print(json.dumps(asdict(result)), file=channel, flush=True)


if __name__ == "__main__":
    main()
