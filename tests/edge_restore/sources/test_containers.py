"""Times and sound are those of the source, whatever its container: as ffmpeg understands it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.edge_restore.containers import (
    Times,
    ffmpeg,
    restored,
    times_of_ffmpeg,
    times_of_file,
    write_video,
)

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")

TOLERANCE = 0.0025
"""Seconds: what containers that count milliseconds round, on both sides."""

CLIPS = [
    *[
        ("mp4", f"{video} {audio}")
        for video, audio in (
            ("h264", "aac"),
            ("h264-b", "aac"),
            ("h264-open-gop", "aac"),
            ("h264-b", "ac3"),
            ("h264-b", ""),
            ("hevc-b", "aac"),
            ("mpeg4-b", "mp3"),
            ("av1", "aac"),
            ("vp9", "mp3"),
        )
    ],
    *[("mov", clip) for clip in ("h264-b pcm", "prores pcm", "mjpeg aac", "mpeg2-b ")],
    *[
        ("mkv", clip)
        for clip in (
            "h264 aac",
            "h264-b aac",
            "h264-open-gop ac3",
            "hevc-b opus",
            "mpeg4-b mp3",
            "mpeg2-b mp2",
            "vp9 opus",
            "ffv1 aac",
            "prores aac",
            "theora vorbis",
            "mjpeg ",
            "msmpeg4 mp3",
        )
    ],
    *[
        ("webm", clip)
        for clip in ("vp8 vorbis", "vp8-hidden vorbis", "vp9 opus", "vp9-hidden opus", "av1 opus")
    ],
    *[
        ("avi", clip)
        for clip in (
            "mpeg4 mp3",
            "mpeg4-b mp3",
            "h264 mp3",
            "h264-b mp3",
            "mjpeg mp3",
            "ffv1 ac3",
            "huffyuv ",
            "raw ",
            "msmpeg4 mp3",
        )
    ],
    *[
        ("ts", clip)
        for clip in (
            "h264 aac",
            "h264-b aac",
            "h264-open-gop ac3",
            "hevc-b aac",
            "mpeg2 ac3",
            "mpeg2-b mp2",
            "mpeg4-b mp3",
        )
    ],
    ("m2ts", "h264-b ac3"),
    *[("mpg", clip) for clip in ("mpeg2-b mp2", "mpeg1-b mp2", "h264-b ac3")],
    ("vob", "mpeg2-b ac3"),
    *[("flv", clip) for clip in ("flv1 mp3", "h264 aac", "h264-b aac")],
    *[("ogv", clip) for clip in ("theora vorbis", "theora ")],
    *[("nut", clip) for clip in ("mpeg4-b mp3", "h264-b aac")],
    *[("asf", clip) for clip in ("wmv2 mp3", "h264-b mp3", "mpeg4-b mp3")],
    *[("3gp", clip) for clip in ("h263 aac", "h264-b aac")],
    ("wtv", "mpeg2-b mp2"),
    *[
        (suffix, f"{video} ")
        for suffix, video in (
            ("y4m", "y4m"),
            ("h264", "h264"),
            ("h264", "h264-b"),
            ("hevc", "hevc-b"),
            ("m2v", "mpeg2-b"),
            ("m1v", "mpeg1-b"),
            ("m4v", "mpeg4-b"),
            ("mjpeg", "mjpeg"),
            ("ivf", "vp9"),
            ("ivf", "vp9-hidden"),
            ("obu", "av1"),
            ("gif", "gif"),
            ("apng", "apng"),
        )
    ],
]


def assert_like_ffmpeg(source: Path, *, said: str = "10 bits|alpha") -> Times:
    """The result's times, which are ffmpeg's; of what is `said` there are other tests."""
    output = source.with_name("output.mp4")
    assert [w for w in restored(source, output) if not re.search(said, w)] == []
    expected, found = times_of_ffmpeg(source), times_of_file(output)
    assert_same(found, expected)
    return found


def assert_same(found: Times, expected: Times) -> None:
    assert len(found.frames) == len(expected.frames)
    # From each file's first frame: ffmpeg moves the start to zero where a file has an edit list.
    start, expected_start = found.frames[0], expected.frames[0]
    np.testing.assert_allclose(
        np.subtract(found.frames, start),
        np.subtract(expected.frames, expected_start),
        atol=TOLERANCE,
    )
    assert bool(found.sound) == bool(expected.sound)
    if len(found.sound) == len(expected.sound):
        np.testing.assert_allclose(
            np.subtract(found.sound, start),
            np.subtract(expected.sound, expected_start),
            atol=TOLERANCE,
        )
    else:  # PCM, cut into other packets
        assert found.sound_bytes == expected.sound_bytes
        assert found.sound[0] - start == pytest.approx(expected.sound[0] - expected_start)


@pytest.mark.parametrize(("suffix", "clip"), CLIPS, ids=lambda word: word.strip())
def test_times_are_those_of_ffmpeg(tmp_path: Path, suffix: str, clip: str) -> None:
    video, audio = clip.split(" ")
    extra = "-f mpegts -mpegts_m2ts_mode 1" if suffix == "m2ts" else ""
    source = write_video(tmp_path / f"clip.{suffix}", video, audio, extra=extra)
    found = assert_like_ffmpeg(source)
    if suffix not in ("mp4", "mov"):
        # Nothing but what lies before the first frame and sound that is heard.
        assert abs(min(found.frames[0], *found.sound[:1], 9)) < 0.05 or suffix in ("avi", "asf")


@pytest.mark.parametrize("audio_at", [0.7, -0.5])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "mpg", "flv"])
def test_sound_keeps_its_distance(tmp_path: Path, suffix: str, audio_at: float) -> None:
    codecs = ("mpeg2-b", "mp2") if suffix == "mpg" else ("h264-b", "aac")
    source = write_video(tmp_path / f"clip.{suffix}", *codecs, audio_at=audio_at)
    assert_like_ffmpeg(source)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "webm", "nut"])
def test_a_rate_that_varies(tmp_path: Path, suffix: str) -> None:
    codecs = ("vp8", "vorbis") if suffix == "webm" else ("h264-b", "aac")
    keep = r"not(mod(n\,3))+lt(n\,20)"
    source = write_video(tmp_path / f"clip.{suffix}", *codecs, select=keep)
    found = assert_like_ffmpeg(source)
    assert len({round(gap, 2) for gap in np.diff(found.frames)}) >= 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_a_cut_between_keyframes(tmp_path: Path, suffix: str) -> None:
    whole = write_video(tmp_path / f"whole.{suffix}", "h264-open-gop", "aac")
    source = tmp_path / f"clip.{suffix}"
    ffmpeg("-ss", "0.9", "-i", whole, "-c", "copy", source)  # an edit list in MP4
    # What came before the cut is referred to, and FFmpeg says so.
    assert_like_ffmpeg(source, said="mmco: unref short failure|coded frames .* gave no picture")


# Clocks that start late, overflow or jump.

SHIFTS = ["50000", "95441", "95442.2", "95443.7"]
"""Seconds; the 33 bits of an MPEG clock overflow after 95443.7."""


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_clock_that_starts_late_or_overflows(tmp_path: Path, shift: str) -> None:
    source = tmp_path / "clip.ts"
    write_video(source, "h264-b", "aac", extra=f"-output_ts_offset {shift}")
    found = assert_like_ffmpeg(source)
    assert found.frames[0] < 0.1
    assert found.frames[-1] < SECONDS_OF_CLIP


SECONDS_OF_CLIP = 2.2


@pytest.mark.parametrize("suffix", ["mkv", "fragmented.mp4", "nut"])
def test_a_start_far_from_zero(tmp_path: Path, suffix: str) -> None:
    extra = "-output_ts_offset 5000"
    extra += " -movflags +frag_keyframe+empty_moov" if "mp4" in suffix else ""
    found = assert_like_ffmpeg(
        write_video(tmp_path / f"clip.{suffix}", "h264-b", "aac", extra=extra)
    )
    assert found.frames[-1] < SECONDS_OF_CLIP


@pytest.mark.parametrize(
    "parts",
    [
        ((2, 2, 0), (2, 2, 0)),
        ((2, 2, 0), (1.5, 1.8, 0), (2, 1.7, 0)),
        ((1.5, 1.9, 0), (2, 2, 0)),
        ((2, 2, 100), (1.5, 1.5, 0)),
        ((2, 2, 0), (2, 2, 100)),
        ((2, 2, 0), (2, 2, 8)),
        ((2, 2, 0), (2, 2, 95440)),
        ((2, 2, 95441), (2, 2, 0)),
    ],
    ids=lambda parts: "+".join(f"{start}..{start + seconds}" for seconds, _, start in parts),
)
@pytest.mark.parametrize("codecs", ["ts h264-b aac", "ts mpeg2-b mp2", "mpg mpeg2-b mp2"])
def test_joined_recordings(
    tmp_path: Path, codecs: str, parts: tuple[tuple[float, float, int], ...]
) -> None:
    suffix, video, audio = codecs.split()
    if suffix == "mpg" and any(seconds == 1.5 for seconds, *_ in parts[:-1]):
        pytest.skip("FFmpeg 8 gives the last frame before the join a time between the two parts")
    source = tmp_path / f"joined.{suffix}"
    with source.open("wb") as joined:
        for seconds, audio_seconds, start in parts:
            part = write_video(
                tmp_path / f"part.{suffix}",
                video,
                audio,
                seconds=seconds,
                audio_seconds=audio_seconds,
                extra=f"-output_ts_offset {start}",
            )
            joined.write(part.read_bytes())
    found = assert_like_ffmpeg(source, said=r"1 gap\(s\) in it")  # where nothing was recorded
    assert len(found.frames) == sum(round(25 * seconds) for seconds, *_ in parts)
    assert np.diff(found.frames).min() > 0.015


@pytest.mark.parametrize("suffix", ["webm", "mkv"])
def test_joined_files_of_formats_whose_clock_does_not_jump(tmp_path: Path, suffix: str) -> None:
    # ffmpeg squeezes the second part into no time.
    codecs = ("vp8", "vorbis") if suffix == "webm" else ("mpeg4", "aac")
    part = write_video(tmp_path / f"part.{suffix}", *codecs)
    source = tmp_path / f"joined.{suffix}"
    source.write_bytes(part.read_bytes() * 2)
    restored(source, tmp_path / "output.mp4")
    found = times_of_file(tmp_path / "output.mp4")
    assert len(found.frames) == 100
    np.testing.assert_allclose(np.diff(found.frames), 0.04, atol=0.03)
    assert found.sound[-1] == pytest.approx(4, abs=0.1)
