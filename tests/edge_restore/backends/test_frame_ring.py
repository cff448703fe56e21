"""The bookkeeping of frames under way, with slots that are ready when the test says so."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from edge_restore.backends.frame_ring import FrameRing
from edge_restore.errors import InternalError
from edge_restore.frames import Frame, Pixels


class Inverting:
    """A slot that gives the negative, and knows how it is used."""

    def __init__(self) -> None:
        self.pixels: Pixels | None = None
        self.is_ready = False
        self.waits = 0
        self.fails = ""

    def start(self, pixels: Pixels) -> None:
        assert self.pixels is None, "the slot was given a frame before it was empty"
        if self.fails == "start":
            raise OSError("cannot start")
        self.pixels = pixels.copy()
        self.is_ready = False

    def ready(self) -> bool:
        assert self.pixels is not None
        return self.is_ready

    def take(self, height: int, width: int) -> Pixels:
        assert self.pixels is not None
        self.waits += not self.is_ready
        pixels, self.pixels = self.pixels, None
        if self.fails == "take":
            raise OSError("cannot take")
        return 255 - pixels[:height, :width]


def frame(index: int, height: int = 4, width: int = 6) -> Frame:
    pixels = np.full((height, width, 3), index, np.uint8)
    return Frame(pixels, index, index, Fraction(1, 30))


@pytest.fixture
def slots() -> list[Inverting]:
    return [Inverting() for _ in range(3)]


@pytest.fixture
def ring(slots: list[Inverting]) -> FrameRing:
    return FrameRing(slots)


def test_nothing_comes_before_it_is_ready_or_the_ring_is_full(
    ring: FrameRing, slots: list[Inverting]
) -> None:
    assert ring.collect() is None
    frames = [frame(i) for i in range(4)]
    ring.submit(frames[0])
    ring.submit(frames[1])
    assert ring.collect() is None
    slots[1].is_ready = True
    assert ring.collect() is None, "the second frame came before the first"
    ring.submit(frames[2])
    assert ring.full
    assert ring.collect() is frames[0]
    assert slots[0].waits == 1
    assert ring.collect() is frames[1], "it was ready"
    assert slots[1].waits == 0
    assert ring.collect() is None
    ring.submit(frames[3])
    assert ring.flush() == frames[2:]
    assert len(ring) == 0 and ring.flush() == []


def test_a_ready_frame_comes_without_a_full_ring(ring: FrameRing, slots: list[Inverting]) -> None:
    given = frame(7)
    ring.submit(given)
    slots[0].is_ready = True
    assert ring.collect() is given
    np.testing.assert_array_equal(given.pixels, 248)


def test_the_submitted_pixels_are_not_written(ring: FrameRing) -> None:
    given = frame(3)
    before = given.pixels
    ring.submit(given)
    (restored,) = ring.flush()
    np.testing.assert_array_equal(before, 3)
    assert restored.pixels is not before


def test_a_padded_picture_is_cropped_to_the_frame(ring: FrameRing) -> None:
    given = frame(9, 5, 7)
    ring.submit(given, np.full((8, 8, 3), 9, np.uint8))
    (restored,) = ring.flush()
    assert restored.pixels.shape == (5, 7, 3)


def test_the_clock_is_stamped_in_order(ring: FrameRing) -> None:
    frames = [frame(i) for i in range(3)]
    frames[0].clock.begin("restore")  # the restorer began to pad it
    started = frames[0].clock.started["restore"]
    for each in frames:
        ring.submit(each)
    assert frames[0].clock.started["restore"] == started
    ring.flush()
    for each in frames:
        assert each.clock.milliseconds("restore") >= 0
    ends = [each.clock.finished["restore"] for each in frames]
    assert ends == sorted(ends)


def test_too_many_frames(ring: FrameRing) -> None:
    for i in range(3):
        ring.submit(frame(i))
    with pytest.raises(InternalError, match="while 3 were under way"):
        ring.submit(frame(3))
    assert [each.index for each in ring.flush()] == [0, 1, 2]


def test_a_slot_that_cannot_start_keeps_the_order(ring: FrameRing, slots: list[Inverting]) -> None:
    ring.submit(frame(0))
    slots[1].fails = "start"
    with pytest.raises(OSError, match="cannot start"):
        ring.submit(frame(1))
    assert len(ring) == 1
    slots[1].fails = ""
    ring.submit(frame(2))
    assert [each.index for each in ring.flush()] == [0, 2]


def test_a_slot_that_fails_is_free_again(ring: FrameRing, slots: list[Inverting]) -> None:
    for i in range(3):
        ring.submit(frame(i))
    slots[0].fails = "take"
    with pytest.raises(OSError, match="cannot take"):
        ring.collect()
    slots[0].fails = ""
    assert not ring.full
    ring.submit(frame(3))
    assert [each.index for each in ring.flush()] == [1, 2, 3]


def test_forgetting_frees_every_slot(ring: FrameRing, slots: list[Inverting]) -> None:
    for i in range(3):
        ring.submit(frame(i))
    ring.clear()
    for slot in slots:
        slot.pixels = None
    assert len(ring) == 0
    for i in range(3):
        ring.submit(frame(10 + i))
    assert [each.index for each in ring.flush()] == [10, 11, 12]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_pipelines_loop_loses_and_reorders_nothing(size: int) -> None:
    """As pipeline.py calls a restorer, with slots that become ready at random."""
    chance = random.Random(size)
    slots = [Inverting() for _ in range(size)]
    ring = FrameRing(slots)
    got: list[int] = []
    for i in range(200):
        ring.submit(frame(i % 250))
        for slot in slots:
            slot.is_ready = slot.is_ready or (slot.pixels is not None and chance.random() < 0.4)
        while (restored := ring.collect()) is not None:
            np.testing.assert_array_equal(restored.pixels, 255 - restored.index % 250)
            got.append(restored.index)
        assert len(ring) < size, "the next frame would find no slot"
    got += [each.index for each in ring.flush()]
    assert got == [i % 250 for i in range(200)]


def test_a_ring_without_slots() -> None:
    with pytest.raises(InternalError):
        FrameRing([])
