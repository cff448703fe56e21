"""What a GPU can do at best, measured in a few seconds: products of matrices, and a copy.

Products are engines of the library that is measured (`edge_restore.engine.product`), so that the
peak is what its kernels reach. Every figure is taken when the device has finished.

Not yet run on a GPU; `pytest -m gpu tests/gpu/test_peaks.py` checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from edge_restore.backends import cuda
from edge_restore.bench.peaks import Peaks, best_seconds
from edge_restore.engine import product
from edge_restore.engine.build_log import BuildLog, make_logger
from edge_restore.engine.flavour import Flavour
from edge_restore.errors import BackendError

SIDE = 4096
"""Rows and columns of the matrices: 137 GFLOP a product."""

COPIED = 256 << 20
"""Bytes of the copy, beyond the caches."""

_TOGETHER = 8
"""Products, or copies, that are queued before they are waited for: launching one takes time."""

_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def of_this_gpu(name: str, library: Flavour) -> Peaks:
    """Measure the first GPU.

    Raises:
        DependencyError, BackendError: CUDA cannot be used here.
    """
    with ExitStack() as resources:
        streams = cuda.Streams()
        resources.callback(streams.close)
        rates = {kind: _product(streams, library, kind) for kind in product.PRECISIONS}
        return Peaks(
            name=name,
            source=f"measured here: products of {SIDE}x{SIDE} matrices by {library.title} "
            f"{library.version}, a copy of {COPIED >> 20} MiB",
            bandwidth=_copy(streams),
            **rates,
        )


def _product(streams: cuda.Streams, library: Flavour, precision: str) -> float | None:
    """Operations a second; None where the library cannot multiply in this precision."""
    engine = product.build(library, SIDE, precision)
    if engine is None:
        return None
    bytes_ = _BYTES[precision] * SIDE**2
    out_bytes = (4 if precision == "fp32" else 2) * SIDE**2
    with ExitStack() as resources:
        buffers = {}
        for name, size in ((product.INPUTS[0], bytes_), (product.INPUTS[1], bytes_),
                           (product.OUTPUT, out_bytes)):  # fmt: skip
            with cuda.cuda_errors("allocate memory for matrices"):
                buffers[name] = streams.cuda.mem_alloc(size)
            resources.callback(buffers[name].free)
        # Not zeros: a multiplier that switches nothing takes less power and runs faster.
        _fill(streams, [buffers[name] for name in product.INPUTS], precision)
        enqueue = _loaded(library, engine, {name: int(b) for name, b in buffers.items()})

        def run() -> None:
            for _ in range(_TOGETHER):
                enqueue(streams.compute.handle)
            streams.synchronize()

        return _TOGETHER * 2.0 * SIDE**3 / best_seconds(run)


def _fill(streams: cuda.Streams, buffers: list[Any], precision: str) -> None:
    random = np.random.default_rng(0)
    numbers: Any = random.standard_normal((SIDE, SIDE), np.float32)
    if precision == "int8":
        numbers = random.integers(-127, 128, (SIDE, SIDE), np.int8)
    elif precision == "fp16":
        numbers = numbers.astype(np.float16)
    with cuda.cuda_errors("fill matrices"):
        for buffer in buffers:
            streams.cuda.memcpy_htod_async(buffer, numbers.view(np.uint8), streams.compute)
        streams.synchronize()


def _loaded(library: Flavour, engine: bytes, addresses: dict[str, int]) -> Callable[[int], None]:
    """What puts one run of an engine on the stream with this handle."""
    trt, log = library.trt, BuildLog()
    runtime = trt.Runtime(make_logger(trt, log))
    loaded = runtime.deserialize_cuda_engine(engine)
    context = None if loaded is None else loaded.create_execution_context()
    if context is None:
        reasons = log.errors() or ["no reason given"]
        raise BackendError(
            f"{library.title} {library.version} cannot load what it built: {reasons[-1]}",
            expected="memory for three matrices on the GPU",
            hint="end other programs that use the GPU",
        )
    for name, address in addresses.items():
        context.set_tensor_address(name, address)

    def enqueue(stream: int) -> None:
        # The runtime and the engine must live as long as the context.
        assert runtime is not None and loaded is not None
        if not context.execute_async_v3(stream):
            raise cuda.failure("multiply matrices", (log.errors() or [""])[-1])

    return enqueue


def _copy(streams: cuda.Streams) -> float:
    """Bytes a second between the memory and the processor: a copy reads and writes each."""
    with ExitStack() as resources, cuda.cuda_errors("copy memory"):
        source, target = (streams.cuda.mem_alloc(COPIED) for _ in range(2))
        resources.callback(source.free)
        resources.callback(target.free)

        def run() -> None:
            for _ in range(_TOGETHER):
                streams.cuda.memcpy_dtod_async(target, source, COPIED, streams.compute)
            streams.synchronize()

        return _TOGETHER * 2.0 * COPIED / best_seconds(run)
