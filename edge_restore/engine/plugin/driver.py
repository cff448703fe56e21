"""Launching a PTX kernel on somebody else's stream, through the CUDA driver itself.

TensorRT gives a plugin the number of its own stream. PyCUDA can launch on streams that it made
itself, and on no others (`pycuda.driver.Stream` takes no handle, `Function` shows none; read in
2026.1), so the plugin calls the driver's C functions. They need no package, and work in the
context that TensorRT, the CUDA runtime and PyCUDA share: the device's primary one.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it. The tests run it against a stand-in for
the driver, compiled from C, that records what it is called with.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from typing import Any

from edge_restore.errors import BackendError

_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES = 5, 6  # CU_JIT_ERROR_LOG_BUFFER, ..._SIZE_BYTES
_LOG_BYTES = 8192

_loaded: dict[tuple[int, bytes, str], int] = {}
"""Functions by context, PTX and name. Modules stay loaded as long as their context lives: a
TensorRT engine may be unloaded at any time, and its plugin must not take away what another uses."""
_lock = threading.Lock()


def load(ptx: bytes, entry: str) -> int:
    """The function `entry` of a PTX text in the current context, compiled by the driver; a handle.

    Not to be called while a stream is captured: loading allocates.

    Raises:
        BackendError: there is no driver or no context, or the driver cannot compile the text.
    """
    cuda = _driver()
    context = ctypes.c_void_p()
    _check(cuda, cuda.cuCtxGetCurrent(ctypes.byref(context)), "find the current context")
    if not context.value:
        _enter_primary_context(cuda, context)
    key = (context.value or 0, ptx, entry)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(cuda, ptx, entry)
        return _loaded[key]


def launch(
    function: int,
    grid: Sequence[int],
    threads: int,
    shared_bytes: int,
    stream: int,
    inputs: Sequence[int],
    scalars: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """Launch `function` on `stream` and return at once.

    Args:
        function: what `load` gave.
        grid: blocks along x, y and z.
        threads: of a block, along x.
        shared_bytes: dynamic shared memory of a block.
        stream: handle of the stream, as TensorRT gives it.
        inputs: device addresses, the kernel's first arguments.
        scalars: int32 arguments after them.
        outputs: device addresses, the last arguments.

    Raises:
        BackendError: the driver refuses.
    """
    cuda = _driver()
    values: list[Any] = [ctypes.c_void_p(address) for address in inputs]
    values += [ctypes.c_int32(number) for number in scalars]
    values += [ctypes.c_void_p(address) for address in outputs]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    status = cuda.cuLaunchKernel(
        ctypes.c_void_p(function),
        *(ctypes.c_uint(blocks) for blocks in grid),
        *(ctypes.c_uint(side) for side in (threads, 1, 1)),
        ctypes.c_uint(shared_bytes),
        ctypes.c_void_p(stream),
        addresses,
        None,
    )
    _check(cuda, status, "launch a kernel")


def _load(cuda: ctypes.CDLL, ptx: bytes, entry: str) -> int:
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options = (ctypes.c_int * 2)(_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES)
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
    text = ctypes.create_string_buffer(ptx)  # ends with a zero, as the driver wants it
    status = cuda.cuModuleLoadDataEx(ctypes.byref(module), text, ctypes.c_uint(2), options, values)
    said = log.value.decode(errors="replace").strip()
    _check(cuda, status, f"compile the kernel '{entry}'" + (f" ({said})" if said else ""))
    status = cuda.cuModuleGetFunction(ctypes.byref(function), module, entry.encode())
    _check(cuda, status, f"find the kernel '{entry}' in its own module")
    return function.value or 0


def _enter_primary_context(cuda: ctypes.CDLL, context: ctypes.c_void_p) -> None:
    """Make the first device's primary context current in this thread, for good."""
    device = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), 0), "find a GPU")
    status = cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    _check(cuda, status, "make a context")
    _check(cuda, cuda.cuCtxSetCurrent(context), "enter the context")


@functools.cache
def _driver() -> ctypes.CDLL:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(
            f"there is no CUDA driver: {error}",
            expected="an NVIDIA GPU with its driver",
            hint="install NVIDIA's driver, or run on the CPU with --backend onnxruntime",
        ) from error
    _check(cuda, cuda.cuInit(ctypes.c_uint(0)), "start")
    return cuda


def _check(cuda: ctypes.CDLL, status: int, doing: str) -> None:
    if status == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
    reason = (text.value or b"unknown error").decode(errors="replace")
    raise BackendError(
        f"the CUDA driver cannot {doing}: {reason} (error {status})",
        expected="a working GPU that runs this kernel",
        hint="look at `edge-restore doctor`; update NVIDIA's driver where the error is about PTX",
    )
