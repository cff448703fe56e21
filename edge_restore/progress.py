"""How far a long task has come: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from edge_restore.errors import shown

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0


class Progress:
    """Counts units of work and shows the count, the rate and the time that is left.

    On a terminal one line is redrawn in place. Elsewhere (a log, a pipe) a line is printed
    about every ten seconds, and a last one at the end. Threads may share one Progress.

    Args:
        total: how many units there will be; None when nobody knows.
        label: what is being done, e.g. "restoring".
        unit: what is counted, in the singular.
        stream: where to show it; standard error by default, so that results can be piped.
        done: how many were done before; the rate is that of the others.
    """

    def __init__(
        self, total: int | None, label: str, unit: str = "frame", stream: TextIO | None = None,
        done: int = 0,
    ) -> None:  # fmt: skip
        self.total = total
        self.label = shown(label)
        self.unit = unit
        self.done = self._before = done
        # Without a standard error sys.stderr is None.
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._terminal = False
        if self._stream is not None and not self._stream.closed:
            self._terminal = self._stream.isatty()
        self._pause = _REDRAW_SECONDS if self._terminal else _LINE_SECONDS
        self._started = self._shown = time.monotonic()
        self._note = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        self._started = self._shown = time.monotonic()
        if self._terminal:
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._show(last=True)
            if self._terminal:
                self._write("\n")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (e.g. a loss) is shown at the end of the line."""
        with self._lock:
            self.done += n
            self._note = note or self._note
            if time.monotonic() - self._shown >= self._pause:
                self._show()

    def line(self, last: bool = False) -> str:
        """The present state as one line of text, e.g. "restoring 12/48 frames 25%, 3.1/s, ..."."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._before) / seconds
        # A container's own count may be wrong: one that was passed says nothing any more.
        known = self.total is not None and self.total > 0 and self.done <= self.total
        count = f"{self.done}/{self.total}" if known else f"{self.done}"
        plural = "" if not known and self.done == 1 else "s"
        parts = [f"{self.label} {count} {self.unit}{plural}"]
        if self.total is not None and known:
            parts[0] += f" {100 * self.done / self.total:.0f}%"
        if rate:
            parts.append(f"{rate:.2f}/s" if rate < 10 else f"{rate:.0f}/s")
        if last:
            parts.append(f"took {duration(seconds)}")
        elif self.total is not None and known and rate:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if self._note:
            parts.append(shown(self._note))
        return ", ".join(parts)

    def _show(self, last: bool = False) -> None:
        self._shown = time.monotonic()
        text = self.line(last)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r" + (self._bar() + text)[:width].ljust(width))
        else:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        """Show `text` where that is possible: no work ends because its progress cannot be seen."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # full, gone, or closed
            self._stream = None

    def _bar(self, cells: int = 20) -> str:
        if not self.total or self.done > self.total:
            return ""
        full = cells * self.done // self.total
        return "[" + "#" * full + "-" * (cells - full) + "] "


def duration(seconds: float) -> str:
    """`seconds` as a person says it: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
