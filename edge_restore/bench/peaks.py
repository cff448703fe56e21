"""What a processor can do at best: operations a second and bytes a second, measured in seconds.

On a CPU: a large matrix product and a stream triad (McCalpin's STREAM: a = b + s * c), both by
numpy, whose BLAS uses every core. Where OpenVINO is installed its product counts when it is faster,
and it gives those in bfloat16 and in 8 bits, which numpy has not. The best of several runs counts:
a peak is what was reached, and noise only takes away from it. What cannot be measured here is None,
never guessed. `gpu_peaks` is for GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_restore.errors import BackendError, DependencyError

SIDE = 2048
"""Rows and columns of the matrices: 17 GFLOP a product."""

TRIAD_NUMBERS = 1 << 24
"""float32 in each of the three arrays: 64 MiB, beyond the caches."""

_SECONDS = 1.5


@dataclass(frozen=True)
class Peaks:
    """Of one processor; None where unknown.

    Attributes:
        name: of the processor.
        source: how the figures came about, in words.
        fp32: operations a second in float32; a multiply-accumulate is two.
        fp16: in FP16 or, on a CPU, in bfloat16.
        int8: of 8-bit integers.
        bandwidth: bytes a second between memory and processor.
    """

    name: str
    source: str
    fp32: float | None
    fp16: float | None
    int8: float | None
    bandwidth: float | None

    def operations(self, precision: str) -> float | None:
        """Of "fp32", "fp16", "bf16" or "int8"."""
        return {"fp32": self.fp32, "fp16": self.fp16, "bf16": self.fp16, "int8": self.int8}[
            precision
        ]


def of_this_cpu(name: str) -> Peaks:
    """Measure the processors that this process may use; takes a few seconds."""
    return Peaks(
        name=name,
        source=f"measured here: products of {SIDE}x{SIDE} matrices, triad of 3 x "
        f"{TRIAD_NUMBERS * 4 >> 20} MiB",
        fp32=max(_product(), _openvino_product("fp32") or 0.0),
        fp16=_openvino_product("bf16"),
        int8=_openvino_product("int8"),
        bandwidth=_triad(),
    )


def _product() -> float:
    random = np.random.default_rng(0)
    a, b = (random.random((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2.0 * SIDE**3 / best_seconds(lambda: np.matmul(a, b, out=out))


def _openvino_product(precision: str) -> float | None:
    """Operations a second of OpenVINO's product; None without it, or without that precision."""
    from edge_restore.backends import openvino

    try:
        if precision == "bf16" and not openvino.has_bfloat16():
            return None
        multiply = openvino.product(SIDE, precision)
    except (DependencyError, BackendError):
        return None
    return 2.0 * SIDE**3 / best_seconds(multiply)


def _triad() -> float:
    """One thread fills most of the channels of small machines; numpy has no parallel loop.

    numpy writes the product of the sum first, so five arrays pass and not the three of the formula.
    """
    b, c = np.ones(TRIAD_NUMBERS, np.float32), np.ones(TRIAD_NUMBERS, np.float32)
    a = np.empty_like(b)

    def triad() -> None:
        np.multiply(c, np.float32(3), out=a)
        np.add(a, b, out=a)

    return 5.0 * 4 * TRIAD_NUMBERS / best_seconds(triad)


def best_seconds(work: Callable[[], object]) -> float:
    """The least time of one call, in seconds, of as many as fit into a second and a half."""
    end = time.perf_counter() + _SECONDS
    best = float("inf")
    while time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
