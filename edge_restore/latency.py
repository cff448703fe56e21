"""Percentiles of measured times, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Percentiles:
    """Times of one stage, in milliseconds; all zero when `count` is 0 (nothing was measured)."""

    p50: float
    p90: float
    p99: float
    mean: float
    count: int


def percentiles(samples_ms: Sequence[float]) -> Percentiles:
    """The 50th, 90th and 99th percentile of `samples_ms` by nearest rank, and their mean.

    Nearest rank: the p-th percentile of n samples is the ceil(p/100 * n)-th smallest. It is
    always a time that was really measured, never one interpolated between two; with fewer than
    100 samples p99 is the greatest.
    """
    if not samples_ms:
        return Percentiles(0.0, 0.0, 0.0, 0.0, 0)
    ordered = sorted(samples_ms)

    def rank(percent: int) -> float:
        return ordered[-(-percent * len(ordered) // 100) - 1]

    return Percentiles(
        p50=rank(50),
        p90=rank(90),
        p99=rank(99),
        mean=math.fsum(ordered) / len(ordered),
        count=len(ordered),
    )


def table(stages: Mapping[str, Sequence[float]]) -> str:
    """One line per stage with its percentiles, as plain text.

    Args:
        stages: name of each stage and its times in milliseconds, one per frame, as
            `pipeline.StreamResult.stages` holds them.
    """
    lines = [f"{'stage':<10}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'mean ms':>10}{'frames':>8}"]
    for name, samples in stages.items():
        p = percentiles(samples)
        times = "".join(f"{value:>10.2f}" for value in (p.p50, p.p90, p.p99, p.mean))
        lines.append(f"{name:<10}{times}{p.count:>8}")
    return "\n".join(lines)
