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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_restore.backends.restorer import Restorer
from edge_restore.errors import InternalError, UserError
from edge_restore.frames import Frame, StageClock
from edge_restore.sinks import PartSink, Sink
from edge_restore.sources import Source

STAGES = ("decode", "queue", "restore", "encode", "total")
"""What is timed for each frame. "queue" is all waiting: before restore and before encode."""

_LOST = {"decode": "not decoded", "restore": "not restored", "encode": "not written"}
"""The stages in order, and what is the matter with a frame that is lost when one fails."""

_SIGNAL_SECONDS = 0.1
"""How late a signal may be handled, at most."""


@dataclass(frozen=True)
class Failure:
    """Why a stream ended before its source did.

    Attributes:
        frame: index of the first frame that is not in the output.
        error: what happened.
    """

    frame: int
    error: UserError


@dataclass
class StreamResult:
    """What became of a stream's frames: ``frames_in == frames_out + sum(drops.values())``.

    Attributes:
        frames_in: frames that the source gave.
        frames_out: frames that the output holds.
        drops: frames lost on the way, by cause: "interrupted", "not restored", "not written".
        stages: time of each frame in each of `STAGES`, in milliseconds, in order of the frames
            that the sink took. Those that it took and could not write are among them.
        wall_seconds: from the first frame's decoding to the published output.
        interrupted: whether the stream was stopped before the source's end.
        failure: why it ended early by itself; None when it did not.
        output: where the output is; None when there is none.
        warnings: what went wrong without ending the stream, for people to read.
    """

    frames_in: int = 0
    frames_out: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    wall_seconds: float = 0.0
    interrupted: bool = False
    failure: Failure | None = None
    output: Path | None = None
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
    frame's time, and closed at the end. The source stays the caller's to close.

    The sink is finished at the end, when `stop` was set, and also when a stage fails in
    mid-stream: the frames before it are an output of their own, and `StreamResult.failure` says
    why there are no more. It is aborted when no frame came so far.

    Args:
        source: gives the frames; iterated in a thread of its own.
        restorer: opened, used and closed in a thread of its own.
        sink: takes the frames in a thread of its own; finished or aborted in the caller's.
        queue_size: how many frames wait between two stages at most.
        on_frame: called after each frame that the sink took, in the sink's thread.
        stop: set it from anywhere to end early: no more frames are read, those that wait for the
            restorer are dropped as "interrupted", those restored are written.

    Raises:
        UserError: a stage failed before a frame was written.
        Exception: a source, restorer, sink or `on_frame` raised what no user can have caused. All
            threads have ended and the sink is finished with the frames so far.
    """
    stages = _Stages(source, restorer, sink, queue_size, on_frame, stop or threading.Event())
    try:
        result = stages.run()
        if stages.error is not None and not result.frames_out:
            raise stages.error
        _finish(sink, result, stages.error)
    except BaseException:
        sink.abort()
        raise
    if stages.error is not None and not isinstance(stages.error, UserError):
        raise stages.error
    result.wall_seconds = (time.perf_counter_ns() - stages.started) / 1e9
    result.warnings = [*source.warnings, *source.remarks, *sink.warnings]
    if result.frames_in != result.frames_out + sum(result.drops.values()):
        raise InternalError(f"frames were lost without a cause: {result}")
    return result


def _finish(sink: Sink, result: StreamResult, error: Exception | None) -> None:
    """Publish the sink's frames, and say in `result` which there are and why no others."""
    taken = result.frames_out
    kept = taken
    try:
        if not isinstance(sink, PartSink):
            result.output = sink.finish()
        else:
            part = error is not None or result.interrupted
            result.output = sink.finish_part() if part else sink.finish()
            kept = sink.frames_written
            error = error or sink.failure
    except UserError as failure:
        kept, error = 0, error or failure
        sink.abort()
    if kept < taken:
        result.frames_out = kept
        result.drops["not written"] = result.drops.get("not written", 0) + taken - kept
    if isinstance(error, UserError):
        result.failure = Failure(result.frames_out, error)


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
        self.started = 0
        self._source = source
        self._restorer = restorer
        self._sink = sink
        self._on_frame = on_frame
        self._stop = stop
        self._decoded = _Queue(queue_size)
        self._restored = _Queue(queue_size)
        self._ready = threading.Event()
        self._errors: dict[str, Exception] = {}
        self._drops: Counter[str] = Counter()
        self._result = StreamResult()

    @property
    def error(self) -> Exception | None:
        """What ended the stream early: a bug of ours, or the failure after which nothing came."""
        for error in self._errors.values():
            if not isinstance(error, UserError):
                return error
        # Frames before a stage's failure go on to the next one, which may fail at an earlier frame.
        return next((self._errors[s] for s in reversed(_LOST) if s in self._errors), None)

    def run(self) -> StreamResult:
        threads = [
            threading.Thread(target=self._guarded, args=(name, stage), name=name)
            for name, stage in zip(_LOST, (self._decode, self._restore, self._encode), strict=True)
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
            self._decoded.refuse()
            self._restored.refuse()
            self._ready.set()
            for thread in threads:
                thread.join()
            raise
        lost = self._result.frames_in - self._result.frames_out - sum(self._drops.values())
        for stage in reversed(_LOST):
            if stage in self._errors and lost:
                self._drops[_LOST[stage]] += lost
                break
        self._result.drops = dict(self._drops)
        return self._result

    def _guarded(self, name: str, stage: Callable[[], None]) -> None:
        """Run a stage. Where it fails those after it do what they have, those before it end."""
        try:
            stage()
        except Exception as error:
            self._errors[name] = _explained(error, name)
        finally:
            if name == "encode":
                self._restored.refuse()
            if name != "decode":
                self._decoded.refuse()
                self._restored.end()
            self._decoded.end()
            self._ready.set()

    def _decode(self) -> None:
        self._ready.wait()
        self.started = time.perf_counter_ns()
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

    def _restore(self) -> None:
        restorer, info = self._restorer, self._source.info
        restored = 0
        try:
            restorer.open(info.height, info.width)
            self._ready.set()
            try:
                for frame in self._decoded:
                    if self._stop.is_set():
                        self._drops["interrupted"] += 1
                        self._result.interrupted = True
                        continue
                    restorer.submit(frame)
                    while (done := restorer.collect()) is not None:
                        self._restored.put(done)
                        restored += 1
            except UserError:
                self._save_frames_before(restored)
                raise
            for done in restorer.flush():
                self._restored.put(done)
        finally:
            restorer.close()

    def _save_frames_before(self, following: int) -> None:
        """Take the frames that were under way in the restorer when it failed at a later one."""
        with suppress(Exception):
            for done in self._restorer.flush():
                if done.index != following:
                    return
                self._restored.put(done)
                following += 1

    def _encode(self) -> None:
        for frame in self._restored:
            self._sink.write(frame)
            self._result.frames_out += 1
            for stage, milliseconds in _times(frame.clock).items():
                self._result.stages[stage].append(milliseconds)
            if self._on_frame is not None:
                self._on_frame(frame)


def _explained(error: Exception, stage: str) -> Exception:
    """What the machine refused, as a user's error; anything else as it is."""
    if isinstance(error, MemoryError):
        explained = UserError(
            "the memory ran out",
            expected="room for a few frames in each stage",
            hint="close other programs, or restore smaller frames",
        )
    elif isinstance(error, OSError):
        explained = UserError(
            f"the stage '{stage}' failed: {error.strerror or error}",
            expected="files and devices that stay readable and writable",
            hint="check the disk and the file it names, then run again",
        )
    else:
        return error
    explained.__cause__ = error
    return explained


def _times(clock: StageClock) -> dict[str, float]:
    """Milliseconds of one frame in each of `STAGES`."""
    started, ended = clock.started, clock.finished
    waiting = started["restore"] - ended["decode"] + started["encode"] - ended["restore"]
    return {
        "decode": clock.milliseconds("decode"),
        "queue": waiting / 1e6,
        "restore": clock.milliseconds("restore"),
        "encode": clock.milliseconds("encode"),
        "total": (ended["encode"] - started["decode"]) / 1e6,
    }
