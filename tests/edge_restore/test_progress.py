from __future__ import annotations

import io

import pytest

from edge_restore import progress
from edge_restore.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_are_rare_and_the_last_is_always_there(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(40, "restoring", stream=stream) as shown:
        for _ in range(40):
            clock[0] += 0.5
            shown.advance()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "restoring 20/40 frames 50%, 2.00/s, 10 s left",
        "restoring 40/40 frames 100%, 2.00/s, 0 s left",
        "restoring 40/40 frames 100%, 2.00/s, took 20 s",
    ]


def test_what_was_done_before_is_not_in_the_rate(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(100, "training", unit="step", stream=stream, done=60) as shown:
        assert shown.line() == "training 60/100 steps 60%"
        clock[0] += 10
        shown.advance(20)
    assert stream.getvalue().startswith("training 80/100 steps 80%, 2.00/s, 10 s left\n")


def test_terminal_redraws_one_line(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    with Progress(4, "training", unit="step", stream=stream) as shown:
        for _ in range(4):
            clock[0] += 1
            shown.advance(note="loss 0.1")
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    drawn = text.split("\r")[1:]
    assert all(len(line.rstrip("\n")) == 59 for line in drawn)
    assert drawn[2].startswith("[##########----------] training 2/4 steps 50%, 1.00/s, 2 s")
    assert drawn[-1].startswith("[####################] training 4/4 steps 100%")


def test_unknown_total_shows_count_and_rate(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(None, "restoring", stream=stream) as shown:
        clock[0] += 2
        shown.advance()
        clock[0] += 2
        shown.advance(7, note="x")
    assert stream.getvalue() == "restoring 8 frames, 2.00/s, took 4 s, x\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_total_that_was_passed_is_not_shown(clock: list[float], stream: io.StringIO) -> None:
    with Progress(2, "restoring", stream=stream) as shown:
        clock[0] += 3
        shown.advance(3)
    last = stream.getvalue().split("\r")[-1].strip()
    assert last == "restoring 3 frames, 1.00/s, took 3 s"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("closed file")])
def test_stream_that_is_lost_does_not_end_the_work(error: Exception) -> None:
    class Lost(Terminal):
        def write(self, text: str) -> int:
            raise error

    with Progress(3, "restoring", stream=Lost()) as shown:
        shown.advance()
    assert shown.done == 1


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Progress(3, "restoring") as shown:
        shown.advance()
    assert shown.done == 1


def test_control_characters_of_a_note_are_shown() -> None:
    stream = io.StringIO()
    with Progress(1, "a\x1b[2J", stream=stream) as shown:
        shown.advance(note="b\n\x9b")
    assert "a\\x1b[2J" in stream.getvalue() and "b\\n\\u009b\n" in stream.getvalue()


def test_interrupted_work_still_ends_the_line() -> None:
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(3, "restoring", stream=stream):
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
