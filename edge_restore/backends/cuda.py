"""CUDA for one engine: context, streams, pinned memory, events, and a captured graph.

PyCUDA holds the device's primary context, which TensorRT and the CUDA runtime use too, and gives
memory, streams and events. It has no CUDA graphs; cuda-bindings has, and captures on the handle of
PyCUDA's stream.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it. The calls to cuda-bindings are tested
against a stand-in for the driver; PyCUDA cannot be installed without CUDA's compiler.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge_restore.engine.gpu import this_gpu
from edge_restore.errors import BackendError
from edge_restore.frames import Pixels
from edge_restore.machine import optional

CPU_INSTEAD = "run on the CPU with --backend onnxruntime"

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: whatever else uses the default stream does not hold these up."""


def require(*, graphs: bool) -> None:
    """Make sure that CUDA can be used from Python here.

    Args:
        graphs: whether graphs are captured too.

    Raises:
        DependencyError: PyCUDA, or cuda-bindings where `graphs`, is not installed.
        BackendError: no GPU, or no driver.
    """
    _pycuda()
    if graphs:
        _bindings()
    if this_gpu() is None:
        raise BackendError(
            "no NVIDIA GPU is here, or its driver does not answer",
            expected="an NVIDIA GPU with its driver",
            hint=f"install NVIDIA's driver, or {CPU_INSTEAD}",
        )


class Streams:
    """The primary context, current in this thread, and three streams: copies beside computing.

    To be made, used and closed in one thread.
    """

    def __init__(self) -> None:
        self.cuda = _pycuda()
        with cuda_errors("start"):
            self._context = _primary_context()
            self._context.push()
        try:
            with cuda_errors("make streams"):
                self.upload = self.cuda.Stream(_NON_BLOCKING)
                self.compute = self.cuda.Stream(_NON_BLOCKING)
                self.download = self.cuda.Stream(_NON_BLOCKING)
        except BaseException:
            self._context.pop()
            raise

    def synchronize(self) -> None:
        """Wait for everything under way."""
        with cuda_errors("finish"):
            for stream in (self.upload, self.compute, self.download):
                stream.synchronize()

    def close(self) -> None:
        """Give the streams back and leave the context.

        The context itself stays until the process ends, as the CUDA runtime's own does: TensorRT
        holds it too, and making it anew takes long.
        """
        del self.upload, self.compute, self.download
        self._context.pop()


class EngineBuffers:
    """Device memory for the engine's input and output, the same for every frame.

    For a library that captures CUDA graphs itself (TensorRT-RTX): its graphs hold addresses, so
    these never change, and a slot's picture is copied in and out on the device.
    """

    def __init__(self, streams: Streams, shape: tuple[int, int, int]) -> None:
        self.bytes = math.prod(shape)
        with cuda_errors(f"allocate memory for frames of {shape[1]}x{shape[0]}"):
            self.image = streams.cuda.mem_alloc(self.bytes)
            self.restored = streams.cuda.mem_alloc(self.bytes)

    def close(self) -> None:
        """Free both."""
        self.image.free()
        self.restored.free()


class CudaSlot:
    """Room for one picture: on the host, on the device, and the events between its three steps.

    Copies and computing of different slots overlap: the upload waits for nothing, computing waits
    for this slot's upload, the download for this slot's computing.

    Args:
        streams: in whose context everything is allocated.
        shape: (height, width, 3) of the picture that the engine takes and gives, uint8.
        buffers: what the engine works on; None for this slot's own memory.
    """

    def __init__(
        self,
        streams: Streams,
        shape: tuple[int, int, int],
        buffers: EngineBuffers | None = None,
    ) -> None:
        cuda = streams.cuda
        self._streams = streams
        self._buffers = buffers
        self._run: Callable[[], None] | None = None
        self._graph: CapturedGraph | None = None
        with cuda_errors(f"allocate memory for frames of {shape[1]}x{shape[0]}"):
            # The CPU only writes the input: write-combined memory does not pass its caches.
            flags = cuda.host_alloc_flags.WRITECOMBINED
            self._image_host = cuda.pagelocked_empty(shape, np.uint8, mem_flags=flags)
            self._restored_host = cuda.pagelocked_empty(shape, np.uint8)
            self.image = cuda.mem_alloc(self._image_host.nbytes)
            self.restored = cuda.mem_alloc(self._restored_host.nbytes)
            untimed = cuda.event_flags.DISABLE_TIMING
            self._uploaded = cuda.Event(untimed)
            self._computed = cuda.Event(untimed)
            # Who waits for it sleeps instead of spinning: the CPU has frames to decode.
            self._done = cuda.Event(untimed | cuda.event_flags.BLOCKING_SYNC)

    def prepare(
        self, bind: Callable[[int, int], None], enqueue: Callable[[int], None], *, capture: bool
    ) -> str:
        """Tell the slot how to compute, and compute once.

        Args:
            bind: gives the engine the device addresses of the input and the output.
            enqueue: puts the engine's work on a stream, given by its handle.
            capture: capture that work in a CUDA graph, which is launched from then on.

        Returns:
            Why it could not be captured, or nothing. Without a graph the slot works too, and takes
            more of the CPU.
        """
        stream = self._streams.compute
        owner = self if self._buffers is None else self._buffers
        addresses = int(owner.image), int(owner.restored)

        def run() -> None:
            self._copy_in()
            bind(*addresses)
            enqueue(stream.handle)
            self._copy_out()

        # The first enqueue may allocate and load kernels, which no capture may contain.
        self._image_host[:] = 0
        self._upload()
        stream.wait_for_event(self._uploaded)
        run()
        self._streams.synchronize()
        self._run = run
        if capture:
            try:
                self._graph = CapturedGraph(stream.handle, run)
            except BackendError as error:
                return error.found
            self._run = self._graph.launch
        return ""

    def start(self, pixels: Pixels) -> None:
        """Upload, compute, download; returns when all three are queued. uint8 of `shape`."""
        assert self._run is not None, "the slot was not prepared"
        compute, download = self._streams.compute, self._streams.download
        np.copyto(self._image_host, pixels)
        with cuda_errors("restore a frame"):
            self._upload()
            compute.wait_for_event(self._uploaded)
            self._run()
            self._computed.record(compute)
            download.wait_for_event(self._computed)
            cuda = self._streams.cuda
            cuda.memcpy_dtoh_async(self._restored_host, self.restored, download)
            self._done.record(download)

    def compute(self) -> None:
        """Compute again from the picture that is on the device, and wait; for measuring that."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """The first half of `compute`: it returns when the work is queued."""
        assert self._run is not None, "the slot was not prepared"
        with cuda_errors("restore a frame"):
            self._run()

    def wait(self) -> None:
        """The second half of `compute`."""
        with cuda_errors("restore a frame"):
            self._streams.compute.synchronize()

    def ready(self) -> bool:
        """Whether the restored picture is on the host."""
        with cuda_errors("restore a frame"):
            return bool(self._done.query())

    def take(self, height: int, width: int) -> Pixels:
        """The restored picture's top left corner, in a new array; waits for it."""
        with cuda_errors("restore a frame"):
            self._done.synchronize()
        return np.ascontiguousarray(self._restored_host[:height, :width].copy())

    def close(self) -> None:
        """Free everything. Nothing of it may be under way any more."""
        if self._graph is not None:
            self._graph.close()
        self._run = self._graph = None
        for allocation in (self.image, self.restored):
            allocation.free()
        for array in (self._image_host, self._restored_host):
            array.base.free()
        del self._image_host, self._restored_host, self.image, self.restored
        del self._uploaded, self._computed, self._done

    def _copy_in(self) -> None:
        if (buffers := self._buffers) is not None:
            cuda, compute = self._streams.cuda, self._streams.compute
            cuda.memcpy_dtod_async(buffers.image, self.image, buffers.bytes, compute)

    def _copy_out(self) -> None:
        if (buffers := self._buffers) is not None:
            cuda, compute = self._streams.cuda, self._streams.compute
            cuda.memcpy_dtod_async(self.restored, buffers.restored, buffers.bytes, compute)

    def _upload(self) -> None:
        cuda = self._streams.cuda
        cuda.memcpy_htod_async(self.image, self._image_host, self._streams.upload)
        self._uploaded.record(self._streams.upload)


class CapturedGraph:
    """Work on a stream, captured once and launched as one.

    Args:
        stream: handle of the stream.
        work: puts the work on the stream. It must not wait, allocate, or copy pageable memory.

    Raises:
        BackendError: the work cannot be captured.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._driver = driver = _bindings()
        self._stream = driver.CUstream(stream)
        self._executable: Any = None
        # Other threads (decoding, encoding) may go on to use CUDA meanwhile.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("begin to capture", driver.cuStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            driver.cuStreamEndCapture(self._stream)  # the stream is unusable until it is ended
            raise
        graph = self._call("capture the engine", driver.cuStreamEndCapture, self._stream)
        try:
            self._executable = self._call("make a graph", driver.cuGraphInstantiate, graph, 0)
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put the work on its stream."""
        self._call("launch a graph", self._driver.cuGraphLaunch, self._executable, self._stream)

    def close(self) -> None:
        """Free the graph."""
        if self._executable is not None:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = None

    def _call(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if int(status) != 0:
            _, text = self._driver.cuGetErrorString(status)
            reason = text.decode(errors="replace") if text else str(status)
            raise failure(doing, f"{reason} ({status.name})")
        return results[0] if results else None


@contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Turn PyCUDA's exceptions into ours."""
    try:
        yield
    except _pycuda().Error as error:
        raise failure(doing, str(error).strip()) from error


def failure(doing: str, reason: str) -> BackendError:
    """The error for a CUDA call that failed."""
    memory = "memory" in reason.lower()
    return BackendError(
        f"CUDA cannot {doing}: {reason or 'no reason given'}",
        expected="enough memory on the GPU" if memory else "a working GPU",
        hint=("end other programs that use the GPU, restore smaller frames" if memory else
              "look at `edge-restore doctor` and at the kernel's log (dmesg)")
        + f", or {CPU_INSTEAD}",
    )  # fmt: skip


@functools.cache
def _primary_context() -> Any:
    """Retained once, and until the process ends."""
    cuda = _pycuda()
    cuda.init()
    return cuda.Device(0).retain_primary_context()


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:  # the package, or the driver's library that it wants
        if error.name not in ("pycuda", "pycuda.driver"):
            raise BackendError(
                f"PyCUDA cannot be loaded: {error}",
                expected="a PyCUDA that was built for this CUDA, and NVIDIA's driver",
                hint=f"pip install --force-reinstall --no-binary pycuda pycuda, or {CPU_INSTEAD}",
            ) from error
        raise optional.explained(error, "pycuda", needed_for="the TensorRT backend") from error


def _bindings() -> Any:
    return optional.require("cuda.bindings.driver", needed_for="the TensorRT backend")
