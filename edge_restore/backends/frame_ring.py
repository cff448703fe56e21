"""The frames that a restorer has under way, in order, each in a slot of its own.

Plain bookkeeping, which knows nothing of GPUs: a slot is whatever can take a picture, work on it
without being waited for, and hand over the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from edge_restore.errors import InternalError
from edge_restore.frames import Frame, Pixels


class Slot(Protocol):
    """Room for one picture under way."""

    def start(self, pixels: Pixels) -> None:
        """Begin restoring a picture and return at once. It may be changed after that."""

    def ready(self) -> bool:
        """Whether the picture that was started is restored."""

    def take(self, height: int, width: int) -> Pixels:
        """The restored picture's top left corner, in a new array; waits for it.

        The slot is free after that, also when this raises.
        """


class FrameRing:
    """Hands frames to slots in turn and gives them back in order.

    Stamps "restore" on each frame's clock: begin when the frame comes, end when its restored pixels
    were taken from the slot. A frame that was ready earlier, while nobody asked, counts as long as
    it was kept.

    Args:
        slots: used in turn; as many frames are under way at most.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        if not slots:
            raise InternalError("a ring needs at least one slot")
        self._free = deque(slots)
        self._under_way: deque[tuple[Frame, Slot]] = deque()

    def __len__(self) -> int:
        """How many frames are under way."""
        return len(self._under_way)

    @property
    def full(self) -> bool:
        """Whether a frame must be collected before the next is submitted."""
        return not self._free

    def submit(self, frame: Frame, padded: Pixels | None = None) -> None:
        """Begin restoring a frame.

        Args:
            frame: its pixels are read, never written.
            padded: what the slot gets in place of the frame's own pixels.

        Raises:
            InternalError: all slots are taken.
        """
        if self.full:
            raise InternalError(
                f"a frame was submitted while {len(self)} were under way: collect one first"
            )
        if not frame.clock.started.get("restore"):
            frame.clock.begin("restore")
        slot = self._free.popleft()
        try:
            slot.start(frame.pixels if padded is None else padded)
        except BaseException:
            self._free.appendleft(slot)
            raise
        self._under_way.append((frame, slot))

    def collect(self) -> Frame | None:
        """The oldest frame, restored; None when it is not ready and there is a free slot.

        With every slot taken it is waited for.
        """
        if not self._under_way:
            return None
        if not self.full and not self._under_way[0][1].ready():
            return None
        return self._finish()

    def flush(self) -> list[Frame]:
        """Every frame under way, restored, in order; waits for each."""
        frames = []
        while self._under_way:
            frames.append(self._finish())
        return frames

    def clear(self) -> None:
        """Forget the frames under way. What works on them must have been stopped."""
        while self._under_way:
            self._free.append(self._under_way.popleft()[1])

    def _finish(self) -> Frame:
        frame, slot = self._under_way.popleft()
        try:
            frame.pixels = slot.take(*frame.size)
        finally:
            self._free.append(slot)
        frame.clock.end("restore")
        return frame
