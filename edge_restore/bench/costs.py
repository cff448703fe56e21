"""What one frame costs a network, counted by `python -m train networks --costs`.

The counts lie in costs.json beside this file, so that a machine without torch has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_restore.errors import BackendError, OptionError
from edge_restore.storage.json_fields import JsonFields
from edge_restore.storage.json_file import read_json
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.network_costs/1"
FILE = Path(__file__).with_name("costs.json")
KIND = Kind("a table", "the table as it was shipped", "install edge-restore again", BackendError)

NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Bytes that a number takes."""

SIZES = ((360, 640), (720, 1280), (1080, 1920))
"""(height, width) of the frames that everything is measured with."""


@dataclass(frozen=True)
class FrameCost:
    """Of one frame.

    Attributes:
        macs: multiply-accumulates of convolutions and products; operations are twice this.
        moved_numbers: that convolutions and products read and write, weights included.
        parameters: of the network.
    """

    macs: float
    moved_numbers: float
    parameters: int

    def moved_bytes(self, number_bytes: int) -> float:
        """Bytes between memory and processor when every convolution reads and writes memory."""
        return self.moved_numbers * number_bytes

    def compulsory_bytes(self, number_bytes: int, pixels: int) -> float:
        """The fewest bytes with unlimited fusion: weights once, 8-bit frames in and out."""
        return self.parameters * number_bytes + 2 * 3 * pixels


def frame_cost(network: str, height: int, width: int) -> FrameCost:
    """The cost of a frame of any size: of the counted size next to it, by the number of pixels.

    Raises:
        OptionError: the network was not counted.
        BackendError: the table cannot be used.
    """
    document = JsonFields(read_json(FILE, KIND))
    document.choice("schema", (SCHEMA,))
    networks = document.child("networks")
    counted = networks.document
    if network not in counted and not document.errors:
        raise OptionError(
            f"the cost of '{network}' was not counted",
            expected=f"one of {', '.join(counted)}",
            hint="python -m train networks --costs edge_restore/bench/costs.json",
        )
    near = min(SIZES, key=lambda size: abs(size[0] * size[1] - height * width))
    found = networks.child(network).child(f"{near[0]}x{near[1]}")
    macs, moved, weights = (found.integer(k, 0) for k in ("macs", "moved_numbers", "parameters"))
    if document.errors:
        raise KIND.unusable(FILE, document.listing())
    share = height * width / (near[0] * near[1])
    return FrameCost(
        macs=macs * share, moved_numbers=(moved - weights) * share + weights, parameters=weights
    )
