"""Launching a shipped PTX file with nothing but a CUDA driver binding: no Triton, no torch."""

import ctypes

import numpy as np


def by_cuda_bindings(kernel, arrays, scalars, out, blocks):
    """Run `kernel` on the arrays; `out` is filled. Through NVIDIA's cuda-bindings."""
    from cuda.bindings import driver

    def call(function, *arguments):
        status, *results = function(*arguments)
        assert status == driver.CUresult.CUDA_SUCCESS, f"{function.__name__}: {status}"
        return results[0] if results else None

    call(driver.cuInit, 0)
    device = call(driver.cuDeviceGet, 0)
    call(driver.cuCtxSetCurrent, call(driver.cuDevicePrimaryCtxRetain, device))
    module = call(driver.cuModuleLoadData, kernel.ptx + b"\0")
    pointers = []
    try:
        function = call(driver.cuModuleGetFunction, module, kernel.entry.encode())
        for array in (*arrays, out):
            pointers.append(call(driver.cuMemAlloc, array.nbytes))
            call(driver.cuMemcpyHtoD, pointers[-1], array.ctypes.data, array.nbytes)
        addresses = [int(pointer) for pointer in pointers]
        values = (*addresses[:-1], *scalars, addresses[-1])
        types = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int] * len(scalars) + [ctypes.c_void_p]
        call(
            driver.cuLaunchKernel, function, *blocks, kernel.threads, 1, 1, kernel.shared_bytes,
            driver.CUstream(0), (values, tuple(types)), 0,
        )  # fmt: skip
        call(driver.cuCtxSynchronize)
        call(driver.cuMemcpyDtoH, out.ctypes.data, pointers[-1], out.nbytes)
    finally:
        for pointer in pointers:
            call(driver.cuMemFree, pointer)
        call(driver.cuModuleUnload, module)
        call(driver.cuDevicePrimaryCtxRelease, device)


def by_pycuda(kernel, arrays, scalars, out, blocks):
    """The same through PyCUDA, as the Python plugin launches it."""
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        function = cuda.module_from_buffer(kernel.ptx + b"\0").get_function(kernel.entry)
        inputs = [cuda.to_device(array) for array in arrays]
        result = cuda.to_device(out)
        function(
            *inputs, *map(np.int32, scalars), result,
            block=(kernel.threads, 1, 1), grid=blocks, shared=kernel.shared_bytes,
        )  # fmt: skip
        cuda.Context.synchronize()
        cuda.memcpy_dtoh(out, result)
    finally:
        context.pop()
