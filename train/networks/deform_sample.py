"""The CPU's fast path for deformable taps: a small C file, compiled at first use.

Training SVDN on a CPU spends most of its time in the two deformable layers when they are written
with `grid_sample`; gathering channels-last vectors in C takes a fraction of that. Nothing depends
on it: without a C compiler (or with EDGE_RESTORE_NO_C=1) `deform_conv` uses plain torch.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from edge_restore.engine.cache import default_folder
from edge_restore.errors import UserError
from edge_restore.storage import trusted_file
from edge_restore.storage.files import atomic_path
from edge_restore.storage.temporaries import temporary
from edge_restore.storage.trusted_file import EngineError
from train.networks import compiler_caches

_SOURCE = Path(__file__).with_suffix(".c")
# -fno-math-errno and friends let the channel sums be vectorised; NaN coordinates stay defined
# because the range test, written so that NaN fails it, is kept (no -ffinite-math-only).
_FLAGS = [
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fPIC", "-shared", "-std=gnu11",
    "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
]  # fmt: skip


class _Geometry(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            "height", "width", "channels", "out_width", "taps_y", "taps_x", "stride_y", "stride_x",
            "pad_y", "pad_x", "dil_y", "dil_x", "groups", "narrow",
        )
    ]  # fmt: skip


_switched_off = contextvars.ContextVar("_switched_off", default=False)


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Within it only plain torch is used, as on a machine without a C compiler and Triton."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had (no compiler, or switched off)."""
    return None if _switched_off.get() else _compiled()


def has_triton() -> bool:
    """Whether the GPU's path (deform_sample_triton.py) can be taken; it comes with torch for CUDA.

    Not within `switched_off`.
    """
    if _switched_off.get() or importlib.util.find_spec("triton") is None:
        return False
    compiler_caches.use_trusted()
    return True


@functools.cache
def _compiled() -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if os.environ.get("EDGE_RESTORE_NO_C") or compiler is None:
        return None
    # -march=native: a cache folder shared between machines must not serve another chip's code.
    chip = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next((line for line in chip.splitlines() if line.startswith("flags")), "")
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((compiler, _FLAGS, flags)).encode())
    name = f"deform_sample-{key.hexdigest()[:16]}"
    try:
        content = _kept(name)
        if content is None:
            content = _compile(compiler, flags)
            _keep(name, content)
        return _loaded(content)
    except (OSError, subprocess.CalledProcessError):
        return None


def _kept(name: str) -> bytes | None:
    """The kernel as it was compiled before, or None where there is none that can be trusted.

    It is executed, so it must lie, as an engine must, in a file and a folder that nobody else can
    write, and hold what the hash in its name says.
    """
    for path in sorted(default_folder().parent.glob(f"{name}-*.so")):
        with contextlib.suppress(EngineError):
            content = trusted_file.read(path, "the compiled kernel", "remove it", limit=1 << 24)
            if path.stem == f"{name}-{trusted_file.digest(content)}":
                return content
    return None


def _keep(name: str, content: bytes) -> None:
    """Keep it for the next process, where the folder can be trusted; else that compiles again."""
    folder = default_folder().parent
    with contextlib.suppress(OSError, UserError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trusted_file.check_folder(folder, "the compiled kernel", "remove it")
        path = folder / f"{name}-{trusted_file.digest(content)}.so"
        with atomic_path(path, mode=trusted_file.MODE) as temporary:
            temporary.write_bytes(content)
        for other in folder.glob(f"{name}*.so"):
            if other != path:  # which nobody will load
                other.unlink()


def _compile(compiler: str, flags: str) -> bytes:
    """The kernel's machine code, made in a folder of our own."""
    chosen = [f for f in _FLAGS if f != "-mprefer-vector-width=512" or "avx512f" in flags]
    with tempfile.TemporaryDirectory() as folder, temporary(folder):  # mode 700
        fresh = Path(folder) / "kernel.so"
        subprocess.run(
            [compiler, *chosen, str(_SOURCE), "-o", str(fresh), "-lm"],
            check=True,
            capture_output=True,
        )
        return fresh.read_bytes()


def _loaded(content: bytes) -> ctypes.CDLL:
    """The very bytes that were checked, loaded: from memory, or from a folder of our own."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            descriptor = os.memfd_create("deform_sample")
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(content)
                return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
    with tempfile.TemporaryDirectory() as folder, temporary(folder):
        path = Path(folder) / "kernel.so"
        path.write_bytes(content)
        return ctypes.CDLL(str(path))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # ctypes releases the GIL, so Python threads serve; a second OpenMP runtime beside torch's
    # would fight it for the cores.
    return ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads()))


def _at(tensor: torch.Tensor, index: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor[index].data_ptr())


class SampleColumns(torch.autograd.Function):
    """columns[n, p, k, c] = mask * bilinear(image), the gather of `deform_sample.c`.

    image (N, H, W, C), offset (N, Ho, Wo, G*K*2), mask (N, Ho, Wo, G*K); all float32, contiguous,
    on the CPU. Returns (N, Ho*Wo, K, C) of the dtype asked for, float32 or bfloat16.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, image: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor,
        kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
        dilation: tuple[int, int], groups: int, dtype: torch.dtype,
    ) -> torch.Tensor:  # fmt: skip
        compiled = library()
        assert compiled is not None
        count, height, width, channels = image.shape
        out_height, out_width = offset.shape[1:3]
        geometry = _Geometry(
            height, width, channels, out_width, *kernel, *stride, *padding, *dilation, groups,
            dtype == torch.bfloat16,
        )  # fmt: skip
        size = count, out_height * out_width, kernel[0] * kernel[1], channels
        columns = image.new_empty(size, dtype=dtype)
        half = (out_height + 1) // 2

        def work(item: tuple[int, int, int]) -> None:
            n, row0, row1 = item
            compiled.sample_forward(
                ctypes.byref(geometry), row0, row1,
                _at(image, n), _at(offset, n), _at(mask, n), _at(columns, n),
            )  # fmt: skip

        jobs = [(n, a, b) for n in range(count) for a, b in ((0, half), (half, out_height))]
        list(_threads().map(work, jobs))
        ctx.save_for_backward(image, offset, mask)
        ctx.geometry = geometry
        return columns

    @staticmethod
    def backward(ctx: Any, grad_columns: torch.Tensor) -> Any:  # noqa: D102
        compiled = library()
        assert compiled is not None
        image, offset, mask = ctx.saved_tensors
        grad_columns = grad_columns.contiguous()
        grads = torch.zeros_like(image), torch.zeros_like(offset), torch.zeros_like(mask)

        def work(n: int) -> None:
            compiled.sample_backward(
                ctypes.byref(ctx.geometry), offset.shape[1],
                _at(image, n), _at(offset, n), _at(mask, n), _at(grad_columns, n),
                *(_at(grad, n) for grad in grads),
            )  # fmt: skip

        list(_threads().map(work, range(image.shape[0])))
        return (*grads, None, None, None, None, None, None)
