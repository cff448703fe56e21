"""A GPU's peaks: the engines are really built, for a GPU that is not here; the run is simulated."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edge_restore.backends import cuda
from edge_restore.bench import gpu_peaks, peaks
from edge_restore.engine import flavour, product
from edge_restore.engine.flavour import Flavour
from tests.edge_restore import simulated_cuda
from tests.edge_restore.simulated_cuda import World


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    return flavour.load("rtx")


@pytest.mark.parametrize("precision", product.PRECISIONS)
def test_the_product_is_built_in_its_precision(rtx: Flavour, precision: str) -> None:
    """`build` gives nothing when the builder's log lists another type."""
    assert product.build(rtx, 512, precision, target="sm_86")


def test_a_product_in_another_type_is_no_peak(
    rtx: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = product._define
    monkeypatch.setattr(product, "_define", lambda t, d, s, precision: real(t, d, s, "fp32"))
    assert product.build(rtx, 512, "fp16", target="sm_86") is None


class Gpu:
    """A simulated GPU, and a library whose engines only count their runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(0)
        self.runs: list[str] = []
        monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
        monkeypatch.setitem(sys.modules, "pycuda.driver", simulated_cuda.module(self.world))
        cuda._primary_context.cache_clear()
        monkeypatch.setattr(gpu_peaks, "SIDE", 8)
        monkeypatch.setattr(gpu_peaks, "COPIED", 64)
        monkeypatch.setattr(peaks, "_SECONDS", 0.01)
        monkeypatch.setattr(product, "build", self._build)
        self.library = Flavour("tensorrt", self._trt(), "simulated")

    def _build(self, library: Any, side: int, precision: str) -> bytes | None:
        return None if precision == "int8" else precision.encode()

    def _trt(self) -> Any:
        gpu = self

        class Context:
            def __init__(self, precision: str) -> None:
                self.precision, self.addresses = precision, dict[str, int]()

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return True

            def execute_async_v3(self, stream: int) -> bool:
                (target,) = [s for s in gpu.world.streams if s.handle == stream]
                a, b, out = (gpu.world.allocations[self.addresses[n]]
                             for n in (*product.INPUTS, product.OUTPUT))  # fmt: skip
                number = {"fp32": 4, "fp16": 2}[self.precision]
                assert len(a.bytes) == len(b.bytes) == len(out.bytes) == 64 * number
                assert a.bytes.any() and b.bytes.any()
                target.put(lambda: gpu.runs.append(self.precision))
                return True

        class Runtime:
            def __init__(self, logger: Any) -> None: ...

            def deserialize_cuda_engine(self, engine: bytes) -> Any:
                return SimpleNamespace(create_execution_context=lambda: Context(engine.decode()))

        severity = SimpleNamespace(**{n: n for n in ("INTERNAL_ERROR", "ERROR", "WARNING",
                                                     "INFO", "VERBOSE")})  # fmt: skip
        logger = type("ILogger", (), {"Severity": severity, "__init__": lambda self: None})
        return SimpleNamespace(Runtime=Runtime, ILogger=logger)


def test_every_figure_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is under way when a time is taken, and nothing is left at the end."""
    gpu = Gpu(monkeypatch)
    real = gpu_peaks.best_seconds
    waited = []

    def best_seconds(work: Any) -> float:
        def watched() -> None:
            work()
            waited.append(not any(stream.work for stream in gpu.world.streams))

        return real(watched)

    monkeypatch.setattr(gpu_peaks, "best_seconds", best_seconds)
    found = gpu_peaks.of_this_gpu("a GPU", gpu.library)
    assert all(waited) and len(waited) > 3
    assert found.fp32 and found.fp16 and found.bandwidth and found.int8 is None
    assert set(gpu.runs) == {"fp32", "fp16"} and len(gpu.runs) % gpu_peaks._TOGETHER == 0
    assert not gpu.world.allocations and gpu.world.contexts == 0


def test_rates_are_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)

    def best_seconds(work: Any) -> float:
        work()
        return 0.5

    monkeypatch.setattr(gpu_peaks, "best_seconds", best_seconds)
    found = gpu_peaks.of_this_gpu("a GPU", gpu.library)
    assert found.fp32 == found.fp16 == 8 * 2 * 8**3 / 0.5
    assert found.bandwidth == 8 * 2 * 64 / 0.5
