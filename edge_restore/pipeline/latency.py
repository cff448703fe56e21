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


CONFIDENCE = 0.99
"""Of `upper_bound`, as MLPerf has it."""


def fewest_samples(share: float = 0.9, beyond: int = 1, confidence: float = CONFIDENCE) -> int:
    """So many samples does it take until `upper_bound` can leave out the `beyond - 1` greatest.

    64 for the 90th percentile and 662 for the 99th, as in MLPerf's rules.
    """
    low, high = beyond, beyond
    while _chance_of_at_most(beyond, high, 1 - share) > 1 - confidence:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if _chance_of_at_most(beyond, middle, 1 - share) > 1 - confidence:
            low = middle + 1
        else:
            high = middle
    return high


def upper_bound(
    samples_ms: Sequence[float], share: float = 0.9, confidence: float = CONFIDENCE
) -> float | None:
    """A time that the true percentile does not exceed, with this confidence; None for too few.

    MLPerf Inference's early stopping: the t-th greatest of n samples, t the largest number for
    which at most t of n fall beyond the true percentile with a chance of no more than
    1 - `confidence`. So a run of 64 frames may state its 90th percentile, by its greatest time.

    Args:
        samples_ms: independent times of one thing, in milliseconds.
        share: of the percentile: 0.9 for a single stream.
        confidence: that the percentile is not greater than what is returned.
    """
    count = len(samples_ms)
    beyond = 0
    while _chance_of_at_most(beyond + 1, count, 1 - share) <= 1 - confidence:
        beyond += 1
    return sorted(samples_ms)[-beyond] if beyond else None


def _chance_of_at_most(hits: int, count: int, chance: float) -> float:
    """Of so many hits or fewer in `count` independent trials (the binomial distribution)."""
    if hits >= count:
        return 1.0
    total = 0.0
    for k in range(hits + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(ways + k * math.log(chance) + (count - k) * math.log1p(-chance))
    return total
