"""Writing video files: what a player knows of the output is what it knew of the source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge_restore.errors import InternalError, SinkError
from edge_restore.frames import Frame
from edge_restore.sinks import open_sink
from edge_restore.sinks.file import FileSink
from edge_restore.sources import StreamInfo, open_source
from tests.edge_restore.clips import (
    QUARTER_TURN,
    TICKS,
    VARIABLE_GAPS,
    facts,
    picture,
    planes,
    sound,
    write_clip,
)

PLAIN = StreamInfo(width=64, height=48, rate=Fraction(30), time_base=Fraction(1, 30))


def copy(
    source_path: Path,
    output: Path,
    max_frames: int | None = None,
    *,
    blank: bool = False,
    warning: str = "",
) -> Path:
    """Send a file's frames from the source to the sink, unchanged or all black."""
    with open_source(source_path, max_frames=max_frames) as source:
        sink = open_sink(output, source.info, source_path=source_path)
        for frame in source:
            if blank:  # black is encoded in no time
                frame.pixels = np.zeros_like(frame.pixels)
            sink.write(frame)
            assert frame.clock.milliseconds("encode") > 0
        assert sink.finish() == output
    assert all(warning and warning in said for said in sink.warnings)
    assert os.listdir(output.parent).count(output.name) == 1
    assert not [name for name in os.listdir(output.parent) if name.startswith(".")]
    return output


def frame_at(index: int, height: int = 48, width: int = 64) -> Frame:
    return Frame(picture(index, height, width), index, index, Fraction(1, 30))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize(
    "clip",
    [
        {},
        {"gaps": VARIABLE_GAPS, "start": 9000, "matrix": QUARTER_TURN},
        {"color_range": 2, "color_space": 6, "sound": False, "gaps": (3003,) * 10},
        {"width": 63, "height": 47, "gaps": (3000,) * 9},
        {"tags": {"title": "a walk", "location": "+41.0-029.0/", "firmware": "H19.03"}},
    ],
    ids=["plain", "variable-rate-turned", "full-range-silent", "odd-size", "tags"],
)
def test_output_equals_source(tmp_path: Path, clip: dict[str, Any], suffix: str) -> None:
    source = write_clip(tmp_path / "source.mp4", **clip)
    output = copy(source, tmp_path / f"output{suffix}")
    expected = facts(source)
    found = facts(output)
    for tags in (expected["tags"], found["tags"]):
        tags.pop("location-eng", None)  # QuickTime writes the place with its language as well
    assert found == expected


def test_pictures_keep_their_values(tmp_path: Path) -> None:
    for color_range in (1, 2):
        source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 6, color_range=color_range)
        output = copy(source, tmp_path / "output.mp4")
        for first, second in zip(planes(source), planes(output), strict=True):
            error = second.astype(float) - first
            assert 10 * np.log10(255**2 / np.mean(error**2)) > 42
            assert abs(error[:48].mean()) < 0.3  # luma


def test_the_real_clip(real_clip: Path, tmp_path: Path) -> None:
    output = copy(real_clip, tmp_path / "output.mp4", blank=True, warning="data track")
    expected, found = facts(real_clip), facts(output)
    assert found.pop("video_tags") == expected.pop("video_tags")
    assert found == expected
    assert len(found["times"]) == 315
    assert found["rates"] == (Fraction(30000, 1001), Fraction(30000, 1001))
    assert len(found["sound"]) == 493


def test_the_real_clip_cut_short(real_clip: Path, tmp_path: Path) -> None:
    output = copy(real_clip, tmp_path / "output.mp4", max_frames=20, warning="data track")
    expected, found = facts(real_clip), facts(output)
    assert found["times"] == expected["times"][:20]
    assert (found["frames"], found["duration"]) == (20, 20 * 3003)
    for same in ("size", "rates", "time_base", "start", "colour", "pixel_format", "tags"):
        assert found[same] == expected[same], same
    assert_sound_ends_with(found, expected)


@pytest.mark.parametrize("frames", [1, 7, 23, 24])
def test_sound_is_cut_to_the_pictures(tmp_path: Path, frames: int) -> None:
    source = write_clip(tmp_path / "source.mp4", gaps=VARIABLE_GAPS, start=9000)
    output = copy(source, tmp_path / "output.mp4", max_frames=frames)
    expected, found = facts(source), facts(output)
    assert found["times"] == expected["times"][:frames]
    assert found["duration"] == sum(VARIABLE_GAPS[:frames])
    if frames == 24:
        assert found["sound"] == expected["sound"]
    else:
        assert_sound_ends_with(found, expected)


def assert_sound_ends_with(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The sound is the source's, up to the packet in which the last picture ends."""
    count = len(found["sound"])
    assert found["sound"] == expected["sound"][:count]
    end = (found["start"] + found["duration"]) * found["time_base"]
    last = Fraction(found["sound"][-1][0], 48000)
    assert last < end <= last + Fraction(1024, 48000)


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")
def test_ffprobe_sees_no_difference(real_clip: Path, tmp_path: Path) -> None:
    keys = (
        "codec_type,width,height,pix_fmt,color_range,color_space,color_transfer,color_primaries,"
        "r_frame_rate,avg_frame_rate,time_base,start_pts,duration_ts,nb_frames,sample_aspect_ratio,"
        "sample_rate,channels:stream_side_data=rotation,displaymatrix"
    )

    def probe(path: Path) -> Any:
        command = ["ffprobe", "-v", "error", "-show_entries", f"stream={keys}", "-of", "json"]
        command += ["-show_entries", "packet=stream_index,pts,duration", "-select_streams"]
        return [
            json.loads(subprocess.check_output([*command, kind, str(path)])) for kind in ("v", "a")
        ]

    turned = write_clip(tmp_path / "clip.mp4", gaps=VARIABLE_GAPS, start=9000, matrix=QUARTER_TURN)
    for clip in (turned, real_clip):
        output = copy(clip, tmp_path / "output.mp4", blank=True, warning="data track")
        assert probe(output) == probe(clip)


def test_sound_that_lies_after_the_pictures_in_the_file(tmp_path: Path) -> None:
    source = tmp_path / "source.mov"
    joined = write_clip(tmp_path / "joined.mp4", gaps=(3000,) * 60)
    with av.open(str(joined)) as clip, av.open(str(source), "w") as output:
        copies = {s.index: output.add_stream_from_template(s, opaque=True) for s in clip.streams}
        packets = [packet for packet in clip.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda p: p.stream.type, reverse=True):
            packet.stream = copies[packet.stream.index]
            output.mux(packet)
    found = facts(copy(source, tmp_path / "output.mp4", max_frames=30))
    assert_sound_ends_with(found, facts(source))


@pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame", "libopus", "flac"])
def test_sound_of_other_codecs(tmp_path: Path, codec: str) -> None:
    source = tmp_path / "source.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=30, width=64, height=48, pix_fmt="yuv420p")
        audio = container.add_stream(codec, rate=48000)
        audio.codec_context.layout = "stereo"
        for index in range(15):
            frame = av.VideoFrame.from_ndarray(picture(index, 48, 64), "rgb24")
            container.mux(video.encode(frame))
        wave = np.zeros((1, 2 * 24000), np.int16)
        heard = av.AudioFrame.from_ndarray(wave, "s16", "stereo")
        heard.sample_rate, heard.pts = 48000, 0
        container.mux(video.encode(None))
        resampler = av.AudioResampler(audio.format.name, "stereo", 48000, audio.frame_size or None)
        for block in [*resampler.resample(heard), *resampler.resample(None)]:
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    output = copy(source, tmp_path / "output.mov" if codec == "pcm_s16le" else tmp_path / "o.mp4")
    expected, found = (b"".join(content for *_, content in sound(p)) for p in (source, output))
    assert found == expected


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (47, 64), (48, 63)])
def test_any_size_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    info = replace(PLAIN, width=width, height=height)
    sink = open_sink(tmp_path / "output.mp4", info, source_path=None)
    for index in range(3):
        sink.write(frame_at(index, height, width))
    sink.finish()
    written = open_source(tmp_path / "output.mp4")
    assert (written.info.height, written.info.width) == size
    assert sum(1 for _ in written) == 3


def test_pixels_are_not_square_in_the_output_either(tmp_path: Path) -> None:
    info = replace(PLAIN, sample_aspect_ratio=Fraction(16, 15))
    sink = open_sink(tmp_path / "output.mp4", info, source_path=None)
    sink.write(frame_at(0))
    sink.finish()
    assert open_source(tmp_path / "output.mp4").info.sample_aspect_ratio == Fraction(16, 15)


# How a sink ends.


def test_nothing_stands_at_the_output_before_finish(tmp_path: Path) -> None:
    output = tmp_path / "output.mp4"
    output.write_bytes(b"what was there before")
    sink = open_sink(output, PLAIN, source_path=None)
    sink.write(frame_at(0))
    assert output.read_bytes() == b"what was there before"
    assert sink.finish() == output
    assert facts(output)["frames"] == 1
    assert sink.finish() == output  # again: nothing happens
    sink.abort()
    assert facts(output)["frames"] == 1


def test_abort_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "output.mp4"
    output.write_bytes(b"what was there before")
    sink = open_sink(output, PLAIN, source_path=None)
    for index in range(5):
        sink.write(frame_at(index))
    sink.abort()
    sink.abort()
    assert sink.finish() is None
    assert output.read_bytes() == b"what was there before"
    assert os.listdir(tmp_path) == ["output.mp4"]


def test_no_frames_no_file(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "output.mp4", PLAIN, source_path=None)
    assert sink.finish() is None
    assert os.listdir(tmp_path) == []


def test_a_frame_of_another_size_is_a_bug(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "output.mp4", PLAIN, source_path=None)
    with pytest.raises(InternalError, match="a frame of 32x48 for a stream of 64x48"):
        sink.write(frame_at(0, 48, 32))
    sink.abort()


def test_frames_before_one_that_cannot_be_written_are_kept(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "output.mp4", PLAIN, source_path=None)
    for index in (3, 4, 5):
        sink.write(frame_at(index))
    sink.write(frame_at(4))  # time goes back: the encoder tells when its frame comes out
    assert sink.finish() == tmp_path / "output.mp4"
    assert "cannot be written" in str(sink.failure)
    assert facts(tmp_path / "output.mp4")["frames"] == sink.frames_written == 3
    assert os.listdir(tmp_path) == ["output.mp4"]


# Outputs that are refused before any work.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "source.mp4", gaps=(3000,) * 3)


def itself(source: Path) -> Path:
    return source


def by_another_spelling(source: Path) -> Path:
    return source.parent / "." / ".." / source.parent.name / source.name


def symbolic_link(source: Path) -> Path:
    link = source.with_name("symbolic.mp4")
    link.symlink_to(source)
    return link


def hard_link(source: Path) -> Path:
    link = source.with_name("hard.mp4")
    link.hardlink_to(source)
    return link


@pytest.mark.parametrize("name", [itself, by_another_spelling, symbolic_link, hard_link])
def test_the_source_is_no_output(source: Path, name: Callable[[Path], Path]) -> None:
    content = source.read_bytes()
    with pytest.raises(SinkError, match="is the source itself") as caught:
        open_sink(name(source), open_source(source).info, source_path=source)
    assert caught.value.exit_code == 2
    assert source.read_bytes() == content


@pytest.mark.parametrize("name", ["output.xyz", "output.mkv", "output"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(SinkError, match="has the suffix") as caught:
        open_sink(tmp_path / name, PLAIN, source_path=None)
    assert ".mp4, .m4v, .mov" in caught.value.expected
    assert os.listdir(tmp_path) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist"):
        open_sink(tmp_path / "nowhere" / "output.mp4", PLAIN, source_path=None)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="is not a directory"):
        open_sink(tmp_path / "file" / "output.mp4", PLAIN, source_path=None)
    with pytest.raises(SinkError):
        open_sink(Path("/proc/output.mp4"), PLAIN, source_path=None)


NOISE = np.random.default_rng(0).integers(0, 256, (144, 176, 3), np.uint8)


def write_noise(output: Path, source: Path | None, frames: int = 300) -> FileSink:
    """Write frames that fill a disk until the sink refuses one; the sink, finished."""
    info = replace(PLAIN, width=176, height=144)
    if source is not None:
        info = replace(info, time_base=open_source(source).info.time_base)
    sink = FileSink(output, info, source_path=source)
    try:
        for index in range(frames):
            sink.write(Frame(np.roll(NOISE, index), index, index, Fraction(1, 30)))
    except SinkError:
        assert sink.failure is not None
    sink.finish()
    return sink


def assert_whole(output: Path, frames: int) -> None:
    """All frames are there, intact, and sound as long as they are."""
    with av.open(str(output)) as container:
        video, *audio = container.streams
        assert video.frames == frames
        decoded = {"video": 0, "audio": 0}
        for packet in container.demux():
            for frame in packet.decode():
                assert not getattr(frame, "is_corrupt", False)
                decoded[packet.stream.type] += frame.samples if packet.stream in audio else 1
    assert decoded["video"] == frames
    if audio:
        assert abs(decoded["audio"] / 48000 - frames / 30) < 0.06


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that fills up early."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "edge-restore-test", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("reserving", [True, False])
@pytest.mark.parametrize("with_sound", [True, False])
def test_a_full_disk_keeps_the_frames_for_which_there_was_room(
    small_disk: Path,
    tmp_path: Path,
    with_sound: bool,
    reserving: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not reserving:  # as on a file system that cannot
        monkeypatch.setattr("edge_restore.sinks.space._system_fallocate", lambda: None)
    source = write_clip(tmp_path / "source.mp4", width=176, height=144, gaps=(3000,) * 300)
    (small_disk / "output.mp4").write_bytes(b"an older one")
    sink = write_noise(small_disk / "output.mp4", source if with_sound else None)
    assert "No space left on device" in str(sink.failure)
    part = small_disk / "output.partial.mp4"
    assert 5 < sink.frames_written < 300
    assert_whole(part, sink.frames_written)
    assert part.stat().st_size > 800_000, "the room was used"
    assert (small_disk / "output.mp4").read_bytes() == b"an older one"
    assert sorted(os.listdir(small_disk)) == ["output.mp4", "output.partial.mp4"]


def test_a_disk_without_any_room_is_said_before_any_work(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 4096))
    with pytest.raises(SinkError, match="No space left"):
        write_noise(small_disk / "output.mp4", None)
    assert os.listdir(small_disk) == ["filler"]


def test_what_was_reserved_is_given_back(small_disk: Path) -> None:
    sink = write_noise(small_disk / "output.mp4", None, frames=3)
    assert sink.failure is None
    disk = os.statvfs(small_disk)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    assert used - (small_disk / "output.mp4").stat().st_size < 3 * disk.f_frsize


@pytest.mark.parametrize("limit", [100_000, 300_000, 1_000_000])
@pytest.mark.parametrize("with_sound", [True, False])
def test_a_limit_of_a_files_size_keeps_the_frames_below_it(
    tmp_path: Path, with_sound: bool, limit: int
) -> None:
    resource = pytest.importorskip("resource", reason="file sizes can be limited on POSIX only")
    source = write_clip(tmp_path / "source.mp4", width=176, height=144, gaps=(3000,) * 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        sink = write_noise(tmp_path / "output.mp4", source if with_sound else None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in str(sink.failure)
    assert limit * 0.6 < (tmp_path / "output.mp4").stat().st_size <= limit
    assert_whole(tmp_path / "output.mp4", sink.frames_written)
    assert sorted(os.listdir(tmp_path)) == ["output.mp4", "source.mp4"]


def test_an_edit_that_hides_the_last_pictures(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 30)
    content = bytearray(source.read_bytes())
    edit = content.index(b"elst") + 12  # version and flags, count, then the length shown
    length = int.from_bytes(content[edit : edit + 4], "big")
    content[edit : edit + 4] = (length // 2).to_bytes(4, "big")
    source.write_bytes(content)
    shown = sum(1 for _ in open_source(source))
    assert shown < 20
    output = copy(source, tmp_path / "output.mp4")
    assert facts(output)["frames"] == shown
    # All pictures that are shown were written, so the sound is not cut.
    assert sound(output) == sound(source)


@pytest.mark.parametrize("ticks", [30, 1000, 15360, 90000])
def test_the_track_counts_in_the_sources_ticks(tmp_path: Path, ticks: int) -> None:
    info = replace(PLAIN, time_base=Fraction(1, ticks))
    sink = open_sink(tmp_path / "output.mp4", info, source_path=None)
    for index in range(3):
        sink.write(frame_at(index))
    sink.finish()
    assert open_source(tmp_path / "output.mp4").info.time_base == Fraction(1, ticks)


def test_ticks_are_the_sources(tmp_path: Path) -> None:
    # One tick of 1/90000 s more would show in the times.
    source = write_clip(tmp_path / "source.mp4", gaps=(3000, 1, 2999, 1), sound=False)
    assert facts(copy(source, tmp_path / "output.mp4"))["times"] == [0, 3000, 3001, 6000]
    assert facts(tmp_path / "output.mp4")["time_base"] == Fraction(1, TICKS)
