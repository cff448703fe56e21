"""A source that was cut off is named, in every container; one that is whole is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_restore.media.truncation import truncation
from edge_restore.sources import open_source
from tests.edge_restore.containers import AUDIO, VIDEO, ffmpeg, write_video

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")

CLIPS = [
    ("mp4", "h264-b", "aac", "-movflags +faststart"),
    ("mov", "h264-b", "pcm", "-movflags +faststart"),
    ("fragmented.mp4", "h264", "aac", "-movflags +frag_keyframe+empty_moov"),
    ("mkv", "h264-b", "aac", ""),
    ("mkv", "mpeg4-b", "mp3", ""),
    ("webm", "vp8", "vorbis", ""),
    ("avi", "mpeg4-b", "mp3", ""),
    ("avi", "mjpeg", "", ""),
    ("ts", "h264-b", "aac", ""),
    ("ts", "mpeg2-b", "mp2", ""),
    ("m2ts", "h264-b", "ac3", "-f mpegts -mpegts_m2ts_mode 1"),
    ("mpg", "mpeg2-b", "mp2", ""),
    ("mpg", "mpeg1-b", "mp2", "-f mpeg"),
    ("vob", "mpeg2-b", "ac3", ""),
    ("flv", "h264", "aac", ""),
    ("flv", "flv1", "mp3", ""),
    ("ogv", "theora", "vorbis", ""),
    ("nut", "mpeg4-b", "mp3", ""),
    ("asf", "wmv2", "mp3", ""),
    ("3gp", "h263", "aac", "-movflags +faststart"),
    ("y4m", "y4m", "", ""),
    ("ivf", "vp9", "", ""),
    ("gif", "gif", "", ""),
    ("apng", "apng", "", ""),
    ("mjpeg", "mjpeg", "", ""),
    ("mxf", "mpeg2-b", "pcm", ""),
]


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "extra"), CLIPS, ids=lambda word: str(word).strip()
)
def test_a_file_cut_at_any_place_is_named(
    tmp_path: Path, suffix: str, video: str, audio: str, extra: str
) -> None:
    whole = write_video(tmp_path / f"whole.{suffix}", video, audio, extra=extra, seconds=1)
    assert truncation(whole) is None
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    named = 0
    for length in [round(len(content) * k / 29) - 1 for k in range(6, 29)] + [len(content) - 100]:
        cut.write_bytes(content[:length])
        named += truncation(cut) is not None
    # Nothing is known of a cut exactly between two parts of a stream without end.
    assert named >= (24 if "fragmented" not in suffix else 23)


@pytest.mark.parametrize("share", [1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["mkv", "avi", "flv", "ogv", "asf", "mpg", "nut"])
def test_what_is_left_is_given_with_a_warning(tmp_path: Path, suffix: str, share: float) -> None:
    video, audio = {
        "ogv": ("theora", "vorbis"),
        "mpg": ("mpeg2-b", "mp2"),
        "flv": ("flv1", "mp3"),
    }.get(suffix, ("mpeg4-b", "mp3"))
    whole = write_video(tmp_path / f"whole.{suffix}", video, audio).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with open_source(cut) as source:
        assert 0 < sum(1 for _ in source) <= 50
    # An MPEG program stream may be cut between two packets, in the middle of a frame.
    assert any("was cut off" in text or "damaged" in text for text in source.warnings)
    # Who asks for no more than is there gets no warning.
    with open_source(cut, max_frames=1) as source:
        assert sum(1 for _ in source) == 1
    assert source.warnings == []


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("matroska", "mpeg4 mp3"),
        ("webm", "vp8 vorbis"),
        ("avi", "mpeg4 mp3"),
        ("flv", "flv1 mp3"),
        ("asf", "wmv2 mp3"),
        ("mpegts", "mpeg2 mp2"),
        ("mpeg", "mpeg2 mp2"),
        ("ogg", "theora vorbis"),
        ("nut", "mpeg4 mp3"),
        ("yuv4mpegpipe", "y4m "),
    ],
)
def test_a_whole_file_that_was_written_to_a_pipe_is_not_named(
    tmp_path: Path, name: str, codecs: str
) -> None:
    video, audio = codecs.split(" ")
    whole = write_video(tmp_path / "whole.nut", "raw", "pcm" if audio else "", seconds=1)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(whole)]
    command += f"{VIDEO[video]} {AUDIO[audio]} -f {name} -".split()
    streamed = tmp_path / "streamed"
    streamed.write_bytes(subprocess.check_output(command))
    assert truncation(streamed) is None
    with open_source(streamed) as source:
        assert sum(1 for _ in source) == 25
    assert source.warnings == []


def test_a_recording_that_starts_in_the_middle_of_a_packet_is_whole(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", "mpeg2", "mp2").read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(whole[1000:])
    assert truncation(late) is None


def test_joined_matroska_files_are_whole(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.mkv", "mpeg4", "mp3", seconds=1).read_bytes()
    joined = tmp_path / "joined.mkv"
    joined.write_bytes(part * 2)
    assert truncation(joined) is None
    joined.write_bytes(part * 2 + part[: len(part) // 2])
    assert truncation(joined) is not None


def test_a_remuxed_cut_file_is_whole(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", "h264-b", "aac").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    ffmpeg("-i", tmp_path / "cut.mkv", "-c", "copy", tmp_path / "repaired.mkv")
    with open_source(tmp_path / "repaired.mkv") as source:
        assert sum(1 for _ in source) > 10
    assert not [text for text in source.warnings if "cut off" in text]


@pytest.mark.parametrize(("suffix", "length"), [("ts", 188), ("m2ts", 192)])
def test_a_transport_stream_cut_inside_of_a_frame_is_named(
    tmp_path: Path, suffix: str, length: int
) -> None:
    extra = "-f mpegts -mpegts_m2ts_mode 1" if suffix == "m2ts" else ""
    whole = write_video(tmp_path / f"whole.{suffix}", "mpeg2-b", "mp2", extra=extra, seconds=1)
    assert truncation(whole) is None
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    named = 0
    for count in range(20, len(content) // length):
        cut.write_bytes(content[: count * length])
        named += truncation(cut) is not None
    assert named > (len(content) // length - 20) / 2  # the others end with a frame
