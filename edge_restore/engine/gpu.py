"""The NVIDIA GPU of this machine, asked of the driver without any package."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver.

    Attributes:
        name: as the driver says it, e.g. "NVIDIA GeForce RTX 4060".
        compute_capability: e.g. (8, 9).
        driver: version of the driver, or of CUDA where the driver does not tell its own.
    """

    name: str
    compute_capability: tuple[int, int]
    driver: str

    @property
    def target(self) -> str:
        """What kernels for it are compiled for, e.g. "sm_89"."""
        return "sm_{}{}".format(*self.compute_capability)


def this_gpu() -> Gpu | None:
    """The first GPU that the driver shows, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count, device, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
            return None
        driver.cuDeviceGet(ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), device)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int(0)
            driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), (numbers[0], numbers[1]), _driver() or cuda)


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module[^\d]*([\d.]+)", text)
    return found[1] if found else ""
