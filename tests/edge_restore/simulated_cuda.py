"""A simulator of the part of PyCUDA that the TensorRT backend uses.

Streams really are asynchronous in it: what is put on one stays there until something waits, and
then the streams' heads are executed in random order, as far as events allow. Copies read and write
memory at that moment. So a missing wait, or memory that is used again too early, gives wrong
pictures for some of the random orders. It shows that the order is right, and nothing about speed
or about CUDA's own errors.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Token:
    """One recording of an event."""

    done = False


class World:
    """One device with everything on it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.streams: list[Stream] = []
        self.allocations: dict[int, DeviceAllocation] = {}
        self.pinned = 0
        self.contexts = 0
        self.flags: list[int] = []

    def step(self) -> bool:
        """Execute the head of a random stream; False when every stream waits or is empty."""
        for stream in self.chance.sample(self.streams, len(self.streams)):
            if stream.work and (stream.work[0][0] is None or stream.work[0][0].done):
                stream.work.popleft()[1]()
                return True
        return False

    def run_until(self, finished: Callable[[], bool]) -> None:
        while not finished():
            assert self.step(), "the streams wait for each other for ever"

    def run_a_while(self) -> None:
        for _ in range(self.chance.randrange(4)):
            self.step()


class Stream:
    def __init__(self, world: World) -> None:
        assert world.contexts > 0, "no context is current"
        self.world = world
        self.handle = 0x100 + len(world.streams)
        self.work: deque[tuple[Token | None, Callable[[], None]]] = deque()
        world.streams.append(self)

    def put(self, work: Callable[[], None]) -> None:
        self.work.append((None, work))

    def wait_for_event(self, event: Event) -> None:
        if event.token is not None:
            self.work.append((event.token, lambda: None))

    def synchronize(self) -> None:
        self.world.run_until(lambda: not self.work)


class Event:
    def __init__(self, world: World, flags: int) -> None:
        self.world = world
        self.token: Token | None = None
        world.flags.append(flags)

    def record(self, stream: Stream) -> Event:
        self.token = token = Token()
        stream.put(lambda: setattr(token, "done", True))
        return self

    def query(self) -> bool:
        self.world.run_a_while()
        return self.token is None or self.token.done

    def synchronize(self) -> Event:
        self.world.run_until(lambda: self.token is None or self.token.done)
        return self


class DeviceAllocation:
    def __init__(self, world: World, size: int) -> None:
        assert world.contexts > 0, "no context is current"
        self.world = world
        self.bytes = np.full(size, 0xEE, np.uint8)
        self.address = 0x10000 * (len(world.allocations) + 1)
        world.allocations[self.address] = self

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        assert self.world.contexts > 0, "freed without a context"
        del self.world.allocations[self.address]


def module(world: World) -> ModuleType:
    """A module `pycuda.driver` of that world."""

    class Pinned(np.ndarray[Any, Any]):
        def free(self) -> None:
            world.pinned -= 1

    def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        world.pinned += 1
        return np.asarray(np.ndarray.__new__(Pinned, shape, dtype))

    def memcpy_htod_async(dest: DeviceAllocation, src: Any, stream: Stream) -> None:
        def copy() -> None:
            assert dest.address in world.allocations, "copied into freed memory"
            dest.bytes[:] = src.ravel()

        stream.put(copy)

    def memcpy_dtoh_async(dest: Any, src: DeviceAllocation, stream: Stream) -> None:
        def copy() -> None:
            assert src.address in world.allocations, "copied from freed memory"
            dest[:] = src.bytes.reshape(dest.shape)

        stream.put(copy)

    def memcpy_dtod_async(
        dest: DeviceAllocation, src: DeviceAllocation, size: int, stream: Stream
    ) -> None:
        assert len(dest.bytes) == len(src.bytes) == size

        def copy() -> None:
            dest.bytes[:] = src.bytes

        stream.put(copy)

    class Context:
        def push(self) -> None:
            world.contexts += 1

        @staticmethod
        def pop() -> None:
            world.contexts -= 1

    made = ModuleType("pycuda.driver")
    vars(made).update(
        Error=type("Error", (Exception,), {}),
        init=lambda: None,
        Device=lambda place: SimpleNamespace(retain_primary_context=Context),
        Stream=lambda flags=0: Stream(world),
        Event=lambda flags=0: Event(world, flags),
        mem_alloc=lambda size: DeviceAllocation(world, size),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=memcpy_htod_async,
        memcpy_dtoh_async=memcpy_dtoh_async,
        memcpy_dtod_async=memcpy_dtod_async,
        host_alloc_flags=SimpleNamespace(WRITECOMBINED=4),
        event_flags=SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1),
    )
    return made


class Graph:
    """Stands for cuda.CapturedGraph: what the work puts on the stream is kept, and not executed."""

    def __init__(self, world: World, stream: int, work: Callable[[], None]) -> None:
        (self.stream,) = [each for each in world.streams if each.handle == stream]
        assert not self.stream.work, "captured while work was under way"
        work()
        self.work = list(self.stream.work)
        self.stream.work.clear()

    def launch(self) -> None:
        self.stream.work.extend(self.work)

    def close(self) -> None:
        assert not self.stream.work, "freed while work was under way"


class Engine:
    """Stands for a session: gives the negative of a picture, on the stream, when it gets there.

    One that captures itself keeps the addresses that it was first given, as graphs do.
    """

    def __init__(self, world: World, captures_itself: bool) -> None:
        self.world = world
        self.captures_itself = captures_itself
        self.addresses = (0, 0)
        self.open = True
        self.runs = 0

    def bind(self, image: int, restored: int) -> None:
        if self.captures_itself and self.runs:
            assert self.addresses == (image, restored), "its graph holds other addresses"
        self.addresses = (image, restored)

    def enqueue(self, stream: int) -> None:
        (target,) = [each for each in self.world.streams if each.handle == stream]
        image, restored = (self.world.allocations[address] for address in self.addresses)
        self.runs += 1

        def compute() -> None:
            assert self.open, "the engine was closed while it had work"
            restored.bytes[:] = 255 - image.bytes

        target.put(compute)

    def close(self) -> None:
        assert self.world.contexts > 0, "closed without a context"
        self.open = False
