"""What becomes of each of the source's tracks beside its video: copied, converted or left out."""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_restore.media.container import open_container
from edge_restore.sinks import subtitles

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

# Audio packets that are tried before a track's fate is decided, and where the search for them ends.
_TRIED_PACKETS, _SEARCHED_PACKETS = 4, 1000
_TRIAL_PACKETS = 20_000  # of a file that is written to try; it keeps an index
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_BITS_PER_CHANNEL = 80_000
_SHORTEST_GAP = 0.01  # seconds; times are rounded to milliseconds in some containers
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

# QuickTime numbers languages; FFmpeg knows them by these codes alone and drops any other.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve",
    "fre": "fra",
}  # fmt: skip

Mux = Callable[["Packet[Any]"], None]


class Track(Protocol):
    """One track of the output."""

    def write(self, packet: Packet[Any]) -> None:
        """Take the source's next packet."""

    def finish(self) -> None:
        """Write what is held back."""


class CopiedTrack:
    """Packets as they are, but for those that the muxer refuses.

    The output's muxer sorts the packets of all tracks and meets a damaged one much later, when it
    cannot be told whose it was and those behind it are lost. So each packet goes to a muxer of its
    own before, whose file nobody keeps.
    """

    def __init__(self, stream: Stream, output: OutputContainer, mux: Mux) -> None:
        self.refused = 0
        self._stream = stream
        self._format = output.format.name
        self._copy = output.add_stream_from_template(stream)
        self._copy.metadata.update(_tags(stream, output))
        self._copy.disposition = stream.disposition
        self._mux = mux
        self._written: int | None = None
        self._gaps: list[tuple[float, float]] = []  # where each begins and its length, seconds
        self._expected: int | None = None  # where the next packet should begin
        self._trial = _Trial(stream, self._format, _Nowhere())

    def write(self, packet: Packet[Any]) -> None:
        """Write the packet under the output's track."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        self._look_for_gap(packet, stamp)
        # Where recordings were joined the first's sound may reach into the second's, and damaged
        # sources repeat times or turn them back: no muxer takes that, and no packet is to be lost.
        if self._written is not None:
            stamp = max(stamp, self._written + self._min_step())
        packet.dts = stamp
        packet.pts = max(packet.pts if packet.pts is not None else stamp, stamp)
        if not self._trial.takes(packet):
            self.refused += 1
            return
        if self._trial.packets >= _TRIAL_PACKETS:
            # Started anew with a packet that is known to be good: of the first one less is asked.
            self._trial = _Trial(self._stream, self._format, _Nowhere())
            self._trial.takes(packet)
        self._written = stamp
        packet.stream = self._copy
        self._mux(packet)

    def _look_for_gap(self, packet: Packet[Any], stamp: int) -> None:
        """Note where sound is missing before a packet: as much as the packet itself holds."""
        if self._expected is not None and packet.duration:
            base, gap = float(packet.time_base or 0), stamp - self._expected
            if gap >= 0.9 * packet.duration and gap * base >= _SHORTEST_GAP:
                self._gaps.append((self._expected * base, gap * base))
        self._expected = stamp + packet.duration if packet.duration else None

    def _min_step(self) -> int:
        """By how many ticks two times differ that the output can tell apart."""
        base = self._stream.time_base or Fraction(1)
        return math.ceil((self._copy.time_base or base) / base)

    def finish(self) -> None:
        """Nothing is held back; ValueError where the track has holes."""
        found = []
        if self.refused:
            found.append(f"{self.refused} damaged packets of it were left out")
        if self._gaps and self._stream.type == "audio":
            begin, length = self._gaps[0]
            first = f"the first of {length:.2f} s at {begin:.2f} s"
            found.append(f"the source has {len(self._gaps)} gap(s) in it, {first}")
        if found:
            raise ValueError("; ".join(found))


class _Nowhere:
    """A file that keeps nothing but its size."""

    def __init__(self) -> None:
        self._at = self._end = 0

    def write(self, content: bytes) -> int:
        self._at += len(content)
        self._end = max(self._end, self._at)
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class _Trial:
    """A file with one track, to learn what its muxer takes: names promise less.

    Raises:
        ValueError, av.FFmpegError: a file of that kind cannot have the track.
    """

    def __init__(self, stream: Stream, container: str, file: Any) -> None:
        import av

        self.packets = 0
        self._output = av.open(file, "w", format=container)
        self._copy = self._output.add_stream_from_template(stream)
        self._output.start_encoding()

    def takes(self, packet: Packet[Any]) -> bool:
        """Whether the muxer takes the packet, which stays as it is."""
        import av

        stream, base = packet.stream, packet.time_base
        times = packet.pts, packet.dts, packet.duration
        packet.stream = self._copy
        try:
            self._output.mux(packet)
        except (av.FFmpegError, ValueError):
            return False
        finally:
            packet.stream, packet.time_base = stream, base
            packet.pts, packet.dts, packet.duration = times
        self.packets += 1
        return True

    def close(self) -> None:
        """Complete the file."""
        self._output.close()


class CoverTrack:
    """A cover picture, which players show for the file; it stands among the tags.

    Args:
        covers: takes the picture.
    """

    def __init__(self, covers: list[bytes]) -> None:
        self._covers = covers

    def write(self, packet: Packet[Any]) -> None:
        """Keep the picture."""
        if packet.size:
            self._covers.append(bytes(packet))

    def finish(self) -> None:
        """Nothing is held back."""


class AacTrack:
    """Sound that the container does not take, decoded and encoded anew."""

    def __init__(
        self, stream: Stream, output: OutputContainer, mux: Mux, sample: AudioFrame
    ) -> None:
        higher = [rate for rate in _AAC_RATES if rate >= sample.sample_rate]
        channels = len(sample.layout.channels)
        layout = {1: "mono", 2: "stereo"}.get(channels, sample.layout.name)
        if not _aac_takes(layout):
            layout = "stereo"
        self._track: Any = output.add_stream(
            "aac",
            rate=higher[-1] if higher else _AAC_RATES[0],
            bit_rate=_AAC_BITS_PER_CHANNEL * (channels if layout != "stereo" else 2),
            layout=layout,
        )
        self._track.metadata.update(_tags(stream, output))
        self._track.disposition = stream.disposition
        self._decoder: Any = stream.codec_context
        self._mux = mux

    def write(self, packet: Packet[Any]) -> None:
        """Decode the packet and write the sound that is complete."""
        import av

        try:
            frames = packet.decode()
        except av.FFmpegError:  # a damaged packet is a gap, as in the copy
            return
        for frame in frames:
            self._mux_all(self._track.encode(frame))

    def finish(self) -> None:
        """Write the sound that the decoder and the encoder hold back."""
        import av

        with suppress(av.FFmpegError):
            for frame in self._decoder.decode(None):
                self._mux_all(self._track.encode(frame))
        self._mux_all(self._track.encode(None))

    def _mux_all(self, packets: Sequence[Packet[Any]]) -> None:
        for packet in packets:
            self._mux(packet)


class TextTrack:
    """Subtitles as the text of MP4, without their styles."""

    def __init__(self, stream: Stream, output: OutputContainer, mux: Mux) -> None:
        self._codec = stream.codec_context.name
        self._track: Any = output.add_stream("mov_text")
        self._track.codec_context.subtitle_header = subtitles.HEADER
        self._track.time_base = stream.time_base
        self._track.metadata.update(_tags(stream, output))
        self._track.disposition = stream.disposition
        self._mux = mux
        self._written: int | None = None

    def write(self, packet: Packet[Any]) -> None:
        """Write the packet's text."""
        import av

        text = subtitles.plain_text(self._codec, bytes(packet))
        if not text or packet.pts is None:
            return
        if self._written is not None and packet.pts <= self._written:
            return
        self._written = packet.pts
        shown: Packet[Any] = av.Packet(subtitles.sample(text))
        shown.stream = self._track
        shown.pts = shown.dts = packet.pts
        shown.duration = packet.duration
        shown.time_base = packet.time_base
        self._mux(shown)

    def finish(self) -> None:
        """Nothing is held back."""


class GuardedTrack:
    """A track whose faults end it with a warning, and nothing else.

    Args:
        track: the track.
        name: what the warning calls it.
        warnings: takes the warning.
    """

    def __init__(self, track: Track, name: str, warnings: list[str]) -> None:
        self._track: Track | None = track
        self._name = name
        self._warnings = warnings

    def write(self, packet: Packet[Any]) -> None:
        """Pass on the packet, unless the track has ended."""
        time = float((packet.pts or packet.dts or 0) * (packet.time_base or 0))
        self._guarded(lambda track: track.write(packet), f"ends at {time:.2f} s")

    def finish(self) -> None:
        """Pass on the end."""
        self._guarded(lambda track: track.finish(), "is incomplete")

    def _guarded(self, call: Callable[[Track], None], what: str) -> None:
        import av

        if self._track is None:
            return
        try:
            call(self._track)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            self._warnings.append(f"{self._name} {what}: {error}")
            self._track = None


def add_tracks(
    path: Path,
    source: InputContainer,
    video: Stream,
    output: OutputContainer,
    mux: Mux,
    warnings: list[str],
    covers: list[bytes],
) -> dict[int, Track]:
    """Give the output a track for each of the source's that it can hold.

    Args:
        path: the source.
        source: the source, opened.
        video: the one of its tracks that is restored.
        output: gets the tracks.
        mux: takes the tracks' packets.
        warnings: takes a sentence for each track that is converted or left out.
        covers: takes the cover pictures when they are written.

    Returns:
        The tracks by the source's stream index.
    """
    from av.stream import Disposition

    samples = _first_audio(path) if source.streams.audio else {}
    tracks: dict[int, Track] = {}
    for stream in source.streams:
        if stream.index == video.index:
            continue
        track: Track | None = None
        if stream.type == "audio":
            name = f"sound track {stream.index}"
            track, reason = _audio_track(stream, output, mux, samples.get(stream.index, []))
        elif stream.type == "subtitle":
            name = f"subtitle track {stream.index}"
            track, reason = _subtitle_track(stream, output, mux)
        elif stream.type == "video" and stream.disposition & Disposition.attached_pic:
            name = "the cover picture"
            track, reason = _cover_track(stream, covers)
        elif _is_made_anew(stream, source, video):
            continue
        else:
            kind = {"attachment": "the attachment", "data": "data track"}
            name = f"{kind.get(stream.type, f'{stream.type} track')} {_title(stream)}"
            reason = "left out: only one video track, sound and subtitles are written"
        if reason:
            warnings.append(f"{name} of '{path}' ({_codec(stream)}) is {reason}")
        if track is not None:
            tracks[stream.index] = GuardedTrack(track, f"{name} of '{path}'", warnings)
    return tracks


def _audio_track(
    stream: Stream, output: OutputContainer, mux: Mux, packets: list[Packet[Any]]
) -> tuple[Track | None, str]:
    if stream.codec_context is None:
        return None, "left out: this FFmpeg does not know the codec"
    if _can_be_copied(stream, output.format.name, packets):
        return CopiedTrack(stream, output, mux), ""
    sample = _decoded(packets)
    if sample is None:
        return None, "left out: it cannot be copied and no sound of it can be decoded"
    return AacTrack(stream, output, mux, sample), "converted to AAC, which the output can hold"


def _subtitle_track(stream: Stream, output: OutputContainer, mux: Mux) -> tuple[Track | None, str]:
    codec = stream.codec_context.name if stream.codec_context is not None else ""
    if codec in subtitles.TEXT_CODECS:
        return TextTrack(stream, output, mux), "converted to plain text, without its styles"
    if codec and _can_be_copied(stream, output.format.name, []):
        return CopiedTrack(stream, output, mux), ""
    return None, "left out: the output cannot hold it"


def _cover_track(stream: Stream, covers: list[bytes]) -> tuple[Track | None, str]:
    if stream.codec_context is None or stream.codec_context.name not in ("mjpeg", "png"):
        return None, "left out: MP4 files have JPEG and PNG covers"
    return CoverTrack(covers), ""


def _is_made_anew(stream: Stream, source: InputContainer, video: Stream) -> bool:
    """Whether the muxer writes such a track by itself: of time codes, of chapters' names."""
    if stream.type != "data":
        return False
    if "timecode" in stream.metadata:
        return "timecode" in video.metadata
    chapters = bool(source.chapters())
    return chapters and "mov" in source.format.name and stream.metadata.get("handler_name") in (
        "SubtitleHandler", "Apple Text Media Handler", "",
    )  # fmt: skip


def _first_audio(path: Path) -> dict[int, list[Packet[Any]]]:
    """The first packets of every sound track, read apart from the file that is copied."""
    import av

    found: dict[int, list[Packet[Any]]] = {}
    with suppress(av.FFmpegError), open_container(path) as source:
        known = {s.index for s in source.streams.audio if s.codec_context is not None}
        for count, packet in enumerate(source.demux()):
            index = packet.stream.index
            if index in known and packet.size and packet.dts is not None:
                found.setdefault(index, []).append(packet)
            complete = all(len(found.get(i, ())) >= _TRIED_PACKETS for i in known)
            if complete or count >= _SEARCHED_PACKETS:
                break
    return {index: packets[:_TRIED_PACKETS] for index, packets in found.items()}


def _can_be_copied(stream: Stream, container: str, packets: list[Packet[Any]]) -> bool:
    """Whether a file of that kind has the track when it is read again."""
    import av

    file = io.BytesIO()
    try:
        trial = _Trial(stream, container, file)
        taken = [trial.takes(packet) for packet in packets]
        trial.close()
        if not packets:
            return True
        if not any(taken):
            return False
        with av.open(io.BytesIO(file.getvalue())) as written:
            found = [s.codec_context for s in written.streams if s.type == stream.type]
    except (av.FFmpegError, ValueError):
        return False
    return bool(found) and found[0] is not None


def _decoded(packets: list[Packet[Any]]) -> AudioFrame | None:
    """The first frame that comes out of the packets."""
    import av

    for packet in packets:
        with suppress(av.FFmpegError):
            frame: Any
            for frame in packet.decode():
                if frame.sample_rate and frame.layout.channels:
                    return frame  # type: ignore[no-any-return]
    return None


def _aac_takes(layout: str) -> bool:
    """Whether FFmpeg's AAC encoder knows the loudspeakers' layout."""
    import av

    encoder: Any = av.CodecContext.create("aac", "w")
    try:
        encoder.sample_rate, encoder.format, encoder.layout = 48000, "fltp", layout
        encoder.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _tags(stream: Stream, output: OutputContainer) -> dict[str, str]:
    """The track's tags, with its language as the output's container names it."""
    tags = dict(stream.metadata)
    if output.format.name == "mov" and "language" in tags:
        tags["language"] = _QUICKTIME_LANGUAGES.get(tags["language"], tags["language"])
    return tags


def _codec(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else "unknown codec"


def _title(stream: Stream) -> str:
    named = stream.metadata.get("filename") or stream.metadata.get("handler_name") or ""
    named = "".join(letter for letter in named if letter.isprintable()).strip()
    return f"'{named}'" if named else str(stream.index)
