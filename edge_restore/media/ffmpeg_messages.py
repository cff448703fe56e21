"""What FFmpeg reports as errors while it reads a file: it goes on, and the caller never hears.

PyAV hands the messages of FFmpeg's threads to Python, each with the interpreter's lock. A decoder
whose threads are at work must not be freed by a thread that holds the lock, so `drained` before.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import VideoStream

_lock = threading.Lock()
_listening: list[FFmpegMessages] = []
_before: dict[str, Any] = {}


class FFmpegMessages:
    """The errors that FFmpeg reports while the block runs; use it with ``with``.

    FFmpeg does not say of which file a message is: of two that are read at the same time by the
    same reader both hear it.

    Attributes:
        names: of the readers whose messages count, as FFmpeg calls them, e.g. "h264".
        count: how many there were.
        first: the first of them; empty when there is none.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.count = 0
        self.first = ""
        self._heard: list[tuple[str, str]] = []

    def __enter__(self) -> FFmpegMessages:
        from av import logging

        with _lock:
            if not _listening:
                _before.update(level=logging.get_level(), repeated=logging.get_skip_repeated())
                _before["capture"] = capture = logging.Capture(local=False)
                logging.set_skip_repeated(False)
                logging.set_level(logging.ERROR)
                _before["logs"] = capture.__enter__()
            _listening.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        from av import logging

        with _lock:
            _pass_on()
            _listening.remove(self)
            if not _listening:
                _before["capture"].__exit__(None, None, None)
                logging.set_skip_repeated(_before["repeated"])
                logging.set_level(_before["level"])
                _before.clear()
        self._sort()

    def look(self) -> None:
        """Bring the attributes up to date."""
        if _before.get("logs"):
            with _lock:
                _pass_on()
        self._sort()

    def _sort(self) -> None:
        heard, self._heard = self._heard, []
        for name, message in heard:
            if name in self.names:
                self.count += 1
                self.first = self.first or message


def _pass_on() -> None:
    """Give what was heard so far to all who listen."""
    logs = _before["logs"]
    new = logs[:]
    del logs[: len(new)]
    for listener in _listening:
        listener._heard += [(name, message.strip()) for _, name, message in new]


def drained(stream: VideoStream) -> None:
    """Wait until no thread of the decoder is at work; its pictures are thrown away."""
    import av

    try:
        while stream.codec_context.decode(None):
            pass
    except (av.FFmpegError, ValueError):  # it was drained before, or never opened
        return
