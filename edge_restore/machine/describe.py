"""What this machine is: processor, memory, operating system, GPUs, versions of the libraries."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_restore.machine import limits

_LIBRARIES = {
    # distribution: module; a system's own build (JetPack's OpenCV) has no distribution
    "numpy": "numpy",
    "opencv-python": "cv2",
    "av": "av",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "pycuda": "pycuda",
    "cuda-bindings": "cuda.bindings",
}


@dataclass(frozen=True)
class Machine:
    """Where something was measured.

    Attributes:
        cpu: the processor's model name.
        cores: logical cores that this process may keep busy, see `limits.usable_cores`.
        memory_mib: installed memory in MiB; 0 when the system does not tell.
        system: operating system and architecture.
        python: version of the interpreter.
        gpus: names of the NVIDIA GPUs that the driver shows.
    """

    cpu: str
    cores: int
    memory_mib: int
    system: str
    python: str
    gpus: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The machine as a JSON object."""
        return {**asdict(self), "gpus": list(self.gpus)}


def this_machine() -> Machine:
    """Describe the machine that runs this process."""
    return Machine(
        cpu=_cpu_name(),
        cores=limits.usable_cores(),
        memory_mib=_memory_mib(),
        system=platform.platform(),
        python=platform.python_version(),
        gpus=_nvidia_gpus(),
    )


def library_versions() -> dict[str, str]:
    """Versions of edge_restore and of the libraries it can use, as far as installed."""
    from edge_restore import __version__

    versions = {"edge-restore": __version__}
    for distribution, module in _LIBRARIES.items():
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            if (loaded := sys.modules.get(module)) is not None:
                versions[distribution] = str(getattr(loaded, "__version__", "unknown"))
    return versions


def _cpu_name() -> str:
    for file, key in (("/proc/cpuinfo", "model name"), ("/proc/cpuinfo", "Model")):
        for line in _read(file).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    # ARM boards (Jetson) name themselves in the device tree, not in cpuinfo.
    board = _read("/proc/device-tree/model").strip("\0\n ")
    return board or platform.processor() or platform.machine() or "unknown"


def _memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return 0


def _nvidia_gpus() -> tuple[str, ...]:
    """Ask the driver itself; it needs no package, and answers also where nvidia-smi is missing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return ()
        names = []
        for i in range(count.value):
            device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
            driver.cuDeviceGet(ctypes.byref(device), i)
            driver.cuDeviceGetName(name, len(name), device)
            names.append(name.value.decode(errors="replace"))
        return tuple(names)
    except (OSError, AttributeError):
        return ()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
