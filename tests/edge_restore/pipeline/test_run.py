"""The pipeline: every frame is accounted for, and nothing hangs whatever fails."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

from edge_restore.errors import BackendError, InternalError
from edge_restore.frames import Frame
from edge_restore.pipeline import run as pipeline
from edge_restore.pipeline.run import StreamResult
from edge_restore.sinks import open_sink
from edge_restore.sources import StreamInfo, open_source
from tests.edge_restore.clips import VARIABLE_GAPS, facts, write_clip

SECONDS = 20
"""What no test takes, however busy the machine is: a thread that is alive then hangs."""


class Numbers:
    """A source of small frames; calls `at[index]` before it gives the frame `index`."""

    def __init__(self, count: int, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.info = StreamInfo(4, 2, Fraction(30), Fraction(1, 30))
        self.warnings: list[str] = []
        self.remarks: list[str] = []
        self._count = count
        self._at = at or {}

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            self._at.get(index, int)()
            frame = Frame(np.full((2, 4, 3), index % 256, np.uint8), index, index, Fraction(1, 30))
            frame.clock.begin("decode")
            frame.clock.end("decode")
            yield frame

    def close(self) -> None:
        pass

    def __enter__(self) -> Numbers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Inverter:
    """A restorer with `in_flight` frames under way; calls `at[index]` when it gets `index`."""

    name = "inverter"

    def __init__(
        self, in_flight: int = 1, at: dict[int | str, Callable[[], None]] | None = None
    ) -> None:
        self.in_flight = in_flight
        self.closed = False
        self._at = at or {}
        self._under_way: deque[Frame] = deque()

    def open(self, height: int, width: int) -> None:
        self._at.get("open", int)()

    def submit(self, frame: Frame) -> None:
        assert len(self._under_way) < self.in_flight, "more frames than may be in flight"
        self._at.get(frame.index, int)()
        frame.clock.begin("restore")
        self._under_way.append(frame)

    def collect(self) -> Frame | None:
        if len(self._under_way) < self.in_flight:
            return None
        return self._finished()

    def flush(self) -> list[Frame]:
        return [self._finished() for _ in range(len(self._under_way))]

    def close(self) -> None:
        self.closed = True

    def _finished(self) -> Frame:
        frame = self._under_way.popleft()
        frame.pixels = 255 - frame.pixels
        frame.clock.end("restore")
        return frame


class Memory:
    """A sink that keeps frames; calls `at[index]` before it takes `index`."""

    def __init__(self, at: dict[int | str, Callable[[], None]] | None = None) -> None:
        self.frames: list[Frame] = []
        self.warnings: list[str] = []
        self.remarks: list[str] = []
        self.ended = ""
        self._at = at or {}

    def write(self, frame: Frame) -> None:
        self._at.get(frame.index, int)()
        frame.clock.begin("encode")
        self.frames.append(frame)
        frame.clock.end("encode")

    def finish(self) -> Path | None:
        self._at.get("finish", int)()
        self.ended = "finished"
        return Path("memory")

    def abort(self) -> None:
        self.ended = "aborted"


def run(*stages: Any, **options: Any) -> StreamResult:
    """`pipeline.run`, failing where it would hang and where it leaves threads behind."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(pipeline.run(*stages, **options))
        except BaseException as error:
            outcome.append(error)

    before = set(threading.enumerate())
    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(SECONDS)
    assert not caller.is_alive(), "the pipeline hangs"
    assert set(threading.enumerate()) <= before, "a thread was left behind"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    result: StreamResult = outcome[0]
    return result


def fail() -> None:
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("queue_size", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_all_frames_in_order(in_flight: int, queue_size: int, count: int) -> None:
    sink, restorer, seen = Memory(), Inverter(in_flight), []
    result = run(
        Numbers(count),
        restorer,
        sink,
        queue_size=queue_size,
        on_frame=lambda frame: seen.append(frame.index),
    )
    assert [frame.index for frame in sink.frames] == seen == list(range(count))
    assert all((frame.pixels == 255 - frame.index).all() for frame in sink.frames)
    assert (result.frames_in, result.frames_out, result.drops) == (count, count, {})
    assert not result.interrupted
    assert restorer.closed
    assert sink.ended == "finished"


def test_times_of_every_stage() -> None:
    def sleep() -> None:
        time.sleep(0.02)

    # The restorer is late for frame 3 and the sink for frame 5: others wait for them.
    sink = Memory({5: sleep})
    result = run(Numbers(8), Inverter(1, {3: sleep}), sink)
    assert list(result.stages) == ["decode", "queue", "restore", "encode", "total"]
    for times in result.stages.values():
        assert len(times) == 8
        assert min(times) >= 0
    for index in range(8):
        parts = [result.stages[name][index] for name in ("decode", "queue", "restore", "encode")]
        assert sum(parts) == pytest.approx(result.stages["total"][index])
    assert result.stages["queue"][4] > 1 or result.stages["queue"][6] > 1
    assert result.wall_seconds >= 0.04


def test_opening_the_restorer_counts_for_no_frame() -> None:
    opened = []

    def slowly() -> None:
        time.sleep(0.05)
        opened.append(True)

    decoded_early = []
    source = Numbers(3, {0: lambda: decoded_early.append(not opened)})
    run(source, Inverter(1, {"open": slowly}), Memory())
    assert decoded_early == [False]


def test_queues_are_bounded() -> None:
    held = threading.Event()
    ahead = []

    class Slow(Memory):
        def write(self, frame: Frame) -> None:
            if frame.index == 0:
                held.wait(1)
            ahead.append(source.given - frame.index)
            super().write(frame)

    class Counting(Numbers):
        given = 0

        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                self.given += 1
                yield frame

    source = Counting(60)
    run(source, Inverter(), Slow(), queue_size=2)
    # Two queues of 2, and one frame in each of the three stages.
    assert max(ahead) <= 2 * 2 + 3


def test_stop_writes_what_was_restored_and_counts_the_rest() -> None:
    stop = threading.Event()

    def on_frame(frame: Frame) -> None:
        if frame.index == 5:
            stop.set()

    sink = Memory()
    result = run(Numbers(10**6), Inverter(2), sink, stop=stop, on_frame=on_frame)
    assert result.interrupted
    assert result.frames_in == result.frames_out + result.drops.get("interrupted", 0)
    assert set(result.drops) <= {"interrupted"}
    assert 6 <= result.frames_out <= result.frames_in < 100
    assert [frame.index for frame in sink.frames] == list(range(result.frames_out))
    assert sink.ended == "finished"


def test_stop_does_not_wait_for_the_frames_in_the_queue() -> None:
    stop, busy = threading.Event(), threading.Event()

    def restore_slowly() -> None:
        busy.set()
        stop.wait(SECONDS)

    def interrupt() -> None:
        busy.wait(SECONDS)
        stop.set()

    source, restorer = Numbers(100, {7: interrupt}), Inverter(1, {0: restore_slowly})
    result = run(source, restorer, Memory(), queue_size=8, stop=stop)
    assert (result.frames_in, result.frames_out, result.drops) == (8, 1, {"interrupted": 7})


def test_stop_before_the_first_frame() -> None:
    stop = threading.Event()
    stop.set()
    sink = Memory()
    result = run(Numbers(5), Inverter(), sink, stop=stop)
    assert (result.frames_in, result.frames_out, result.interrupted) == (0, 0, True)
    assert sink.ended == "finished"


def test_stop_after_the_last_frame_is_no_interruption() -> None:
    stop = threading.Event()
    result = run(
        Numbers(3), Inverter(), Memory(), stop=stop, on_frame=lambda f: f.index == 2 and stop.set()
    )
    assert (result.frames_out, result.interrupted) == (3, False)


def test_a_signal_that_another_thread_took_is_handled_at_once() -> None:
    """It does not wake the main thread, as one that comes a moment before a wait does not."""
    stop = threading.Event()

    def take_signal() -> None:
        time.sleep(0.3)  # the main thread waits by then
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        stop.wait(SECONDS)

    previous = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        began = time.monotonic()
        result = pipeline.run(Numbers(9, {3: take_signal}), Inverter(), Memory(), stop=stop)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert result.interrupted
    assert time.monotonic() - began < SECONDS / 2


STAGES_THAT_FAIL: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "source at once": lambda: (Numbers(90, {0: fail}), Inverter(), Memory()),
    "source later": lambda: (Numbers(90, {30: fail}), Inverter(), Memory()),
    "restorer opening": lambda: (Numbers(90), Inverter(1, {"open": fail}), Memory()),
    "restorer at once": lambda: (Numbers(90), Inverter(1, {0: fail}), Memory()),
    "restorer later": lambda: (Numbers(90), Inverter(3, {30: fail}), Memory()),
    "sink at once": lambda: (Numbers(90), Inverter(), Memory({0: fail})),
    "sink later": lambda: (Numbers(90), Inverter(2), Memory({30: fail})),
    "sink at the end": lambda: (Numbers(90), Inverter(), Memory({"finish": fail})),
    "all": lambda: (Numbers(90, {9: fail}), Inverter(1, {5: fail}), Memory({3: fail})),
}


@pytest.mark.parametrize("queue_size", [1, 4])
@pytest.mark.parametrize("which", STAGES_THAT_FAIL)
def test_a_failure_surfaces_and_nothing_hangs(which: str, queue_size: int) -> None:
    source, restorer, sink = STAGES_THAT_FAIL[which]()
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        run(source, restorer, sink, queue_size=queue_size)
    assert any(entry.name == "fail" for entry in caught.traceback)
    kept = sink.frames and which != "sink at the end"
    assert sink.ended == ("finished" if kept else "aborted")
    assert restorer.closed


def test_a_failure_of_the_callers_own_function_surfaces() -> None:
    sink = Memory()
    with pytest.raises(ZeroDivisionError):
        run(Numbers(50), Inverter(), sink, on_frame=lambda frame: fail())
    assert sink.ended == "finished"


def test_a_restorer_that_loses_a_frame_is_found_out() -> None:
    class Forgetful(Inverter):
        def flush(self) -> list[Frame]:
            return super().flush()[1:]

    with pytest.raises(InternalError, match="frames were lost"):
        run(Numbers(5), Forgetful(in_flight=3), Memory())


def test_files_end_to_end(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "source.mp4", gaps=VARIABLE_GAPS, width=4, height=2)
    with open_source(clip) as source:
        sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
        result = run(source, Inverter(2), sink)
    assert (result.frames_in, result.frames_out, result.warnings) == (24, 24, [])
    assert all(min(result.stages[name]) > 0 for name in ("decode", "encode", "total"))
    expected, found = facts(clip), facts(tmp_path / "output.mp4")
    assert found == expected


def test_an_interrupted_file_plays_to_where_it_came(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 90)
    stop = threading.Event()
    with open_source(clip) as source:
        sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
        result = run(
            source,
            Inverter(),
            sink,
            stop=stop,
            on_frame=lambda frame: stop.set() if frame.index == 10 else None,
        )
    assert result.interrupted
    found = facts(tmp_path / "output.mp4")
    assert found["frames"] == result.frames_out >= 11
    assert found["times"] == facts(clip)["times"][: result.frames_out]
    sound_end = Fraction(found["sound"][-1][0] + found["sound"][-1][1], 48000)
    assert 0 <= sound_end - Fraction(result.frames_out, 30) < Fraction(1024, 48000)
    assert sorted(os.listdir(tmp_path)) == ["output.mp4", "source.mp4"]


def test_an_interruption_before_the_first_frame_leaves_no_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "source.mp4")
    stop = threading.Event()
    stop.set()
    with open_source(clip) as source:
        sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
        assert run(source, Inverter(), sink, stop=stop).interrupted
    assert os.listdir(tmp_path) == ["source.mp4"]


def refuse() -> None:
    raise BackendError("not finite", expected="numbers", hint="another model")


def run_out() -> None:
    raise MemoryError


def lose_the_disk() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


FAILURES = {refuse: "not finite", run_out: "memory ran out", lose_the_disk: "Input/output error"}


def stages_failing_at(
    stage: str, index: int, failure: Callable[[], None], in_flight: int
) -> tuple[Numbers, Inverter, Memory]:
    at = {name: {index: failure} if name == stage else None for name in ("source", "sink")}
    restorer = Inverter(in_flight, {index: failure} if stage == "restorer" else None)
    return Numbers(60, at["source"]), restorer, Memory(at["sink"])  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("stage", ["source", "restorer", "sink"])
@pytest.mark.parametrize("index", [1, 17, 59])
def test_frames_before_a_failure_are_kept_when_a_stage_fails(
    index: int, stage: str, in_flight: int, failure: Callable[[], None]
) -> None:
    if failure is not refuse and stage == "restorer" and in_flight > 1:
        pytest.skip("memory or a device is gone: frames under way are not asked for")
    source, restorer, sink = stages_failing_at(stage, index, failure, in_flight)
    result = run(source, restorer, sink)
    assert [frame.index for frame in sink.frames] == list(range(index))
    assert sink.ended == "finished" and restorer.closed
    assert result.frames_out == index
    assert result.frames_in == result.frames_out + sum(result.drops.values())
    causes = {"source": set(), "restorer": {"not restored"}, "sink": {"not written"}}
    assert set(result.drops) == causes[stage]
    assert result.failure is not None and result.failure.frame == index
    assert FAILURES[failure] in str(result.failure.error)
    assert not result.interrupted


@pytest.mark.parametrize("stage", ["source", "restorer", "sink"])
def test_a_failure_at_the_first_frame_is_raised(stage: str) -> None:
    source, restorer, sink = stages_failing_at(stage, 0, refuse, 1)
    with pytest.raises(BackendError, match="not finite"):
        run(source, restorer, sink)
    assert sink.ended == "aborted"


def test_the_report_of_a_video_that_cannot_be_published_has_its_times() -> None:
    result = run(Numbers(9), Inverter(), Memory({"finish": refuse}))
    assert (result.frames_in, result.frames_out) == (9, 0)
    assert result.drops == {"not written": 9}
    assert result.output is None and result.failure is not None
    assert {len(times) for times in result.stages.values()} == {9}


@pytest.mark.parametrize("failure", [fail, refuse])
def test_a_failure_keeps_the_frames_so_far(tmp_path: Path, failure: Callable[[], None]) -> None:
    clip = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 60)
    with open_source(clip) as source, suppress(ZeroDivisionError):
        sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
        run(source, Inverter(1, {40: failure}), sink)
    found = facts(tmp_path / "output.mp4")
    assert found["times"] == facts(clip)["times"][:40]
    sound_end = Fraction(found["sound"][-1][0] + found["sound"][-1][1], 48000)
    assert 0 <= sound_end - Fraction(40, 30) < Fraction(1024, 48000)
    assert sorted(os.listdir(tmp_path)) == ["output.mp4", "source.mp4"]


def test_a_part_does_not_replace_an_older_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 60)
    (tmp_path / "output.mp4").write_bytes(b"an older one")
    places = []
    for _ in range(2):
        with open_source(clip) as source:
            sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
            places.append(run(source, Inverter(1, {40: refuse}), sink).output)
    assert places == [tmp_path / "output.partial.mp4", tmp_path / "output.partial-2.mp4"]
    assert [facts(place)["frames"] for place in places] == [40, 40]
    assert (tmp_path / "output.mp4").read_bytes() == b"an older one"
    assert len(os.listdir(tmp_path)) == 4


def test_what_the_source_complains_of_is_passed_on(tmp_path: Path) -> None:
    fast = write_clip(
        tmp_path / "whole.mp4",
        gaps=(3000,) * 60,
        options={"movflags": "+faststart"},
        sound=False,
    )
    whole = fast.read_bytes()
    clip = tmp_path / "cut.mp4"
    clip.write_bytes(whole[: (whole.index(b"mdat") + len(whole)) // 2])
    with open_source(clip) as source:
        sink = open_sink(tmp_path / "output.mp4", source.info, source_path=clip)
        result = run(source, Inverter(), sink)
    assert any("cut off" in warning for warning in result.warnings)
    assert facts(tmp_path / "output.mp4")["frames"] == result.frames_out > 10
