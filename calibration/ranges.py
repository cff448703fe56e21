"""From what a tensor held to the range that its 8 bits cover.

Activations are quantised symmetrically in 255 levels, -127 to 127, with one scale for a tensor; so
all that is to be chosen is a threshold: what lies beyond it is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_restore.errors import OptionError

LEVELS = 127
"""The greatest level; -128 is not used, so that zero is in the middle."""

BINS = 4096
"""Of a histogram of magnitudes."""

METHODS = ("minmax", "entropy", "mse", "percentile")
PERCENTILE = 99.99
"""Of the magnitudes that the method "percentile" keeps."""

SMALLEST_SCALE = float(2.0**-14)
"""The smallest normal FP16: a scale below it would lose bits in an FP16 graph."""

_CANDIDATES = 96
"""Thresholds that are tried, from a fifth of the greatest magnitude to all of it."""

Counts = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Histogram:
    """How often which magnitude occurred: `BINS` bins from 0 to `greatest`."""

    greatest: float
    counts: Counts

    @classmethod
    def empty(cls, greatest: float) -> Histogram:
        """Without any value yet; none may lie beyond `greatest`."""
        return cls(greatest, np.zeros(BINS))

    def add(self, values: np.ndarray[Any, np.dtype[np.float32]], *, relative: bool = False) -> None:
        """Count the magnitudes of all values; `relative`: by one over their mean square each."""
        power = float(np.square(values, dtype=np.float64).mean()) if relative else 1.0
        weight = 1 / power if power else 0.0
        if self.greatest <= 0:
            self.counts[0] += values.size * weight
            return
        places = np.abs(values.reshape(-1)) * np.float32(BINS / self.greatest)
        bins = np.minimum(places.astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS) * weight

    @property
    def centres(self) -> Counts:
        """The magnitude in the middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.greatest / BINS), np.float64)


def threshold(histogram: Histogram, method: str, percentile: float = PERCENTILE) -> float:
    """The magnitude that level 127 stands for.

    - "minmax": the greatest that occurred.
    - "percentile": the one that `percentile` % of the magnitudes do not exceed. It clips what is
      bright by design, and so may darken a picture; the gate measures that.
    - "mse": the one with the least squared error, of rounding and of clipping; of a histogram that
      was counted relative to each frame's power, so that no frame of large values decides alone.
    - "entropy": the one with the least Kullback-Leibler divergence of what is left (Migacz, "8-bit
      inference with TensorRT", GTC 2017).

    Raises:
        OptionError: there is no such method, or no such percentile.
    """
    if method not in METHODS:
        raise OptionError(
            f"there is no calibration method '{method}'",
            expected=f"one of {', '.join(METHODS)}",
            hint="mse suits restoration; see docs/int8.md",
        )
    if method == "minmax" or histogram.greatest <= 0 or not histogram.counts.sum():
        return histogram.greatest
    if method == "percentile":
        if not 0 < percentile <= 100:  # also nan
            raise OptionError(
                f"a percentile of {percentile}",
                expected="above 0, up to 100",
                hint="99.99 keeps all but the rarest magnitudes",
            )
        shares = np.cumsum(histogram.counts) / histogram.counts.sum()
        last = int(np.searchsorted(shares, percentile / 100))
        return histogram.greatest * (min(last, BINS - 1) + 1) / BINS
    cost = _squared_error if method == "mse" else _divergence
    # Bins up to the threshold: never fewer than there are levels.
    tried = np.unique(np.linspace(BINS // 5, BINS, _CANDIDATES).astype(int))
    costs = [cost(histogram, int(bins)) for bins in tried]
    return histogram.greatest * int(tried[int(np.argmin(costs))]) / BINS


def scale(limit: float) -> float:
    """The step between two levels, for a threshold: an FP16 number, so that one scale suits all.

    It is rounded up, so that the threshold itself is never clipped.
    """
    step = max(limit / LEVELS, SMALLEST_SCALE)
    half = np.float16(step)
    if float(half) < step:
        half = np.nextafter(half, np.float16(np.inf))
    return float(half)


def _squared_error(histogram: Histogram, bins: int) -> float:
    x = histogram.centres
    step = histogram.greatest * bins / BINS / LEVELS
    kept = np.minimum(np.rint(x / step), LEVELS) * step
    return float((histogram.counts * np.square(x - kept)).sum())


def _divergence(histogram: Histogram, bins: int) -> float:
    """Of the clipped distribution from the one that 128 levels can tell."""
    reference = histogram.counts[:bins].copy()
    reference[-1] += histogram.counts[bins:].sum()
    edges = np.linspace(0, bins, LEVELS + 2).astype(int)
    counts = histogram.counts[:bins]
    sums = np.add.reduceat(counts, edges[:-1])
    filled = np.add.reduceat((counts > 0).astype(np.float64), edges[:-1])
    level = np.repeat(np.divide(sums, filled, where=filled > 0, out=np.zeros_like(sums)),
                      np.diff(edges))  # fmt: skip
    told = np.where(counts > 0, level, 0)
    p, q = reference / reference.sum(), told / max(told.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())
