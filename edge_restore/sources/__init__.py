"""Sources: where frames come from. A URI picks the kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edge_restore.errors import SourceError
from edge_restore.frames import Frame
from edge_restore.media.stream_info import StreamInfo
from edge_restore.storage.files import check_input

__all__ = ["Source", "StreamInfo", "open_source"]


class Source(Protocol):
    """An iterable of frames with increasing presentation times.

    Iterating stamps the stage "decode" on each frame's clock: begin when the frame was asked for,
    end when its RGB pixels are there.
    """

    info: StreamInfo
    """What is known of the stream beforehand."""

    warnings: list[str]
    """What went wrong without ending the stream; complete when the iteration has ended."""

    remarks: list[str]
    """What is odd and may have done no harm; complete when the iteration has ended."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_source(uri: str | Path, *, max_frames: int | None = None) -> Source:
    """Open the source that `uri` names: a video file, by its path.

    Args:
        uri: what to read.
        max_frames: end after so many frames; None for all.

    Raises:
        SourceError: there is no such source, or no video can be read from it.
        OptionError: `max_frames` is less than 1.
        DependencyError: PyAV is not installed.
    """
    from edge_restore.sources.file import FileSource

    scheme, separator, _ = str(uri).partition("://")
    if separator:
        raise SourceError(
            f"'{scheme}://' is not a kind of source that can be read",
            expected="the path of a video file",
            hint="give the file's path, or record the stream to a file first",
        )
    # A pipe can be read once, and a file is read several times; opening one may wait for ever.
    check_input(uri, "the source", SourceError)
    return FileSource(Path(uri), max_frames=max_frames)
