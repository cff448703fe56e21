"""The way of a frame: source -> (decode) -> restore -> (encode) -> sink.

Three threads, one for each stage, with one bounded queue between two of them. Decoding and encoding
release the interpreter while FFmpeg works, and restoring while its backend does, so the three
overlap. A full queue holds back the thread before it: memory stays bounded by the queues' sizes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edge_restore.backends.restorer import Restorer
from edge_restore.errors import InternalError
from edge_restore.frames import Frame, StageClock
from edge_restore.sinks import Sink
from edge_restore.sources import Source

STAGES = ("decode", "queue", "restore", "encode", "total")
"""What is timed for each frame. "queue" is all waiting: before restore and before encode."""

_SIGNAL_SECONDS = 0.1
"""How late a signal may be handled, at most."""


@dataclass
class StreamResult:
    """What became of a stream's frames: ``frames_in == frames_out + sum(drops.values())``.

    Attributes:
        frames_in: frames that the source gave.
        frames_out: frames that the sink took.
        drops: frames lost on the way, by cause: "interrupted".
        stages: time of each frame in each of `STAGES`, in milliseconds, in order of the frames
            that the sink took.
        wall_seconds: from the first frame's decoding to the published output.
        interrupted: whether the stream was stopped before the source's end.
        warnings: what went wrong without ending the stream, for people to read.
    """

    frames_in: int = 0
    frames_out: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    wall_seconds: float = 0.0
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)


def run(
    source: Source,
    restorer: Restorer,
    sink: Sink,
    *,
    queue_size: int = 4,
    on_frame: Callable[[Frame], None] | None = None,
    stop: threading.Event | None = None,
) -> StreamResult:
    """Restore a stream from `source` to `sink`.

    The restorer is opened before the first frame is decoded, so that its preparations count for no
    frame's time, and closed at the end. The sink is finished at the end, and also when `stop` was
    set; it is aborted when anything fails. The source stays the caller's to close.

    Args:
        source: gives the frames; iterated in a thread of its own.
        restorer: opened, used and closed in a thread of its own.
        sink: takes the frames in a thread of its own; finished or aborted in the caller's.
        queue_size: how many frames wait between two stages at most.
        on_frame: called after each frame that the sink took, in the sink's thread.
        stop: set it from anywhere to end early: no more frames are read, those that wait for the
            restorer are dropped as "interrupted", those restored are written.

    Raises:
        Exception: the first one that a source, restorer, sink or `on_frame` raised, after all
            threads have ended.
    """
    stages = _Stages(source, restorer, sink, queue_size, on_frame, stop or threading.Event())
    try:
        result = stages.run()
        sink.finish()
    except BaseException:
        sink.abort()
        raise
    result.wall_seconds = (time.perf_counter_ns() - stages.begun) / 1e9
    result.warnings = [*source.warnings, *sink.warnings]
    if result.frames_in != result.frames_out + sum(result.drops.values()):
        raise InternalError(f"frames were lost without a cause: {result}")
    return result


class _Queue:
    """A bounded queue between two threads that can be ended from either side.

    The standard library's cannot: a thread that waits in it never learns that the other is gone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._refused = False

    def put(self, frame: Frame) -> bool:
        """Append a frame, waiting for room; False when nobody will take it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) < self._size or self._refused)
            if self._refused:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[Frame]:
        """Take frames, waiting for each, until the queue is ended and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._ended)
                if not self._frames:
                    return
                frame = self._frames.popleft()
                self._changed.notify_all()
            yield frame

    def end(self) -> None:
        """Say that no more frames will be put."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def refuse(self) -> None:
        """Say that no more frames will be taken; those inside are forgotten."""
        with self._changed:
            self._refused = self._ended = True
            self._frames.clear()
            self._changed.notify_all()


class _Stages:
    """The three threads of one run and what they share."""

    def __init__(
        self,
        source: Source,
        restorer: Restorer,
        sink: Sink,
        queue_size: int,
        on_frame: Callable[[Frame], None] | None,
        stop: threading.Event,
    ) -> None:
        self.begun = 0
        self._source = source
        self._restorer = restorer
        self._sink = sink
        self._on_frame = on_frame
        self._stop = stop
        self._decoded = _Queue(queue_size)
        self._restored = _Queue(queue_size)
        self._ready = threading.Event()
        self._errors: list[BaseException] = []
        self._drops: Counter[str] = Counter()
        self._result = StreamResult()

    def run(self) -> StreamResult:
        threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=stage.__name__.strip("_"))
            for stage in (self._decode, self._restore, self._encode)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    # Not without end: a signal that another thread took, or that came a moment
                    # before the wait, does not end it, and would be handled after the last frame.
                    thread.join(_SIGNAL_SECONDS)
        except BaseException:  # a second Ctrl-C, say: end at once, but leave no thread behind
            self._fail()
            for thread in threads:
                thread.join()
            raise
        if self._errors:
            raise self._errors[0]
        self._result.drops = dict(self._drops)
        return self._result

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:
            self._errors.append(error)
            self._fail()

    def _fail(self) -> None:
        """Let every thread fall through to its end."""
        self._decoded.refuse()
        self._restored.refuse()
        self._ready.set()

    def _decode(self) -> None:
        self._ready.wait()
        self.begun = time.perf_counter_ns()
        if self._stop.is_set():
            self._result.interrupted = True
        elif not self._errors:
            for frame in self._source:
                self._result.frames_in += 1
                if not self._decoded.put(frame):
                    break
                if self._stop.is_set():
                    self._result.interrupted = True
                    break
        self._decoded.end()

    def _restore(self) -> None:
        restorer, info = self._restorer, self._source.info
        try:
            restorer.open(info.height, info.width)
            self._ready.set()
            for frame in self._decoded:
                if self._stop.is_set():
                    self._drops["interrupted"] += 1
                    self._result.interrupted = True
                    continue
                restorer.submit(frame)
                while (restored := restorer.collect()) is not None:
                    self._restored.put(restored)
            for restored in restorer.flush():
                self._restored.put(restored)
        finally:
            restorer.close()
        self._restored.end()

    def _encode(self) -> None:
        for frame in self._restored:
            self._sink.write(frame)
            self._result.frames_out += 1
            for stage, milliseconds in _times(frame.clock).items():
                self._result.stages[stage].append(milliseconds)
            if self._on_frame is not None:
                self._on_frame(frame)


def _times(clock: StageClock) -> dict[str, float]:
    """Milliseconds of one frame in each of `STAGES`."""
    begun, ended = clock.begun, clock.ended
    waiting = begun["restore"] - ended["decode"] + begun["encode"] - ended["restore"]
    return {
        "decode": clock.milliseconds("decode"),
        "queue": waiting / 1e6,
        "restore": clock.milliseconds("restore"),
        "encode": clock.milliseconds("encode"),
        "total": (ended["encode"] - begun["decode"]) / 1e6,
    }
