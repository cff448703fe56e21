"""FileSink: frames as an H.264 video file, with the sound and tags of the source."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.errors import InternalError, SinkError, UserError
from edge_restore.frames import Frame
from edge_restore.machine import optional
from edge_restore.media import colour
from edge_restore.media.container import file_url
from edge_restore.media.display_matrix import write_display_matrix
from edge_restore.media.stream_info import StreamInfo
from edge_restore.sinks.losses import losses, pixel_format
from edge_restore.sinks.player_tags import write_player_tags
from edge_restore.sinks.source_tracks import SourceTracks
from edge_restore.sinks.space import ReservedSpace
from edge_restore.storage.files import atomic_path, check_writable

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.video.stream import VideoStream

SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
"""Suffixes that can be written, and FFmpeg's names of their containers.

Matroska is not among them: it counts time in milliseconds, so it cannot keep the source's times.
"""

# These describe the source's file, not its content.
_STALE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}

_ENCODER_OPTIONS = {
    "crf": "16",  # visually lossless: what was restored is not to be blurred again
    "preset": "veryfast",  # the processor is the restorer's
    # Without B-frames decoding order is presentation order, and a sample's duration in the file is
    # exactly the frame's also when the rate varies.
    "bf": "0",
}


_HINTS = {
    errno.ENOSPC: "free space in its folder, or choose another place",
    errno.EDQUOT: "free space in your quota, or choose another place",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or choose a file system that takes "
    "larger files",
}


class FileSink:
    """An MP4 or QuickTime file with H.264 video.

    The file grows under a temporary name in the same folder and gets its own in `finish`. Size,
    presentation times, rotation, colour description and tags are those of `info`. When the last
    frame written is the source's last, all sound is kept; otherwise it ends with the pictures.

    Room on the disk is reserved for each packet before it is written, so that on a full disk the
    frames so far can be finished as a playable file.

    Args:
        path: the output.
        info: the stream's properties.
        source_path: the file whose sound is copied; None for a silent output.

    Raises:
        SinkError: the suffix is unknown, `path` cannot be written or is the source itself, or its
            container cannot hold the source's sound.
        DependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path, info: StreamInfo, *, source_path: Path | None) -> None:
        optional.require("av", needed_for="writing video files")
        from av.video.reformatter import VideoReformatter

        _check_output(path, source_path)
        self.path = path
        self.info = info
        self._pixel_format = pixel_format(info)
        self._reformatter = VideoReformatter()
        self.warnings: list[str] = []
        self._tracks: SourceTracks | None = None
        self.frames_written = 0
        self._last_pts: int | None = None
        self._last_duration = 0
        self.failure: UserError | None = None
        self._result: Path | None = None
        self._ended = False
        self._open = ExitStack()
        with self._reporting(), self._open:
            self._temporary = self._open.enter_context(atomic_path(path))
            self._output = self._open.enter_context(self._container())
            self._video = self._add_video()
            if source_path is not None:
                self._tracks = SourceTracks(source_path, self._output, self._mux, self.warnings)
                self._open.callback(self._tracks.close)
            self._output.start_encoding()  # creates the file
            self._space = ReservedSpace(self._temporary, _metadata_bytes(info))
            self._open.callback(self._space.close)
            self._open = self._open.pop_all()
        self.warnings.extend(losses(info))

    def write(self, frame: Frame) -> None:
        """Encode a frame of the stream's size, later than the one before.

        Raises:
            SinkError: the frame cannot be written.
        """
        frame.clock.begin("encode")
        if frame.size != (self.info.height, self.info.width):
            height, width = frame.size
            raise InternalError(
                f"a frame of {width}x{height} for a stream of {self.info.width}x{self.info.height}"
            )
        if self.failure is not None:
            raise InternalError(f"a frame for '{self.path}' after one that could not be written")
        with self._reporting():
            picture = colour.from_rgb(
                frame.pixels, self.info, self._pixel_format, self._reformatter
            )
            picture.pts = round(frame.pts * frame.time_base / self.info.time_base)
            picture.time_base = self.info.time_base
            for packet in self._video.encode(picture):
                self._mux_video(packet)
        frame.clock.end("encode")

    def finish(self) -> Path | None:
        """Complete the file and publish it under its name.

        When not all frames that were taken could be written it is a part: see `finish_part`.

        Returns:
            Where the file is, or None when no frame was written: then nothing is left. When
            `failure` is set it holds `frames_written` frames, which may be fewer than were taken.

        Raises:
            SinkError: the file cannot be completed; nothing is left of it.
        """
        return self._publish(complete=True)

    def finish_part(self) -> Path | None:
        """As `finish`, and a file that has the output's name already stays.

        The part is then put beside it, e.g. as "out.partial.mp4".
        """
        return self._publish(complete=False)

    def abort(self) -> None:
        """Remove what was written. Safe to call again, and after `finish`, when it does nothing."""
        import av

        if self._ended:
            return
        self._ended = True
        # The reason for giving up is the caller's to report; that the rest of a file which is
        # removed anyway could not be written is not worth hiding it.
        with suppress(_Abandoned, av.FFmpegError, OSError, SinkError), self._open:
            raise _Abandoned

    def _publish(self, complete: bool) -> Path | None:
        if self._ended:
            return self._result
        if self.failure is None:
            with suppress(SinkError), self._reporting():  # `failure` says it
                for packet in self._video.encode(None):
                    self._mux_video(packet)
        if self._last_pts is None:
            self.abort()
            if self.failure is not None:
                raise self.failure
            return None
        with suppress(SinkError), self._reporting():
            self._copy_last_sound(self._last_pts)
        self._ended = True
        complete = complete and self.failure is None
        place = self.path if complete else _free_name(self.path)
        with self._reporting(), suppress(_Abandoned), self._open:
            if self._tracks:
                end = (self._last_pts + self._last_duration) * self.info.time_base
                self._output.set_chapters(self._tracks.chapters(end))
            self._output.close()
            if self.info.display_matrix is not None:
                write_display_matrix(self._temporary, self.info.display_matrix)
            write_player_tags(self._temporary, _kept(self.info.metadata), self._covers())
            if place != self.path:
                self._temporary.rename(place)
                raise _Abandoned
        self._result = place
        return self._result

    def _container(self) -> OutputContainer:
        import av

        # The track counts time in the source's ticks, and tags may have any name.
        options = {
            "movflags": "use_metadata_tags",
            "video_track_timescale": str(self.info.time_base.denominator),
        }
        container = av.open(
            file_url(self._temporary),
            "w",
            format=SUFFIXES[self.path.suffix.lower()],
            container_options=options,
        )
        container.metadata.update(_kept(self.info.metadata))
        return container

    def _add_video(self) -> VideoStream:
        from av.codec import codecs_available

        if "libx264" not in codecs_available:
            raise SinkError(
                "this build of PyAV has no H.264 encoder (libx264)",
                expected="an FFmpeg that was built with x264",
                hint="pip install --force-reinstall --only-binary=:all: av",
            )
        info = self.info
        video: VideoStream = self._output.add_stream(
            "libx264",
            rate=info.rate or Fraction(25),
            options=_ENCODER_OPTIONS,
            width=info.width,
            height=info.height,
            pix_fmt=self._pixel_format,
            time_base=info.time_base,
        )
        context = video.codec_context
        context.color_range = info.color_range
        context.colorspace = info.color_space
        context.color_primaries = info.color_primaries
        context.color_trc = info.color_trc
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        video.metadata.update(_kept(info.stream_metadata))
        return video

    def _mux_video(self, packet: Packet[VideoStream]) -> None:
        """Write an encoded frame, and the sound before it.

        The encoder gives frames back late: sound that follows the frames taken, not those given
        back, would be too long when these are the last for which there is room.
        """
        pts = packet.pts
        if pts is None:
            return
        duration = None
        if self._tracks:
            self._tracks.copy_sound(until=pts * self.info.time_base)
            duration = self._tracks.take_duration(pts)
        # Of all durations the file keeps the last one; the others follow from the times.
        packet.duration = duration or self.info.ticks_per_frame
        self._mux(packet)
        self._last_pts, self._last_duration = pts, packet.duration
        self.frames_written += 1

    def _mux(self, packet: Packet[Any]) -> None:
        self._space.take(packet.size)
        self._output.mux(packet)

    def _covers(self) -> list[bytes]:
        """The source's cover pictures, as far as there is room for them."""
        covers = self._tracks.covers if self._tracks else []
        for cover in covers:
            try:
                self._space.take(len(cover))
            except OSError:
                return []
        return covers

    def _copy_last_sound(self, last_pts: int) -> None:
        """All sound when the pictures are complete, otherwise to the end of the last picture."""
        if self._tracks:
            following = self._tracks.next_picture(last_pts)
            until = None if following is None else following * self.info.time_base
            self._tracks.finish(until)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what FFmpeg and the file system report into a SinkError; the first is `failure`."""
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            failure = SinkError(
                f"'{self.path}' cannot be written: {error.strerror or error}",
                expected="an output that takes the whole video",
                hint=_HINTS.get(
                    error.errno or 0,
                    "check the free space in its folder, and the frames' size and times",
                ),
            )
            self.failure = self.failure or failure
            raise failure from error


class _Abandoned(Exception):
    """Leaves the open files as a failure does: nothing is published."""


def _free_name(path: Path) -> Path:
    """`path`, or where something has that name already a new one beside it."""
    place, number = path, 1
    while os.path.lexists(place):
        suffix = ".partial" if number == 1 else f".partial-{number}"
        place = path.with_name(f"{path.stem}{suffix}{path.suffix}")
        number += 1
    return place


def _metadata_bytes(info: StreamInfo) -> int:
    """How much room the tags take, at most."""
    tags = [*info.metadata.items(), *info.stream_metadata.items()]
    return sum(128 + 8 * (len(key) + len(value)) for key, value in tags)


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in _STALE_TAGS}


def _check_output(path: Path, source_path: Path | None) -> None:
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise SinkError(
            f"the output '{path}' has the suffix '{path.suffix}'",
            expected=f"one of {known}",
            hint=f"name it e.g. '{path.with_suffix('.mp4')}'",
        )
    if source_path is not None and path.exists() and os.path.samefile(path, source_path):
        raise SinkError(
            f"the output '{path}' is the source itself",
            expected="another file",
            hint="choose another name; the source is never written to",
        )
    check_writable(path)
