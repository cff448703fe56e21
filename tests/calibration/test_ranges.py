"""Thresholds and scales from histograms."""

import numpy as np
import pytest

from calibration import ranges
from calibration.ranges import BINS, LEVELS, Histogram, scale, threshold
from edge_restore.errors import OptionError


def histogram(values):
    values = np.asarray(values, np.float32)
    made = Histogram.empty(float(np.abs(values).max()))
    made.add(values)
    return made


def rounding_error(values, limit):
    step = limit / LEVELS
    kept = np.clip(np.rint(values / step), -LEVELS, LEVELS) * step
    return np.square(values - kept).mean()


def test_values_are_counted_by_magnitude():
    made = histogram([-2.0, 2.0, 0.0, 1.0])
    assert made.counts.sum() == 4 and made.counts[-1] == 2
    assert made.counts[0] == 1 and made.counts[BINS // 2] == 1
    assert made.centres[0] == pytest.approx(1 / BINS)


def test_minmax_is_the_greatest():
    assert threshold(histogram([-3.0, 1.0]), "minmax") == 3.0


def test_percentile_leaves_so_many_out():
    made = histogram(np.linspace(-1, 1, 20001))
    assert threshold(made, "percentile", 90.0) == pytest.approx(0.9, abs=1e-3)
    assert threshold(made, "percentile", 100.0) == pytest.approx(1.0)


def test_mse_is_the_best_of_all_thresholds():
    random = np.random.default_rng(0)
    values = np.append(random.normal(0, 1, 200_000), 30.0).astype(np.float32)
    found = threshold(histogram(values), "mse")
    assert 3 < found < 15
    tried = np.linspace(0.2, 1, 40) * 30
    best = min(rounding_error(values, limit) for limit in tried)
    assert rounding_error(values, found) <= best * 1.02


def test_relative_to_its_power_a_loud_frame_does_not_decide_alone():
    random = np.random.default_rng(1)
    quiet, loud = (random.normal(0, sigma, 20000).astype(np.float32) for sigma in (1.0, 30.0))
    limits = []
    for relative in (False, True):
        both = Histogram.empty(float(np.abs(loud).max()))
        for _ in range(8):
            both.add(quiet, relative=relative)
        both.add(loud, relative=relative)
        limits.append(threshold(both, "mse"))
    assert limits[1] < 0.8 * limits[0]
    counted = 8 * quiet.size / np.square(quiet).mean() + loud.size / np.square(loud).mean()
    assert both.counts.sum() == pytest.approx(counted, rel=1e-4)
    silent = Histogram.empty(1.0)
    silent.add(np.zeros(4, np.float32), relative=True)
    assert silent.counts.sum() == 0


def test_mse_keeps_what_is_spread_evenly():
    assert threshold(histogram(np.linspace(-1, 1, 100_001)), "mse") > 0.98


def test_entropy_cuts_a_lonely_outlier_and_keeps_a_flat_distribution():
    random = np.random.default_rng(0)
    lonely = np.append(random.normal(0, 1, 200_000), 40.0)
    assert threshold(histogram(lonely), "entropy") < 20
    assert threshold(histogram(np.linspace(-1, 1, 100_001)), "entropy") > 0.9


def test_an_unknown_method_is_refused():
    with pytest.raises(OptionError, match="no calibration method 'max'"):
        threshold(histogram([1.0]), "max")


@pytest.mark.parametrize("limit", [1.0, 0.1, 300.0, 7.3e-5, 1e-9])
def test_a_scale_is_an_fp16_number_that_clips_nothing(limit):
    step = scale(limit)
    assert float(np.float16(step)) == step
    assert step * LEVELS >= limit and step >= ranges.SMALLEST_SCALE
    if limit > 0.01:
        assert step * LEVELS < limit * 1.002
