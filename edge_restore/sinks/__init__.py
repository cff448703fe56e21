"""Sinks: where restored frames go."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from edge_restore.errors import UserError
from edge_restore.frames import Frame
from edge_restore.media.stream_info import StreamInfo

__all__ = ["PartSink", "Sink", "open_sink"]


class Sink(Protocol):
    """Takes frames in order; what it made stands nowhere before `finish`.

    Life: any number of `write`, then `finish` or `abort`. Both are safe to call again.
    """

    warnings: list[str]
    """What could not be kept of the source."""

    def write(self, frame: Frame) -> None:
        """Encode a frame and stamp the stage "encode" on its clock.

        Raises:
            SinkError: the frame cannot be written.
        """

    def finish(self) -> Path | None:
        """Publish what was written; where it is now, or None when no frame was written."""

    def abort(self) -> None:
        """Remove what was written; whatever stood at the output's place is untouched."""


@runtime_checkable
class PartSink(Sink, Protocol):
    """A sink whose output is of use also when it ends early, e.g. because the disk is full."""

    frames_written: int
    """How many frames the output holds; known after it is published, which may write the last."""

    failure: UserError | None
    """Why it holds fewer than were taken; None when it does not."""

    def finish_part(self) -> Path | None:
        """Publish what was written, also after a `write` that failed, replacing nothing.

        Returns:
            Where it is now, or None when no frame was written.

        Raises:
            SinkError: it cannot be published; nothing is left of it.
        """


def open_sink(path: str | Path, info: StreamInfo, *, source_path: Path | None) -> Sink:
    """Open the video file `path` for frames of the stream `info`.

    Args:
        path: an MP4 or QuickTime file, by its suffix.
        info: what the output shares with the source: size, rate, times, colours, tags.
        source_path: the file whose sound is copied; None for a silent output.

    Raises:
        SinkError: no such file can be written.
        DependencyError: PyAV is not installed.
    """
    from edge_restore.sinks.file import FileSink

    return FileSink(Path(path), info, source_path=source_path)
