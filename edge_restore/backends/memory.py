"""How much memory a restorer may take, and how much it will."""

from __future__ import annotations

from edge_restore.errors import OptionError
from edge_restore.machine import limits

BUDGET_FRACTION = 0.5
"""How much of the free memory a restorer takes unless told: the rest is for frames in queues, the
encoder, and what the machine is really for."""

ACTIVATION_BYTES_PER_PIXEL = 2200
"""Memory at the height of a run, in bytes per pixel of the frame.

Measured as the growth of the process's peak resident size on SVDN in the camera form (float32, at
640x360 and 848x480): 1900 to 1930 with DeformConv nodes on ONNX Runtime 1.31, 1910 to 2120 lowered
to GridSample, 2060 on 1.23. Most of it is the 25 samples of 48 channels at half size that a 5x5
deformable convolution gathers before it multiplies."""


def max_area(memory_budget: int | None) -> int:
    """How many pixels may be restored at once.

    Args:
        memory_budget: bytes for the network's activations; None for `BUDGET_FRACTION` of what is
            free now.

    Raises:
        OptionError: the budget is not positive.
    """
    if memory_budget is None:
        # At least one byte: how little that is, the frame's tiles will tell.
        memory_budget = max(1, int(limits.available_bytes() * BUDGET_FRACTION))
    if memory_budget <= 0:
        raise OptionError(
            f"the memory budget is {memory_budget} bytes",
            expected="a positive number",
            hint="leave the option out to take half of the free memory",
        )
    return memory_budget // ACTIVATION_BYTES_PER_PIXEL
