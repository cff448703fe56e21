"""The process of a command line: its signals, and what an exception means to its caller.

Each of the four packages' command lines is such a process::

    if __name__ == "__main__":
        process.guard()         # before the imports that take long
    ...
    if __name__ == "__main__":
        process.finish(main)    # ends the process with main's exit code

and its `main` runs the command by `run`, which turns exceptions into messages and exit codes.

SIGINT (Ctrl-C), SIGTERM and SIGHUP end the process at once: temporary files are removed, nothing is
unwound. An exception raised by a signal handler would not do: it may come in the middle of an
import, in a callback from C++, or in the interpreter's own end, where it is printed, or lost, or
aborts the process. Work that can be ended early in good order is done in `stop_on_signal`, where
the first signal is only noted. A signal that was ignored when the process started (`nohup`) stays
ignored.

Exit codes: 2 for what cannot be used, 128 and the signal's number when interrupted, 141 (that is,
SIGPIPE) when standard output was closed before all was printed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager

from edge_restore.errors import UserError, shown_lines
from edge_restore.machine import streams
from edge_restore.storage import temporaries

TYPE_CHECKING = False  # `typing` itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end: Ctrl-C, `kill`, and a terminal that went away."""

INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE
UNUSABLE = UserError.exit_code


class Interrupted(KeyboardInterrupt):
    """A signal that was noted ends the work by an exception.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stop:
    """Whether a signal asked for the end of the work in a `stop_on_signal` block.

    Attributes:
        event: set by the first signal.
        signal_number: that signal's number; SIGINT's before it came.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal_number = int(signal.SIGINT)

    @property
    def exit_code(self) -> int:
        """What a shell calls the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal_number

    def note(self, number: int) -> bool:
        """Take a signal's number; False when one came before."""
        if self.event.is_set():
            return False
        self.signal_number = number
        self.event.set()
        return True


class _State:
    """What the signals do at the moment; there is one process."""

    def __init__(self) -> None:
        self.program = ""  # empty until a command runs
        self.kept = ""
        self.guarded = False
        self.finished = False
        self.stops: list[Stop] = []


_state = _State()


def guard() -> None:
    """Make signals end this process quietly, and its standard streams safe, from here on."""
    if _state.guarded:
        return
    _state.guarded = True
    for number in _heeded():
        signal.signal(number, _end_by_handler)
    os.register_at_fork(after_in_child=_forget_signals)
    streams.make_safe()


def finish(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and end the process with the exit code that it returns."""
    guard()
    _watch_signals()
    code: int | str | None
    try:
        code = main()
    except SystemExit as end:  # argparse's
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    code = code or 0
    _state.finished = True  # the rest takes a moment, and the result stands
    for number in _heeded():
        signal.signal(number, signal.SIG_IGN)
    if (failure := streams.failure_of_output()) is not None and code == 0:
        if isinstance(failure, BrokenPipeError):
            code = CLOSED_PIPE
        else:
            reason = failure.strerror or str(failure)
            message = UserError(
                f"not all of the output could be printed: {reason}",
                expected="a standard output that takes it",
                hint="free space, or print to another place; the files are written",
            )
            print(f"{_state.program or 'error'}: error: {message}", file=sys.stderr)
            code = UNUSABLE
    sys.exit(code)


def run(program: str, command: Callable[[], int | None], *, kept: str, extras: str = "") -> int:
    """Run a command; what it raises for its user's sake becomes a message and an exit code.

    Args:
        program: the name that messages begin with.
        command: returns the exit code; None means 0.
        kept: what an interruption leaves, e.g. "the last checkpoint stays".
        extras: of edge-restore that bring what the program needs, e.g. "train,export".
    """
    _state.program, _state.kept = program, kept
    try:
        return command() or 0
    except UserError as error:
        _say(f"{program}: error: {error}")
        return error.exit_code
    except ImportError as error:
        from edge_restore.machine import optional

        if not optional.is_optional(error):
            raise
        _say(f"{program}: error: {optional.explained(error, needed_for=program, extras=extras)}")
    except KeyboardInterrupt as interruption:
        _say(f"{program}: interrupted; {kept}")
        return 128 + getattr(interruption, "number", signal.SIGINT)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        _say(f"{program}: error: " + str(UserError(
            f"there is not enough memory{reason}",
            expected="memory for the work",
            hint="give smaller inputs, a smaller --memory-budget where there is one, or end other "
            "programs",
        )))  # fmt: skip
    except OSError as error:
        where = "" if error.filename is None else f"'{error.filename}': "
        _say(f"{program}: error: " + str(UserError(
            f"{where}{error.strerror or error}",
            expected="files and folders that can be read and written",
            hint="check their permissions, their names, and the free space",
        )))  # fmt: skip
    return UNUSABLE


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """While the block runs, the first signal is noted, and the work can end in good order.

    The second one ends a guarded process at once; elsewhere it is raised as KeyboardInterrupt.
    Outside of the main thread signals do what they did.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if _state.guarded:
        _state.stops.append(stop)
        try:
            yield stop
        finally:
            _state.stops.remove(stop)
        return

    def handle(number: int, _: FrameType | None) -> None:
        if not stop.note(number):
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in _heeded()}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _heeded() -> list[int]:
    """The signals that were not ignored when this process was started."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _say(text: str) -> None:
    if sys.stderr is not None:  # without one, print would take standard output
        print(shown_lines(text), file=sys.stderr)


def _end_by_handler(number: int, _: FrameType | None) -> None:
    _take(number)


def _take(number: int) -> None:
    """Do what a signal asks: note it where somebody waits for it, or end the process."""
    if _state.finished or (_state.stops and _state.stops[-1].note(number)):
        return
    try:
        if "multiprocessing.process" in sys.modules:
            for child in sys.modules["multiprocessing.process"].active_children():
                child.kill()  # they would wait for work for ever
        temporaries.remove_all()
        if _state.program:
            start = "\n" if os.isatty(2) else ""  # after a progress bar
            os.write(2, f"{start}{_state.program}: interrupted; {_state.kept}\n".encode())
    finally:
        os._exit(128 + number)


def _watch_signals() -> None:
    """Take signals in a thread: the main one may be deep in C++, where no handler is called."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _heeded():
        signal.signal(number, lambda *_: None)  # Python's own part; the thread does the rest
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while numbers := os.read(reader, 64):
            for number in numbers:
                if number in SIGNALS:
                    _take(number)

    threading.Thread(target=watch, name="signals", daemon=True).start()


def _forget_signals() -> None:
    """In a forked child, which ends with its parent: a terminal sends its signals to both."""
    signal.set_wakeup_fd(-1)
    temporaries.forget_all()
    _state.stops.clear()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
