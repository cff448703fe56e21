"""How much memory a restorer may take, and how much it will."""

from __future__ import annotations

import os
from pathlib import Path

from edge_restore.errors import OptionError

BUDGET_FRACTION = 0.5
"""How much of the free memory a restorer takes unless told: the rest is for frames in queues, the
encoder, and what the machine is really for."""

ACTIVATION_BYTES_PER_PIXEL = 2200
"""Memory at the height of a run, in bytes per pixel of the frame.

Measured as the growth of the process's peak resident size on SVDN in the camera form (float32, at
640x360 and 848x480): 1900 to 1930 with DeformConv nodes on ONNX Runtime 1.31, 1910 to 2120 lowered
to GridSample, 2060 on 1.23. Most of it is the 25 samples of 48 channels at half size that a 5x5
deformable convolution gathers before it multiplies."""

_FALLBACK_BYTES = 2 << 30


def greatest_area(memory_budget: int | None) -> int:
    """How many pixels may be restored at once.

    Args:
        memory_budget: bytes for the network's activations; None for `BUDGET_FRACTION` of what is
            free now.

    Raises:
        OptionError: the budget is not positive.
    """
    if memory_budget is None:
        memory_budget = int(available_bytes() * BUDGET_FRACTION)
    if memory_budget <= 0:
        raise OptionError(
            f"the memory budget is {memory_budget} bytes",
            expected="a positive number",
            mend="leave the option out to take half of the free memory",
        )
    return memory_budget // ACTIVATION_BYTES_PER_PIXEL


def available_bytes() -> int:
    """Memory that a new allocation can have without swapping, in bytes.

    The kernel's own estimate, or what the container's limit (cgroup v2) leaves where that is less.
    2 GiB on systems that tell neither.
    """
    free = _kernel_estimate()
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return free


def _kernel_estimate() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _FALLBACK_BYTES


def _number(path: str) -> int | None:
    """The number in a file; None when it is missing or holds a word, as "max" for no limit."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
