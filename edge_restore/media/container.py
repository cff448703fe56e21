"""Opening a video file with FFmpeg, and saying in words why it cannot be opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.errors import SourceError
from edge_restore.machine import optional
from edge_restore.media.truncation import truncation

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer


def file_url(path: str | os.PathLike[str]) -> str:
    """A local file's name for FFmpeg, which otherwise takes what precedes a colon for a protocol.

    So ``2024-05-01T10:30:00.mp4`` is a file, and so is one that is called ``http:`` something.
    """
    return f"file:{os.fspath(path)}"


def open_container(path: Path) -> InputContainer:
    """Open a video file for reading.

    Raises:
        SourceError: there is no such file, or FFmpeg cannot read it.
        DependencyError: PyAV is not installed.
    """
    av = optional.require("av", needed_for="reading video files")
    if path.is_dir():
        raise SourceError(
            f"'{path}' is a directory",
            expected="a video file",
            hint="name one of the files in it",
        )
    if not path.exists():
        raise SourceError(
            f"there is no file '{path}'",
            expected="a video file",
            hint="check the spelling; a relative path starts at the working directory",
        )
    if _is_playlist(path):
        raise SourceError(
            f"'{path}' is a playlist: it holds no frames, and names other files",
            expected="a video file",
            hint="name one of its files, or record the stream to one first",
        )
    try:
        # Other formats may name files as well, which must not be fetched from anywhere.
        options = {"protocol_whitelist": "file"}
        container = av.open(file_url(path), metadata_errors="replace", options=options)
    except av.FFmpegError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if container.format.name == "tty":  # FFmpeg would draw any text file as a picture
        container.close()
        raise _unreadable(path, "it is a text file")
    return container  # type: ignore[no-any-return]


def _is_playlist(path: Path) -> bool:
    """Whether FFmpeg would ask for other files, and again and again when it may not (HLS, DASH)."""
    try:
        with open(path, "rb") as file:
            start = file.read(1024)
    except OSError:  # FFmpeg says why
        return False
    return start.startswith(b"#EXTM3U") or (start.startswith(b"<") and b"<MPD" in start)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not a still cover picture.

    Raises:
        SourceError: there is none, or FFmpeg has no decoder for it.
    """
    from av.stream import Disposition

    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # the cover of a song is no video
    ]
    if not videos and truncation(path):
        raise _unreadable(path, "")
    if not container.streams:
        raise SourceError(
            f"'{path}' is a video file without content: it holds no frame",
            expected="a video of at least one frame",
            hint="record it again",
        )
    if not videos:
        kinds = sorted({str(stream.type) for stream in container.streams})
        raise SourceError(
            f"'{path}' holds no video stream, only {', '.join(kinds)}",
            expected="a file with a video stream",
            hint="check that it is the right file",
        )
    if videos[0].codec_context is None:
        raise SourceError(
            f"the video in '{path}' is of a codec that this FFmpeg cannot decode",
            expected="a codec that FFmpeg can decode, e.g. H.264, H.265, VP9 or AV1",
            hint="convert the video to H.264",
        )
    return videos[0]


def _unreadable(path: Path, reason: str) -> SourceError:
    try:
        empty = path.stat().st_size == 0
        cut = None if empty else truncation(path)
    except OSError:  # the reason says it already
        empty, cut = False, None
    if empty:
        return SourceError(
            f"'{path}' is empty",
            expected="a video file",
            hint="copy or record the file again",
        )
    if cut:
        return SourceError(
            f"'{path}' is a truncated video: {cut}",
            expected="a complete video file",
            hint="copy the file again; where a recording was cut off, rebuild its index with the "
            "recorder's own repair tool",
        )
    return SourceError(
        f"'{path}' is not a video that FFmpeg can read: {reason}",
        expected="a video file, e.g. MP4, MOV, MKV, WebM, AVI or MPEG-TS",
        hint="check that the file is what its name says",
    )
