"""Counting what came of the cases."""

from __future__ import annotations

from collections.abc import Iterable

from tests.attacks.kind import (
    CHANGED,
    CRASH,
    EQUAL,
    FAULTS,
    HANG,
    MESSAGE,
    SILENT,
    TRACEBACK,
    UNCLEAN,
    WARNED,
)
from tests.attacks.worker import Result

_COLUMNS = {
    "messages": MESSAGE,
    "warnings": WARNED,
    "equal result": EQUAL,
    "another valid input": CHANGED,
    "tracebacks": TRACEBACK,
    "hangs": HANG,
    "crashes": CRASH,
    "silent": SILENT,
    "unclean": UNCLEAN,
}


def counts(results: Iterable[Result]) -> dict[str, dict[str, int]]:
    """For each kind how many cases there were, and how many of each verdict."""
    found: dict[str, dict[str, int]] = {}
    for result in results:
        its = found.setdefault(result.kind, {"cases": 0, **dict.fromkeys(_COLUMNS, 0)})
        its["cases"] += 1
        its[next(name for name, v in _COLUMNS.items() if v == result.verdict)] += 1
    return found


def markdown(results: Iterable[Result], minutes: float) -> str:
    """The counts as a Markdown table, with their sum."""
    by_kind = counts(results)
    names = ["cases", *_COLUMNS]
    by_kind["all"] = {name: sum(its[name] for its in by_kind.values()) for name in names}
    lines = [f"| kind | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for kind, its in by_kind.items():
        lines.append(f"| {kind} | {' | '.join(f'{its[name]:,}' for name in names)} |")
    return "\n".join([*lines, "", f"{minutes:.1f} minutes.", ""])


def line(result: Result) -> str:
    """One fault in one line."""
    return (
        f"{result.verdict}: --kind {result.kind} --case {result.case}: {result.why} [{result.fed}]"
    )


__all__ = ["FAULTS", "counts", "line", "markdown"]
