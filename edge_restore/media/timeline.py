"""Timeline: one clock for all tracks of a file, which starts at zero and never jumps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.media.iso_boxes import has_delayed_track

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

# AVFMT_TS_DISCONT: the format's clock may jump, as that of a broadcast does. PyAV 18 has no name
# for it.
_CLOCK_MAY_JUMP = 0x200

# Containers without presentation times. FFmpeg 8 makes some up for them, which are wrong when
# frames are reordered; the time of a frame is the decoding time at which it comes out.
_WITHOUT_PRESENTATION_TIMES = {"avi", "asf", "asf_o"}

# Of these FFmpeg derives the presentation times that are missing from the next frame, which may lie
# beyond a jump; frames are not reordered so far.
_TIMES_FROM_NEIGHBOURS = {"mpeg1video", "mpeg2video"}
_REORDERED_FRAMES = 6

# What counts as a jump; the values are those of the ffmpeg program, so that its result is ours.
_FORWARD_SECONDS = Fraction(10)
_BACKWARD_SECONDS = Fraction(1, 10)

# Clocks of other formats do not jump, but files of them are joined as well: that turns them back.
_BACKWARD_SECONDS_ELSEWHERE = Fraction(1)
_WITH_EDIT_LISTS = "mov,mp4,m4a,3gp,3g2,mj2"


class Timeline:
    """Moves the times of a file's packets to one clock that starts at zero and never jumps.

    All tracks are moved by the same amount, so that what belongs together stays together. The
    clock of an MPEG stream jumps where recordings were joined and where its 33 bits overflow; the
    packet that jumps is put where the one before it in its track ended, and all that follow, of
    every track, are moved with it.

    MP4 and QuickTime say in an edit list that a track starts later than the file: such a file
    keeps its start.

    Two timelines of one file that correct its video and audio packets in the file's order give
    equal times.

    Args:
        container: the opened file.
        video: the video stream that is used of it.
        path: the file.
    """

    def __init__(self, container: InputContainer, video: VideoStream, path: Path) -> None:
        self._may_jump = bool(int(container.format.flags) & _CLOCK_MAY_JUMP)
        self._follows = container.format.name != _WITH_EDIT_LISTS
        self._backward = _BACKWARD_SECONDS if self._may_jump else _BACKWARD_SECONDS_ELSEWHERE
        self._default_ticks = _frame_ticks(video)
        self._video = video.index
        self._reordering = _FORWARD_SECONDS
        if video.codec_context.name in _TIMES_FROM_NEIGHBOURS:
            ticks = _REORDERED_FRAMES * self._default_ticks
            self._reordering = ticks * (video.time_base or Fraction(1, 90000))
        streams: list[Stream] = [video, *container.streams.audio]
        self._bases = {
            stream.index: stream.time_base or Fraction(1) for stream in container.streams
        }
        self._deciding = {stream.index for stream in streams}
        self._offset = -self._start(container, streams, path)
        self._ticks = self._offset_in_ticks()
        # By stream: where its last packet began and where the next is expected, in corrected ticks.
        self._last: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._latest: Fraction | None = None

    @property
    def offset(self) -> Fraction:
        """By how many seconds the next packet is moved."""
        return self._offset

    def correct(self, packet: Packet[Any]) -> None:
        """Move the packet's times. Call it once for each packet, in the order of the file."""
        dts, pts = packet.dts, packet.pts
        if dts is None and pts is None:
            return
        index = packet.stream.index
        if self._follows and dts is not None and index in self._deciding:
            self._follow(packet, index, dts)
        ticks = self._ticks[index]
        if pts is not None:
            packet.pts = None if self._impossible(index, pts, dts) else pts + ticks
        if dts is not None:
            packet.dts = dts + ticks

    def _impossible(self, index: int, pts: int, dts: int | None) -> bool:
        """Whether FFmpeg derived a presentation time from a packet beyond a jump."""
        if not self._may_jump or dts is None:
            return False
        limit = self._reordering if index == self._video else _FORWARD_SECONDS
        return not 0 <= (pts - dts) * self._bases[index] <= limit

    def _follow(self, packet: Packet[Any], index: int, dts: int) -> None:
        """Set the offset anew when the packet's time jumps."""
        base = self._bases[index]
        time = dts + self._ticks[index]
        jump = self._jump(index, time, base)
        if jump:
            self._offset -= jump
            self._ticks = self._offset_in_ticks()
            time = dts + self._ticks[index]
        self._last[index] = time
        self._latest = time * base
        duration = packet.duration or (self._default_ticks if index == self._video else 0)
        self._next[index] = time + duration

    def _jump(self, index: int, time: int, base: Fraction) -> Fraction:
        """By how many seconds the clock jumped before this packet; 0 when it did not."""
        if index in self._last:
            jump = (time - self._next[index]) * base
            if (self._last[index] - time) * base > self._backward:
                return jump
        elif self._latest is not None:
            jump = time * base - self._latest
        else:
            return Fraction(0)
        return jump if self._may_jump and abs(jump) > _FORWARD_SECONDS else Fraction(0)

    def _offset_in_ticks(self) -> dict[int, int]:
        return {index: round(self._offset / base) for index, base in self._bases.items()}

    def _start(self, container: InputContainer, streams: list[Stream], path: Path) -> Fraction:
        """The time in seconds that becomes zero."""
        starts = [
            stream.start_time * self._bases[stream.index]
            for stream in streams
            if stream.start_time is not None
        ]
        if not starts or has_delayed_track(path):
            return Fraction(0)
        start = min(starts)
        if self._may_jump or container.start_time is None:
            return start
        # The file's start counts its other tracks too, but is rounded to microseconds.
        rounded = Fraction(container.start_time, 1_000_000)
        return start if abs(start - rounded) < Fraction(1, 1000) else rounded


class FrameTimes:
    """The presentation times of decoded frames, strictly increasing.

    Times are made up only where the file has none (raw streams) or has wrong ones (damaged files,
    where times stand still or go back, which no encoder takes). Where the presentation times went
    wrong more often than the decoding times, the latter are used, as ffmpeg does.

    Args:
        container: the opened file.
        video: its video stream.
    """

    def __init__(self, container: InputContainer, video: VideoStream) -> None:
        self._only_dts = container.format.name in _WITHOUT_PRESENTATION_TIMES
        self._default_ticks = _frame_ticks(video)
        self._last: int | None = None
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._wrong_pts = self._wrong_dts = 0

    def of(self, frame: VideoFrame) -> int:
        """The time of the next frame in ticks of the stream."""
        pts = None if self._only_dts else frame.pts
        dts = frame.dts
        if pts is not None:
            self._wrong_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if dts is not None:
            self._wrong_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is None or (dts is not None and self._wrong_pts > self._wrong_dts):
            pts = dts
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += self._default_ticks
        else:
            self._last = max(pts, self._last + 1)
        return self._last


def _frame_ticks(video: VideoStream) -> int:
    """How long a frame lasts that does not say so, in ticks of the stream."""
    # The stream's average rate is a guess from its times, which are missing where this is needed.
    rate = video.codec_context.framerate or video.guessed_rate or Fraction(25)
    return max(1, round(1 / rate / (video.time_base or Fraction(1, 90000))))
