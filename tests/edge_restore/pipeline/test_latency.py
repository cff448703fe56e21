"""Percentiles by nearest rank."""

from __future__ import annotations

import math
import random

import pytest

from edge_restore.pipeline.latency import (
    Percentiles,
    fewest_samples,
    percentiles,
    table,
    upper_bound,
)


def test_hundred_samples_give_their_own_rank() -> None:
    samples = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(samples)
    assert percentiles(samples) == Percentiles(p50=50, p90=90, p99=99, mean=50.5, count=100)


def test_a_percentile_is_a_sample_never_between_two() -> None:
    p = percentiles([1.0, 2.0, 3.0, 10.0])
    assert (p.p50, p.p90, p.p99) == (2.0, 10.0, 10.0)
    assert p.mean == pytest.approx(4.0)


def test_nearest_rank_of_eleven() -> None:
    p = percentiles([float(n) for n in range(11)])
    assert (p.p50, p.p90, p.p99) == (5.0, 9.0, 10.0)  # ranks 6, 10, 11


def test_one_sample_is_every_percentile() -> None:
    assert percentiles([7.5]) == Percentiles(7.5, 7.5, 7.5, 7.5, 1)


def test_nothing_measured() -> None:
    assert percentiles([]).count == 0


def test_samples_are_left_in_order() -> None:
    samples = [3.0, 1.0, 2.0]
    percentiles(samples)
    assert samples == [3.0, 1.0, 2.0]


def test_table_has_a_line_for_each_stage() -> None:
    lines = table({"decode": [1.0, 2.0], "total": []}).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["decode", "1.00", "2.00", "2.00", "1.50", "2"]
    assert lines[2].split()[-1] == "0"
    assert len({len(line) for line in lines}) == 1


def test_mlperf_numbers_of_samples() -> None:
    assert (fewest_samples(0.9), fewest_samples(0.99)) == (64, 662)
    assert fewest_samples(0.9, beyond=2) > 64


def test_the_bound_is_the_greatest_until_there_are_more() -> None:
    assert upper_bound([float(n) for n in range(63)]) is None
    assert upper_bound([float(n) for n in range(64)]) == 63
    second = fewest_samples(beyond=2)
    assert upper_bound([float(n) for n in range(second)]) == second - 2
    assert upper_bound([float(n) for n in range(second - 1)]) == second - 2
    assert upper_bound([]) is None


def test_the_bound_is_below_the_true_percentile_at_most_once_in_a_hundred() -> None:
    generator = random.Random(0)
    true = -math.log(0.1)  # of the exponential distribution
    runs = [[generator.expovariate(1) for _ in range(150)] for _ in range(2000)]
    bounds = [upper_bound(run) for run in runs]
    missed = sum(bound is not None and bound < true for bound in bounds)
    assert missed <= 20
    assert min(bound for bound in bounds if bound is not None) < true  # and it is not idle
