"""SourceTracks: the sound of the source, copied packet by packet while the pictures are encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.media.container import open_container, video_stream
from edge_restore.media.timeline import Timeline
from edge_restore.sinks.tracks import add_tracks

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer


class SourceTracks:
    """The source's packets, read a second time beside the decoder.

    They carry the sound, and two things about the pictures that only packets know: how long the
    last one is shown, and whether others follow the last one that was written. Nothing is decoded.

    Args:
        path: the source.
        output: where the sound goes; its audio streams are added here.
        mux: takes the packets.
        warnings: where to say what is left out.

    Raises:
        SinkError: the output's container cannot hold the source's sound.
    """

    def __init__(
        self,
        path: Path,
        output: OutputContainer,
        mux: Callable[[Packet[Any]], None],
        warnings: list[str],
    ) -> None:
        self.warnings = warnings
        self.covers: list[bytes] = []
        self._path = path
        self._input = open_container(path)
        self._video = video_stream(self._input, path)
        try:
            self._tracks = add_tracks(
                path, self._input, self._video, output, mux, warnings, self.covers
            )
        except BaseException:
            self._input.close()
            raise
        self._timeline = Timeline(self._input, self._video, path)
        self._chapters = list(self._input.chapters())
        self._moved = self._timeline.offset  # as chapters' times are, which no packet carries
        # Those whose packets come all the time; others are written when they are met.
        self._steady = [s.index for s in self._input.streams.audio if s.index in self._tracks]
        # The clock follows the video and all sound, also what is left out.
        followed = {self._video.index, *(s.index for s in self._input.streams.audio), *self._tracks}
        self._packets = self._input.demux([s for s in self._input.streams if s.index in followed])
        self._ended = False
        # By stream index: the time in ticks up to which it has been read.
        self._read: dict[int, int] = {}
        # Sound that was read and begins later than what was asked for, with its time in seconds.
        self._waiting: deque[tuple[Fraction, Packet[Any]]] = deque()
        # Ticks that each picture is shown, by its time; 0 when the source does not say.
        self._durations: dict[int, int] = {}

    def copy_sound(self, until: Fraction | None = None) -> None:
        """Write the sound that begins before the time `until` in seconds; all of it for None."""
        while not self._ended and not self._has_read(until):
            self._read_packet()
        kept: deque[tuple[Fraction, Packet[Any]]] = deque()
        for time, packet in self._waiting:
            if until is not None and time >= until:
                kept.append((time, packet))
            else:
                self._tracks[packet.stream.index].write(packet)
        self._waiting = kept

    def finish(self, until: Fraction | None) -> None:
        """Write what is left that begins before `until`, and what the tracks hold back."""
        self.copy_sound(until)
        for track in self._tracks.values():
            track.finish()
        if self._ended and until is None:
            silent = [index for index in self._steady if index not in self._read]
            self.warnings.extend(f"sound track {i} of '{self._path}' is empty" for i in silent)

    def chapters(self, until: Fraction) -> list[Any]:
        """The source's chapters, as PyAV has them, cut to what lies before `until` in seconds."""
        kept = []
        for chapter in self._chapters:
            base = chapter["time_base"] or Fraction(1)
            ticks = round(self._moved / base)
            start = max(0, chapter["start"] + ticks)
            end = min(chapter["end"] + ticks, int(until / base))
            if start < end:
                kept.append({**chapter, "start": start, "end": end})
        return kept

    def take_duration(self, pts: int) -> int | None:
        """How long the picture with the time `pts` is shown, in ticks; None when not known.

        It is known once `copy_sound` has come to `pts`, and told once.
        """
        return self._durations.pop(pts, 0) or None

    def next_picture(self, pts: int) -> int | None:
        """The time of the picture that follows the one with the time `pts`; None after the last."""
        while True:
            following = min((time for time in self._durations if time > pts), default=None)
            read = self._read.get(self._video.index)
            # A later packet may hold an earlier picture, until decoding times have come so far.
            if self._ended or (following is not None and read is not None and read >= following):
                return following
            self._read_packet()

    def close(self) -> None:
        """Close the source."""
        self._input.close()

    def _has_read(self, until: Fraction | None) -> bool:
        if until is None:
            return False
        streams = (self._video.index, *self._steady)
        return all(
            index in self._read and self._read[index] * self._time_base(index) >= until
            for index in streams
        )

    def _time_base(self, index: int) -> Fraction:
        return self._input.streams[index].time_base or Fraction(1)

    def _read_packet(self) -> None:
        import av

        try:
            packet = next(self._packets)
        except (StopIteration, av.FFmpegError):  # the decoder meets the same error and reports it
            self._ended = True
            return
        self._timeline.correct(packet)
        index = packet.stream.index
        if index != self._video.index and index not in self._tracks:
            return
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            if packet.size and index in self._tracks:  # a cover has no time
                self._tracks[index].write(packet)
            return
        # Packets come in the order of dts, which no later packet's pts goes below.
        read = stamp if packet.dts is None else min(stamp, packet.dts)
        self._read[index] = read
        if index == self._video.index:
            # Pictures marked so are needed to decode others and never shown; sound marked so fills
            # the decoder's memory, and the muxer marks it again.
            if not packet.is_discard:
                self._durations[stamp] = packet.duration or 0
        else:
            self._waiting.append((stamp * packet.time_base, packet))
