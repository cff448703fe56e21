"""Percentiles by nearest rank."""

from __future__ import annotations

import random

import pytest

from edge_restore.latency import Percentiles, percentiles, table


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
