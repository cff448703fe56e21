"""FileSource: the frames of a video file, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_restore.errors import OptionError, SourceError, shown
from edge_restore.frames import Frame, StageClock
from edge_restore.media import colour
from edge_restore.media.container import open_container, video_stream
from edge_restore.media.container_damage import damaged_places
from edge_restore.media.ffmpeg_messages import FFmpegMessages, drained
from edge_restore.media.stream_info import UNSPECIFIED, StreamInfo
from edge_restore.media.timeline import FrameTimes, Timeline
from edge_restore.media.truncation import truncation
from edge_restore.sources.ffv1 import SliceChecksums
from edge_restore.sources.interlacing import check_progressive

if TYPE_CHECKING:
    from av import Packet, VideoFrame

_BARE_STREAMS = {
    "cavsvideo", "dirac", "h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1",
    "vvc",
}  # fmt: skip
"""FFmpeg's names of coded pictures without a container, which it also finds in a damaged one."""

_CONTAINERS = {
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".mkv", ".mov", ".mp4", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
}  # fmt: skip

_ONE_PICTURE_A_PACKET = {
    "ffv1", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores",
}  # fmt: skip
_PLACEHOLDER = 16
"""Bytes: MPEG-4 in AVI has packets that stand for a picture which another one holds."""

_IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


class FileSource:
    """The first video stream of a file that FFmpeg can decode.

    Each iteration reads the file from its beginning. Damaged packets are skipped and a file that
    was cut off yields the frames that are left; `warnings` then says so. `remarks` has the errors
    that FFmpeg reports while it reads; some do no harm, as in a file that was cut out of another.

    Args:
        path: the video file.
        max_frames: end after so many frames; None for all.

    Raises:
        SourceError: the file cannot be read, or holds no video or no frame.
        OptionError: `max_frames` is less than 1.
        DependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path, *, max_frames: int | None = None) -> None:
        if max_frames is not None and max_frames < 1:
            raise OptionError(
                f"the greatest number of frames is {max_frames}",
                expected="1 or more",
                hint="leave the option out to restore the whole video",
            )
        self.path = path
        self.warnings: list[str] = []
        self.remarks: list[str] = []
        self._max_frames = max_frames
        self._damaged_frames = 0
        self._damaged_packets: list[float] = []  # their times in seconds
        self._messages = FFmpegMessages()
        self._format = ""
        self._track = self._packets = self._coded = 0
        self._open = ExitStack()
        self.info = self._probe()

    def __iter__(self) -> Iterator[Frame]:
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()
        self.warnings.clear()
        self.remarks.clear()
        index = 0
        clock = StageClock()
        clock.begin("decode")
        for picture, pts in self._pictures():
            if (picture.height, picture.width) != (self.info.height, self.info.width):
                raise SourceError(
                    f"frame {index} of '{self.path}' is {picture.width}x{picture.height}, "
                    f"the first was {self.info.width}x{self.info.height}",
                    expected="one size throughout",
                    hint="cut the video where its size changes, and restore the parts",
                )
            check_progressive(picture, index, self.path)
            pixels = colour.to_rgb(picture, self.info, reformatter)
            clock.end("decode")
            yield Frame(pixels, index, pts, self.info.time_base, clock)
            index += 1
            if index == self._max_frames:
                # The decoder has read ahead: damage after the last frame that was asked for.
                self._report_damage(until=float(pts * self.info.time_base))
                return
            clock = StageClock()
            clock.begin("decode")
        self._report_damage()
        transport = (self._track, self._packets) if self._format == "mpegts" else None
        if places := damaged_places(self.path, transport=transport):
            self.warnings.append(
                f"'{self.path}' is damaged at {places} place(s) or more; "
                "frames may be missing there"
            )
        if cut := truncation(self.path):
            self.warnings.append(
                f"'{self.path}' was cut off: {cut}; it ends after the {index} frames that are left"
            )
        if index < self._coded and not self.warnings:
            self.remarks.append(
                f"{self._coded - index} of {self._coded} coded frames of '{self.path}' gave no "
                "picture; look at the result"
            )

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._open.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pictures(self) -> Iterator[tuple[VideoFrame, int]]:
        """Every frame that can be decoded with its time, counting what cannot."""
        import av

        self.close()
        self._messages = self._open.enter_context(FFmpegMessages())
        container = self._open.enter_context(open_container(self.path))
        stream = video_stream(container, self.path)
        self._open.callback(drained, stream)
        self._messages.names = {container.format.name, stream.codec_context.name}
        self._format = container.format.name
        self._warn_of_lost_container()
        stream.thread_type = "AUTO"
        timeline = Timeline(container, stream, self.path)
        times = FrameTimes(container, stream)
        self._damaged_frames = self._packets = self._coded = 0
        self._track = stream.id
        self._damaged_packets.clear()
        codec = stream.codec_context.name
        checksums = SliceChecksums() if codec == "ffv1" else None
        gives_one_each = codec in _ONE_PICTURE_A_PACKET
        # The sound's packets are not decoded; the timeline is the same with them for all readers.
        packets = container.demux([stream, *container.streams.audio])
        while True:
            try:
                packet: Packet[Any] = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                self.warnings.append(f"'{self.path}' cannot be read to its end: {error.strerror}")
                break
            timeline.correct(packet)
            # A transport stream's packets are called corrupt also where recordings were joined.
            corrupt = packet.is_corrupt and container.format.name != "mpegts"
            if corrupt:
                self._note_damage(packet)
            if packet.stream is not stream:
                continue
            self._packets += bool(packet.size)
            if gives_one_each:
                self._coded += packet.size > _PLACEHOLDER and not packet.is_discard
            if checksums is not None and packet.size:
                self._damaged_frames += checksums.damaged(bytes(packet))
            try:
                pictures: list[VideoFrame] = packet.decode()
            except av.FFmpegError:
                if not corrupt:
                    self._note_damage(packet)
                continue
            for picture in pictures:
                self._damaged_frames += picture.is_corrupt
                yield picture, times.of(picture)

    def _warn_of_lost_container(self) -> None:
        if self._format in _BARE_STREAMS and self.path.suffix.lower() in _CONTAINERS:
            self.warnings.append(
                f"'{self.path}' has no header of a container, as its name says: its pictures "
                "were found without their times, and no sound"
            )

    def _note_damage(self, packet: Packet[Any]) -> None:
        stamp = packet.dts if packet.dts is not None else packet.pts
        self._damaged_packets.append(0.0 if stamp is None else float(stamp * packet.time_base))

    def _report_damage(self, until: float = math.inf) -> None:
        packets = sum(time <= until for time in self._damaged_packets)
        if packets:
            self.warnings.append(
                f"'{self.path}' has {packets} damaged packets; what needs them is missing or wrong"
            )
        if self._damaged_frames:
            self.warnings.append(
                f"'{self.path}' has {self._damaged_frames} damaged frames: what could not be "
                "decoded of them is made up from others"
            )
        self._messages.look()
        if self._messages.count:
            self.remarks.append(
                f"FFmpeg reports {self._messages.count} error(s) in '{self.path}', the first: "
                f"{shown(self._messages.first)}; look at the result"
            )

    def _probe(self) -> StreamInfo:
        """What the file says of itself, and its first frame says of the rest."""
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            picture = self._first_picture()
            check_progressive(picture, 0, self.path)
            rate = stream.guessed_rate or stream.average_rate or None
            time_base = stream.time_base or Fraction(1, 90000)
            duration = None
            if stream.duration:
                duration = float(stream.duration * time_base)
            elif container.duration:
                duration = container.duration / 1e6
            frames = stream.frames or (round(duration * rate) if duration and rate else None)
            if self._max_frames is not None:
                frames = min(frames or self._max_frames, self._max_frames)
            rgb = picture.format.is_rgb
            full = picture.color_range == colour.FULL or picture.format.name.startswith("yuvj")
            info = StreamInfo(
                width=picture.width,
                height=picture.height,
                rate=rate,
                time_base=time_base,
                display_matrix=_display_matrix(picture),
                # The output is YCbCr also where the source was RGB.
                color_range=colour.LIMITED if rgb else colour.FULL if full else picture.color_range,
                color_space=UNSPECIFIED if rgb else picture.colorspace,
                color_primaries=picture.color_primaries,
                color_trc=picture.color_trc,
                sample_aspect_ratio=stream.sample_aspect_ratio or None,
                frames=frames,
                duration=duration,
                has_audio=bool(container.streams.audio),
                metadata=dict(container.metadata),
                stream_metadata=dict(stream.metadata),
                pixel_format=picture.format.name,
                side_data=_side_data(picture),
            )
        return info

    def _first_picture(self) -> VideoFrame:
        try:
            for picture, _ in self._pictures():
                return picture
        finally:
            self.close()
            self.warnings.clear()
        cut = truncation(self.path)
        raise SourceError(
            f"no frame of '{self.path}' can be decoded" + (f": {cut}" if cut else ""),
            expected="a video of at least one frame",
            hint="copy or record the file again",
        )


def _side_data(picture: VideoFrame) -> tuple[str, ...]:
    from av.sidedata.sidedata import Type

    return tuple(kind.name for kind in Type if picture.side_data.get(kind.name) is not None)


def _display_matrix(picture: VideoFrame) -> tuple[int, ...] | None:
    data: Any = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = struct.unpack("=9i", bytes(data))
    return None if matrix == _IDENTITY else matrix
