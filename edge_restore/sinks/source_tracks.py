"""SourceTracks: the sound of the source, copied packet by packet while the pictures are encoded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_restore.errors import SinkError
from edge_restore.sources.container import open_container, video_stream
from edge_restore.sources.timeline import Timeline

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.stream import Stream


class SourceTracks:
    """The source's packets, read a second time beside the decoder.

    They carry the sound, and two things about the pictures that only packets know: how long the
    last one is shown, and whether others follow the last one that was written. Nothing is decoded.

    Args:
        path: the source.
        output: where the sound goes; its audio streams are added here.
        name: what error messages call the output.
        mux: takes the packets.
        warnings: where to say what is left out.

    Raises:
        SinkError: the output's container cannot hold the source's sound.
    """

    def __init__(
        self,
        path: Path,
        output: OutputContainer,
        name: Path,
        mux: Callable[[Packet[Any]], None],
        warnings: list[str],
    ) -> None:
        self.warnings = warnings
        self._input = open_container(path)
        self._mux = mux
        self._video = video_stream(self._input, path)
        self._copies: dict[int, Stream] = {}
        for stream in self._input.streams.audio:
            if stream.codec_context is None:
                self.warnings.append(
                    f"sound track {stream.index} of '{path}' is of an unknown codec: left out"
                )
                continue
            try:
                copy = output.add_stream_from_template(stream)
            except ValueError as error:
                self._input.close()
                raise SinkError(
                    f"'{name}' cannot hold the sound of '{path}', which is {stream.name}",
                    expected="a container for that codec",
                    mend="write a .mov file, or convert the sound to AAC first",
                ) from error
            copy.metadata.update(stream.metadata)
            self._copies[stream.index] = copy
        self._timeline = Timeline(self._input, self._video, path)
        self._packets = self._input.demux([self._video, *self._input.streams.audio])
        self._ended = False
        # By stream index: the time in ticks up to which it has been read, or written.
        self._read: dict[int, int] = {}
        self._written: dict[int, int] = {}
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
                self._write(packet)
        self._waiting = kept

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
        streams = (self._video.index, *self._copies)
        return all(
            index in self._read and self._read[index] * self._time_base(index) >= until
            for index in streams
        )

    def _time_base(self, index: int) -> Fraction:
        return self._input.streams[index].time_base or Fraction(1)

    def _least_step(self, index: int) -> int:
        """By how many ticks two times of a track differ that the output can tell apart."""
        written = self._copies[index].time_base or self._time_base(index)
        return math.ceil(written / self._time_base(index))

    def _read_packet(self) -> None:
        import av

        try:
            packet = next(self._packets)
        except (StopIteration, av.FFmpegError):  # the decoder meets the same error and reports it
            self._ended = True
            return
        self._timeline.correct(packet)
        stamp = packet.pts if packet.pts is not None else packet.dts
        index = packet.stream.index
        if stamp is None or not (index == self._video.index or index in self._copies):
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

    def _write(self, packet: Packet[Any]) -> None:
        index = packet.stream.index
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        # Where recordings were joined the first's sound may reach into the second's, and damaged
        # sources repeat times or turn them back: no muxer takes that, and no packet is to be lost.
        if index in self._written:
            stamp = max(stamp, self._written[index] + self._least_step(index))
        packet.dts = stamp
        packet.pts = max(packet.pts if packet.pts is not None else stamp, stamp)
        self._written[index] = stamp
        packet.stream = self._copies[index]
        self._mux(packet)
