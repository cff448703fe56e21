"""Warm-up, turns, intervals and what is called noisy, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import numpy as np
import pytest

from edge_restore.bench import timing
from edge_restore.bench.timing import Timing, interval, measure, ratio_interval


class Clock:
    """Nanoseconds that pass only while something runs."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def __call__(self) -> int:
        return self.now

    def task(self, name: str, milliseconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now += round(next(milliseconds) * 1e6)

        return run


def test_the_warm_up_ends_when_times_stop_falling() -> None:
    clock = Clock()
    falling = chain([90.0, 60.0, 50.0, 40.0, 30.0, 20.0, 15.0, 12.0, 11.0, 10.0], repeat(10.0))
    found = measure({"a": clock.task("a", falling)}, samples=9, clock=clock)["a"]
    assert found.settled and 10 < found.warm_up < 30
    assert set(found.samples_ms) == {10.0} and len(found.samples_ms) == 9


def test_slow_calls_need_few_to_warm_up() -> None:
    clock = Clock()
    slow = chain([2000.0, 1000.0], repeat(900.0))
    found = measure({"a": clock.task("a", slow)}, samples=3, clock=clock)["a"]
    assert found.settled and found.warm_up == 5


def test_a_warm_up_without_end_is_told() -> None:
    clock = Clock()
    falling = (1000 * 0.9**n for n in range(10_000))
    found = measure({"a": clock.task("a", falling)}, max_seconds=8, clock=clock)["a"]
    assert not found.settled


def test_what_follows_a_call_is_not_in_its_time() -> None:
    clock = Clock()
    ask, wait = clock.task("ask", repeat(1.0)), clock.task("wait", repeat(70.0))
    found = measure({"a": ask}, samples=9, after={"a": wait}, clock=clock)["a"]
    assert set(found.samples_ms) == {1.0}
    assert clock.log[:4] == ["ask", "wait"] * 2
    assert clock.log.count("wait") == clock.log.count("ask") == 9 + found.warm_up


def test_things_take_turns() -> None:
    clock = Clock()
    things = {name: clock.task(name, repeat(5.0)) for name in "ab"}
    found = measure(things, rounds=3, samples=6, clock=clock)
    warm = sum(one.warm_up for one in found.values())
    assert "".join(clock.log[warm:]) == "aabbaabbaabb"
    assert [len(one) for one in found["a"].rounds_ms] == [2, 2, 2]


def test_the_time_limit_leaves_one_sample_a_round() -> None:
    clock = Clock()
    found = measure({"a": clock.task("a", repeat(4000.0))}, max_seconds=3, clock=clock)["a"]
    assert [len(one) for one in found.rounds_ms] == [1, 1, 1] and not found.settled


def quiet(level: float, seed: int, count: int = 30) -> tuple[float, ...]:
    random = np.random.default_rng(seed)
    return tuple(float(t) for t in level + random.gamma(2, 0.01 * level, count))


def test_rounds_that_agree_are_not_noisy() -> None:
    found = Timing((quiet(100, 0), quiet(100, 1), quiet(100, 2)), 10, True)
    low, high = found.interval_ms
    assert low <= found.median_ms <= high and high - low < 2 and not found.noisy


def test_rounds_that_disagree_are_noisy() -> None:
    found = Timing((quiet(100, 0), quiet(125, 1), quiet(100, 2)), 10, True)
    assert found.noisy and found.interval_ms[1] > 124


def test_the_interval_holds_each_rounds_own_median() -> None:
    rounds = (quiet(100, 0), quiet(103, 1), quiet(106, 2))
    low, high = interval(rounds)
    for one in rounds:
        assert low <= np.median(one) <= high


def test_the_interval_covers_the_true_median() -> None:
    """Of independent times in equal rounds, in at least 95 of 100 cases."""
    true, hits = 100 + np.median(np.random.default_rng(9).gamma(2, 1.0, 200_000)), 0
    for seed in range(40):
        low, high = interval([quiet(100, 100 * seed + n) for n in range(3)])
        hits += low <= true <= high
    assert hits >= 36


def test_slow_neighbours_in_time_widen_the_interval() -> None:
    """Times that come in slow and fast stretches tell less than as many independent ones."""
    stretches = tuple([100.0] * 15 + [110.0] * 15)
    mixed = tuple([100.0, 110.0] * 15)
    wide, narrow = (interval([one] * 3) for one in (stretches, mixed))
    assert wide[1] - wide[0] >= narrow[1] - narrow[0]
    assert wide == pytest.approx((100.0, 110.0))


def test_a_ratio_forgets_what_slowed_both() -> None:
    slow = Timing((quiet(200, 0), quiet(300, 1), quiet(200, 2)), 5, True)
    fast = Timing((quiet(100, 3), quiet(150, 4), quiet(100, 5)), 5, True)
    ratio, low, high = ratio_interval(slow, fast)
    assert ratio == pytest.approx(2, rel=0.03) and 1.9 < low <= ratio <= high < 2.1
    assert slow.noisy and fast.noisy


def test_what_is_timed_really_runs() -> None:
    """On the real clock: a busy loop of a known share is told apart."""
    data = np.random.default_rng(0).normal(size=(120, 120))
    found = measure(
        {"one": lambda: data @ data, "four": lambda: [data @ data for _ in range(8)]}, samples=60
    )
    assert found["four"].median_ms > 2 * found["one"].median_ms > 0
    assert timing.FEWEST == 64
