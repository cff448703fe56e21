"""Timing something over and over, so that the figures can be believed.

What is timed must have ended when the callable returns: one that works on a device synchronises
with it first. After a warm-up that lasts until the times no longer fall, the same thing is timed
in several rounds; when several things are compared, the rounds take turns, so that a machine that
slows down slows all of them down. What the rounds agree on is said with an interval, and a machine
on which they do not agree is called too noisy (`Timing.noisy`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_restore.pipeline.latency import fewest_samples

ROUNDS = 3
"""In how many rounds everything is timed."""

FEWEST = fewest_samples()
"""Samples over all rounds: those that MLPerf's 90th percentile takes, 64."""

CONFIDENCE = 0.95
"""Of an interval around a median."""

NOISY = 0.05
"""Relative width of that interval, to either side, from which on a machine is too noisy."""

_WINDOW = (2, 5)
"""Calls, fewest and most, that a warm-up's end is judged by; about a second of them."""

_STABLE = 0.03
_RESAMPLES = 2000

Times = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Timing:
    """How long one thing took, each time.

    Attributes:
        rounds_ms: the times of each round in milliseconds, in order.
        warm_up: how many calls went before.
        settled: whether the times had stopped falling when the warm-up ended.
    """

    rounds_ms: tuple[tuple[float, ...], ...]
    warm_up: int
    settled: bool

    @property
    def samples_ms(self) -> list[float]:
        """All times, round after round."""
        return [sample for one in self.rounds_ms for sample in one]

    @property
    def median_ms(self) -> float:
        """Of all times."""
        return float(np.median(self.samples_ms))

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Where the median lies, see `interval`."""
        return interval(self.rounds_ms)

    @property
    def noisy(self) -> bool:
        """Whether the rounds disagree by more than a figure may."""
        low, high = self.interval_ms
        return max(self.median_ms - low, high - self.median_ms) > NOISY * self.median_ms


def measure(
    things: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    samples: int = FEWEST,
    max_seconds: float = 60.0,
    after: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time several things in turns.

    Args:
        things: what to call, by name; each has ended its work when it returns.
        rounds: two or more.
        samples: of each thing over all rounds, unless the time runs out.
        max_seconds: for each thing, warm-up and at least one sample in each round aside.
        after: what follows each call of the thing of that name, when the clock has stopped.
        clock: nanoseconds.

    Returns:
        A timing for each, under its name.
    """
    once = {
        name: _stopwatch(thing, (after or {}).get(name), clock) for name, thing in things.items()
    }
    warmed = {name: _warm_up(one, max_seconds / 4, clock) for name, one in once.items()}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, one in once.items():
            limit = max_seconds / rounds
            times[name].append(_round(one, -(-samples // rounds), limit, clock))
    return {name: Timing(tuple(times[name]), *warmed[name]) for name in things}


def interval(
    rounds: Sequence[Sequence[float]], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Where the median lies, by the bootstrap: (low, high) in milliseconds.

    Rounds are drawn again with replacement, and blocks of neighbouring times within each (a block
    is as long as the square root of a round): times that follow each other are alike, and rounds
    differ by more than their samples tell. The percentile interval of the medians is widened to
    the rounds' own medians, because three rounds drawn from three seldom show how far apart they
    are.

    Args:
        rounds: times in milliseconds, one or more in each.
        confidence: of the interval.
    """
    random = np.random.default_rng(0)
    arrays = [np.asarray(one, np.float64) for one in rounds]
    medians = [_resampled(arrays, random) for _ in range(_RESAMPLES)]
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(medians, q)) for q in (tail, 1 - tail))
    own = [float(np.median(one)) for one in arrays]
    return min(low, *own), max(high, *own)


def ratio_interval(
    slower: Timing, faster: Timing, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """How many times faster one is than the other: (ratio of medians, low, high).

    Both were timed in turns, so each round of one is drawn together with the same round of the
    other: what slowed both cancels.
    """
    random = np.random.default_rng(0)
    left = [np.asarray(one, np.float64) for one in slower.rounds_ms]
    right = [np.asarray(one, np.float64) for one in faster.rounds_ms]
    ratios = []
    for _ in range(_RESAMPLES):
        chosen = random.integers(0, len(left), len(left))
        a = np.concatenate([_blocks(left[i], random) for i in chosen])
        b = np.concatenate([_blocks(right[i], random) for i in chosen])
        ratios.append(float(np.median(a) / np.median(b)))
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(ratios, q)) for q in (tail, 1 - tail))
    own = [float(np.median(a) / np.median(b)) for a, b in zip(left, right, strict=True)]
    return slower.median_ms / faster.median_ms, min(low, *own), max(high, *own)


def _warm_up(
    once: Callable[[], float], max_seconds: float, clock: Callable[[], int]
) -> tuple[int, bool]:
    """Call until the best of a window is no longer better than the best before it."""
    started, times = clock(), [once() for _ in range(2)]
    while True:
        window = min(max(round(1000 / max(min(times), 1e-6)), _WINDOW[0]), _WINDOW[1])
        if len(times) >= 2 * window:
            before, now = min(times[:-window]), min(times[-window:])
            if now > before * (1 - _STABLE):
                return len(times), True
        if (clock() - started) / 1e9 > max_seconds:
            return len(times), False
        times.append(once())


def _round(
    once: Callable[[], float], samples: int, limit: float, clock: Callable[[], int]
) -> tuple[float, ...]:
    started = clock()
    times: list[float] = []
    while len(times) < samples:
        times.append(once())
        if (clock() - started) / 1e9 > limit:
            break
    return tuple(times)


def _stopwatch(
    thing: Callable[[], object], after: Callable[[], object] | None, clock: Callable[[], int]
) -> Callable[[], float]:
    """What calls the thing once and says how long it took, in milliseconds."""

    def once() -> float:
        started = clock()
        thing()
        taken = (clock() - started) / 1e6
        if after is not None:
            after()
        return taken

    return once


def _resampled(arrays: Sequence[Times], random: np.random.Generator) -> float:
    chosen = random.integers(0, len(arrays), len(arrays))
    return float(np.median(np.concatenate([_blocks(arrays[i], random) for i in chosen])))


def _blocks(times: Times, random: np.random.Generator) -> Times:
    """As many times as given, in blocks drawn from them."""
    length = max(1, round(len(times) ** 0.5))
    starts = random.integers(0, len(times) - length + 1, -(-len(times) // length))
    return np.concatenate([times[s : s + length] for s in starts])[: len(times)]
