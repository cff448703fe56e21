"""Tracks beside the video: what is kept, what is converted, and that neither stops the video."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from av.stream import Disposition  # noqa: E402

from edge_restore.sinks import open_sink, subtitles  # noqa: E402
from edge_restore.sinks.file import FileSink  # noqa: E402
from edge_restore.sources import open_source  # noqa: E402
from tests.edge_restore.clips import facts, picture  # noqa: E402

CLICK_SECONDS = 0.5
FRAMES = 30


def add_audio(container: Any, codec: str, rate: int = 48000, layout: str = "stereo") -> Any:
    try:
        track = container.add_stream(codec, rate=rate, layout=layout)
    except ValueError:
        pytest.skip(f"this FFmpeg has no {codec}")
    track.codec_context.bit_rate = 128000  # WMA has no other default
    return track


def mux_video(container: Any, video: Any) -> None:
    for index in range(FRAMES):
        frame = av.VideoFrame.from_ndarray(picture(index, 48, 64), "rgb24")
        frame.pts = index
        container.mux(video.encode(frame))
    container.mux(video.encode(None))


def mux_click(container: Any, audio: Any) -> None:
    """A second of silence with a click in its middle."""
    rate = audio.codec_context.sample_rate
    wave = np.zeros((1, rate * audio.codec_context.channels), np.int16)
    middle = int(CLICK_SECONDS * rate) * audio.codec_context.channels
    wave[:, middle : middle + 40] = 30000
    heard = av.AudioFrame.from_ndarray(wave, "s16", audio.codec_context.layout.name)
    heard.sample_rate, heard.pts, heard.time_base = rate, 0, Fraction(1, rate)
    container.mux(audio.encode(heard))
    container.mux(audio.encode(None))


def write_source(
    path: Path, codecs: list[str], video: str = "libx264", **audio_options: Any
) -> Path:
    if codecs[0] in ("libvorbis", "truehd", "dca"):  # PyAV's wheels cannot write them
        if not shutil.which("ffmpeg"):
            pytest.skip("ffmpeg is not installed")
        plain = write_source(path.with_name("plain.mkv"), ["pcm_s16le"], video, **audio_options)
        command = ["ffmpeg", "-v", "error", "-i", plain, "-strict", "-2", "-c:v", "copy", "-c:a"]
        if subprocess.run([*command, codecs[0], path]).returncode:
            pytest.skip(f"this ffmpeg does not write {codecs[0]}")
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=30, width=64, height=48)
        stream.codec_context.max_b_frames = 0
        stream.pix_fmt = "yuv420p"
        tracks = [add_audio(container, codec, **audio_options) for codec in codecs]
        container.start_encoding()
        for track in tracks:
            mux_click(container, track)
        mux_video(container, stream)
    return path


def send(source: Path, output: Path, frames: int | None = None) -> FileSink:
    with open_source(source, max_frames=frames) as opened:
        sink = open_sink(output, opened.info, source_path=source)
        for frame in opened:
            sink.write(frame)
    assert sink.finish() == output
    assert isinstance(sink, FileSink)
    return sink


def click_time(path: Path, track: int = 0) -> float:
    """When the loudest sample of a track is heard, in seconds after the first picture."""
    with av.open(str(path)) as container:
        start = min(float(f.time) for f in container.decode(video=0))
    with av.open(str(path)) as container:
        loudest = (0.0, -1.0)
        for frame in container.decode(container.streams.audio[track]):
            values = np.abs(frame.to_ndarray().astype(np.float64))
            if frame.format.is_planar:
                values = values.max(axis=0)
            else:
                values = values.reshape(-1, len(frame.layout.channels)).max(axis=1)
            at = int(values.argmax())
            scale = 32768.0 if frame.format.name.startswith("s16") else 1.0
            scale = 128.0 * 256**3 if frame.format.name.startswith("s32") else scale
            if values[at] / scale > loudest[0]:
                loudest = (values[at] / scale, float(frame.time) + at / frame.sample_rate)
    return loudest[1] - start


CODECS = [
    ("wmav2", "s.wmv", "wmv2"),
    ("wmav1", "s.wmv", "wmv2"),
    ("libvorbis", "s.mkv", "libx264"),
    ("adpcm_ms", "s.avi", "mpeg4"),
    ("adpcm_ima_wav", "s.avi", "mpeg4"),
    ("pcm_s16le", "s.mkv", "libx264"),
    ("pcm_mulaw", "s.mov", "libx264"),
    ("pcm_s24le", "s.mkv", "libx264"),
    ("mp2", "s.mpg", "mpeg2video"),
    ("ac3", "s.ts", "libx264"),
    ("aac", "s.ts", "libx264"),
    ("flac", "s.mkv", "libx264"),
    ("libopus", "s.webm", "libvpx-vp9"),
    ("truehd", "s.mkv", "libx264"),
    ("dca", "s.mkv", "libx264"),
    ("speex", "s.ogg", "libx264"),
    ("nellymoser", "s.flv", "flv1"),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(("codec", "name", "video"), CODECS)
def test_sound_of_any_codec_is_heard_at_its_time(
    codec: str, name: str, video: str, suffix: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {}
    if codec == "nellymoser":
        options = {"rate": 44100, "layout": "mono"}
    try:
        source = write_source(tmp_path / name, [codec], video, **options)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write {codec}: {error}")
    sink = send(source, tmp_path / f"output{suffix}")
    assert facts(sink.path)["frames"] == FRAMES
    assert click_time(sink.path) == pytest.approx(click_time(source), abs=0.004)
    with av.open(str(sink.path)) as container:
        kept = container.streams.audio[0].codec_context.name
    converted = kept == "aac" and codec != "aac"
    assert [("converted to AAC" in said) for said in sink.warnings] == [True] * converted


@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
def test_converted_sound_keeps_rate_and_loudspeakers(
    layout: str, rate: int, tmp_path: Path
) -> None:
    try:
        source = write_source(tmp_path / "s.mkv", ["libvorbis"], rate=rate, layout=layout)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(str(error))
    sink = send(source, tmp_path / "output.mov")
    with av.open(str(sink.path)) as container:
        audio = container.streams.audio[0].codec_context
        assert (audio.name, audio.sample_rate) == ("aac", rate)
        assert audio.channels == {"mono": 1, "5.1": 6, "7.1": 8}[layout]


@pytest.mark.parametrize("frames", [1, 10, 29])
def test_converted_sound_ends_with_the_pictures(frames: int, tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.wmv", ["wmav2"], "wmv2")
    sink = send(source, tmp_path / "output.mp4", frames)
    with av.open(str(sink.path)) as container:
        if frames == 1 and not container.streams.audio:
            return  # shorter than what the decoder needs for its first sample
        heard = sum(f.samples for f in container.decode(audio=0)) / 48000
    assert abs(heard - frames / 30) < 0.1  # a packet of WMA is 43 ms


def test_an_audio_track_without_data_is_said(tmp_path: Path) -> None:
    source = tmp_path / "s.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=30, width=64, height=48)
        container.add_stream("aac", rate=48000)
        container.add_stream("ac3", rate=48000)
        full = container.add_stream("aac", rate=48000)
        container.start_encoding()
        mux_click(container, full)
        mux_video(container, video)
    for suffix in (".mp4", ".mov"):
        sink = send(source, tmp_path / f"output{suffix}")
        assert facts(sink.path)["frames"] == FRAMES
        assert sum("is empty" in said or "left out" in said for said in sink.warnings) == 2
        assert click_time(sink.path) == pytest.approx(CLICK_SECONDS, abs=0.004)


def spoil_all(content: bytearray) -> None:
    content[:] = bytes(len(content))


def spoil_some(content: bytearray) -> None:
    content[len(content) // 3 :] = b"\xff" * (len(content) - len(content) // 3)


@pytest.mark.parametrize("spoil", [spoil_all, spoil_some])
@pytest.mark.parametrize("from_packet", [0, 20])
@pytest.mark.parametrize("codec", ["aac", "libvorbis", "mp2", "ac3", "pcm_s16le", "flac"])
def test_damaged_sound_does_not_stop_the_video(
    codec: str, from_packet: int, spoil: Callable[[bytearray], None], tmp_path: Path
) -> None:
    whole, source = write_source(tmp_path / "whole.mkv", [codec]), tmp_path / "s.mkv"
    with av.open(str(whole)) as taken, av.open(str(source), "w") as container:
        copies = {
            s.index: container.add_stream_from_template(s, opaque=True) for s in taken.streams
        }
        count = 0
        for packet in taken.demux():
            if packet.dts is None:
                continue
            given = packet
            if packet.stream.type == "audio":
                content = bytearray(bytes(packet))
                if count >= from_packet:
                    spoil(content)
                count += 1
                given = av.Packet(bytes(content))
                given.pts, given.dts = packet.pts, packet.dts
                given.time_base, given.duration = packet.time_base, packet.duration
            given.stream = copies[packet.stream.index]
            container.mux(given)
    for suffix in (".mp4", ".mov"):
        sink = send(source, tmp_path / f"output{suffix}")
        assert sink.failure is None
        assert facts(sink.path)["frames"] == FRAMES


def test_sound_of_an_unknown_codec_is_left_out(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.mkv", ["aac", "flac"])
    source.write_bytes(source.read_bytes().replace(b"A_FLAC", b"A_WXYZ"))
    sink = send(source, tmp_path / "output.mp4")
    assert ["left out" in said for said in sink.warnings] == [True]
    with av.open(str(sink.path)) as container:
        assert [s.codec_context.name for s in container.streams.audio] == ["aac"]


@pytest.mark.parametrize(("german", "in_quicktime"), [("ger", "ger"), ("deu", "ger")])
def test_languages_and_the_default_track_stay(
    german: str, in_quicktime: str, tmp_path: Path
) -> None:
    source = tmp_path / "s.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=30, width=64, height=48)
        tracks = [container.add_stream("aac", rate=48000) for _ in range(3)]
        for track, language in zip(tracks, ("eng", "fra", german), strict=True):
            track.metadata["language"] = language
            track.disposition = Disposition.default if language == "fra" else Disposition(0)
        container.start_encoding()
        for track in tracks:
            mux_click(container, track)
        mux_video(container, video)
    for suffix in (".mp4", ".mov"):
        sink = send(source, tmp_path / f"output{suffix}")
        assert sink.warnings == []
        with av.open(str(sink.path)) as container:
            found = [
                (s.metadata["language"], bool(s.disposition & Disposition.default))
                for s in container.streams.audio
            ]
        expected = in_quicktime if suffix == ".mov" else german
        assert found == [("eng", False), ("fra", True), (expected, False)]


MS = Fraction(1, 1000)
CHAPTERS = [
    {"id": 1, "start": 0, "end": 400, "time_base": MS, "metadata": {"title": "One"}},
    {
        "id": 2,
        "start": 400,
        "end": 1000,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": "2"},
    },
]


def write_rich(path: Path) -> Path:
    """A file with chapters, subtitles of two kinds, a second video, an attachment and a cover."""
    with av.open(str(path), "w") as container:
        container.set_chapters(CHAPTERS)
        video = container.add_stream("libx264", rate=30, width=64, height=48)
        other = container.add_stream("libx264", rate=30, width=32, height=32)
        texts = [container.add_stream(codec) for codec in ("srt", "ass")]
        for text, language in zip(texts, ("eng", "jpn"), strict=True):
            text.codec_context.subtitle_header = subtitles.HEADER
            text.metadata["language"] = language
        container.add_attachment("font.ttf", "application/x-truetype-font", b"no font")
        container.start_encoding()
        for index, start in enumerate((100, 600)):
            lines = (
                f"<i>line</i> {index}\r\nand \N{SNOWMAN}",
                f"{index},0,D,,0,0,0,,{{\\b1}}a, b\\Nc",
            )
            for text, line in zip(texts, lines, strict=True):
                packet = av.Packet(line.encode())
                packet.stream, packet.time_base = text, Fraction(1, 1000)
                packet.pts = packet.dts = start
                packet.duration = 300
                container.mux(packet)
        mux_video(container, other)
        mux_video(container, video)
    return path


def read_subtitles(path: Path, track: int) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[track]
        shown = []
        for packet in container.demux(stream):
            content = bytes(packet)
            if packet.pts is not None and len(content) > 2:
                start, length = (float(t * packet.time_base) for t in (packet.pts, packet.duration))
                text = content[2 : 2 + int.from_bytes(content[:2], "big")].decode()
                shown.append((round(start, 3), round(length, 3), text))
    return shown


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_chapters_and_subtitles_are_kept_and_the_rest_is_named(suffix: str, tmp_path: Path) -> None:
    sink = send(write_rich(tmp_path / "s.mkv"), tmp_path / f"output{suffix}")
    named = ("video track", "subtitle track", "subtitle track", "attachment 'font.ttf'")
    assert len(sink.warnings) == len(named)
    assert all(part in said for part, said in zip(named, sink.warnings, strict=True))
    assert read_subtitles(sink.path, 0) == [
        (0.1, 0.3, "line 0\nand \N{SNOWMAN}"), (0.6, 0.3, "line 1\nand \N{SNOWMAN}"),
    ]  # fmt: skip
    assert read_subtitles(sink.path, 1) == [(0.1, 0.3, "a, b\nc"), (0.6, 0.3, "a, b\nc")]
    with av.open(str(sink.path)) as container:
        found = [(c["start"], c["end"], c["metadata"]["title"]) for c in container.chapters()]
        languages = [s.metadata["language"] for s in container.streams.subtitles]
        assert container.duration == 1_000_000
    assert found == [(0, 400, "One"), (400, 1000, "2")]
    assert languages == ["eng", "jpn"]
    again = send(sink.path, tmp_path / f"again{suffix}")  # an MP4's own tracks are kept as they are
    assert again.warnings == []
    assert read_subtitles(again.path, 1) == read_subtitles(sink.path, 1)


def test_chapters_and_subtitles_end_with_the_pictures(tmp_path: Path) -> None:
    sink = send(write_rich(tmp_path / "s.mkv"), tmp_path / "output.mp4", frames=15)
    with av.open(str(sink.path)) as container:
        assert [(c["start"], c["end"]) for c in container.chapters()] == [(0, 400), (400, 500)]
        assert container.duration == 500_000
    assert len(read_subtitles(sink.path, 0)) == 1


@pytest.mark.parametrize(
    ("codec", "content", "text"),
    [
        ("subrip", b"<b>bold</b> {\\an8}up\r\nnext", "bold up\nnext"),
        ("subrip", b"1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("webvtt", b"<v Ann>Hi &amp; bye <00:01.000>now", "Hi & bye now"),
        ("ass", b"3,0,Default,,0,0,0,,{\\i1}x{\\i0}, y\\Nz\\hw", "x, y\nz\N{NO-BREAK SPACE}w"),
        ("text", b"<kept>", "<kept>"),
        ("subrip", b"\xff\xfe bad", "\ufffd\ufffd bad"),
        ("subrip", b"", ""),
    ],
)
def test_plain_text(codec: str, content: bytes, text: str) -> None:
    assert subtitles.plain_text(codec, content) == text


def test_a_very_long_subtitle_is_cut() -> None:
    sample = subtitles.sample("\N{SNOWMAN}" * 30000)
    assert len(sample) == 2 + int.from_bytes(sample[:2], "big") <= 2 + 0xFFFF
    sample[2:].decode()
