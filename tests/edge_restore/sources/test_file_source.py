"""Reading video files: what is known of them, their frames, and files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from edge_restore.errors import OptionError, SourceError
from edge_restore.sources import open_source
from tests.edge_restore.clips import (
    QUARTER_TURN,
    TICKS,
    VARIABLE_GAPS,
    facts,
    picture,
    write_clip,
)


def test_info_tells_what_the_file_says(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4",
        gaps=VARIABLE_GAPS,
        start=9000,
        matrix=QUARTER_TURN,
        tags={"title": "a walk", "firmware": "1.2"},
    )
    with open_source(clip) as source:
        info = source.info
    assert (info.width, info.height) == (64, 48)
    assert info.time_base == Fraction(1, TICKS)
    assert info.frames == 24
    assert info.duration == pytest.approx(sum(VARIABLE_GAPS) / TICKS)
    assert info.rotation == facts(clip)["rotation"] == 90
    colours = (info.color_range, info.color_space, info.color_primaries, info.color_trc)
    assert colours == (1, 1, 1, 1)
    assert info.has_audio
    assert info.metadata["title"] == "a walk"
    assert info.metadata["firmware"] == "1.2"


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_rotation_is_ffmpegs(tmp_path: Path, degrees: int) -> None:
    one = 1 << 16
    cosine, sine = {90: (0, one), -90: (0, -one), 180: (-one, 0)}[degrees]
    matrix = (cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 30)
    clip = write_clip(tmp_path / "clip.mp4", gaps=(3000,) * 2, sound=False, matrix=matrix)
    assert open_source(clip).info.rotation == facts(clip)["rotation"]
    assert abs(open_source(clip).info.rotation) == abs(degrees)


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", gaps=VARIABLE_GAPS, start=9000)
    with open_source(str(clip)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(24))
    assert [frame.pts for frame in frames] == facts(clip)["times"]
    assert frames[0].seconds == 0.1
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert frame.clock.milliseconds("decode") > 0
    assert source.warnings == []


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("color_space", [1, 6])
def test_colours_follow_the_matrix_and_range_of_the_stream(
    tmp_path: Path, color_range: int, color_space: int
) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", gaps=(3000,) * 3, color_range=color_range, color_space=color_space
    )
    for index, frame in enumerate(open_source(clip)):
        error = frame.pixels - picture(index, 48, 64).astype(int)
        # The loss of the encoder and of halved colour planes; a wrong matrix or range makes 3.
        assert np.abs(error).mean() < 1.5


def test_each_iteration_begins_anew_and_may_be_left(tmp_path: Path) -> None:
    source = open_source(write_clip(tmp_path / "clip.mp4"))
    for frame in source:
        if frame.index == 3:
            break
    assert sum(1 for _ in source) == 24
    source.close()
    source.close()


def test_max_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    source = open_source(clip, max_frames=5)
    assert source.info.frames == 5
    assert sum(1 for _ in source) == 5
    assert open_source(clip, max_frames=99).info.frames == 24
    with pytest.raises(OptionError, match="number of frames is 0"):
        open_source(clip, max_frames=0)


@pytest.mark.parametrize("container", ["avi", "mkv", "webm", "ts", "gif", "h264"])
def test_other_containers_and_codecs(tmp_path: Path, container: str) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9", "gif": "gif"}.get(container, "libx264")
    clip = tmp_path / f"clip.{container}"
    with av.open(str(clip), "w") as output:
        stream = output.add_stream(codec, rate=25, width=64, height=48)
        stream.pix_fmt = "rgb8" if container == "gif" else "yuv420p"
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(picture(index, 48, 64), "rgb24")
            output.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        output.mux(stream.encode(None))
    source = open_source(clip)
    frames = list(source)
    assert len(frames) == 12
    gaps = np.diff([frame.seconds for frame in frames])
    np.testing.assert_allclose(gaps, 1 / 25, atol=2e-3)
    shift = (frames[6].pixels - picture(6, 48, 64).astype(int)).mean((0, 1))
    assert np.abs(shift).max() < 20  # the gif has 256 colours
    assert source.warnings == []


def test_the_real_clip(real_clip: Path) -> None:
    source = open_source(real_clip, max_frames=4)
    assert (source.info.width, source.info.height) == (848, 480)
    assert source.info.rate == Fraction(30000, 1001)
    assert source.info.color_range == 2  # the pictures say so, the container says 1
    assert [frame.pts for frame in source] == [0, 3003, 6006, 9009]


# Files that cannot be read.


def missing(folder: Path) -> Path:
    return folder / "nowhere.mp4"


def directory(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("This is no video.\n" * 300, encoding="utf-8")
    return path


def text_that_ffmpeg_would_draw(folder: Path) -> Path:
    return text(folder).rename(folder / "notes.txt")


def without_index(folder: Path) -> Path:
    whole = write_clip(folder / "whole.mp4").read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: whole.rindex(b"moov") - 4])
    return path


def cut_inside_index(folder: Path) -> Path:
    whole = write_clip(folder / "whole.mp4").read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: whole.rindex(b"moov") + 200])
    return path


def cut_before_first_picture(folder: Path) -> Path:
    fast = write_clip(folder / "whole.mp4", options={"movflags": "+faststart"}, sound=False)
    whole = fast.read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: whole.index(b"mdat") + 8])
    return path


def zero_frames(folder: Path) -> Path:
    path = folder / "none.avi"
    with av.open(str(path), "w") as container:
        container.add_stream("libx264", rate=30, width=64, height=48, pix_fmt="yuv420p")
        container.start_encoding()
    return path


def no_content(folder: Path) -> Path:
    path = folder / "none.mp4"
    with av.open(str(path), "w") as container:
        container.add_stream("libx264", rate=30, width=64, height=48, pix_fmt="yuv420p")
        container.start_encoding()
    return path


def sound_only(folder: Path) -> Path:
    path = folder / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "there is no file"),
        (directory, "is a directory"),
        (empty, "is empty"),
        (text, "is not a video that FFmpeg can read"),
        (text_that_ffmpeg_would_draw, "it is a text file"),
        (without_index, r"is a truncated video: the file has no index \('moov' box\)"),
        (cut_inside_index, r"is a truncated video: the file ends \d+ bytes before its last box"),
        (cut_before_first_picture, r"no frame of .* can be decoded: the file ends \d+ bytes"),
        (zero_frames, "no frame of .* can be decoded"),
        (no_content, "is a video file without content: it holds no frame"),
        (sound_only, "holds no video stream, only audio"),
    ],
)
def test_unreadable_files_say_why(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(make(tmp_path))
    assert caught.value.exit_code == 2
    assert caught.value.expected
    assert caught.value.hint


def test_unknown_scheme() -> None:
    with pytest.raises(SourceError, match="'rtsp://' is not a kind of source"):
        open_source("rtsp://camera/1")


def test_a_file_cut_in_the_middle_gives_its_frames_and_says_so(tmp_path: Path) -> None:
    gaps = (3000,) * 60
    fast = write_clip(
        tmp_path / "whole.mp4", gaps=gaps, options={"movflags": "+faststart"}, sound=False
    )
    whole = fast.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: (whole.index(b"mdat") + len(whole)) // 2])
    source = open_source(cut)
    frames = list(source)
    assert 10 < len(frames) < 50
    assert [frame.pts for frame in frames] == [3000 * i for i in range(len(frames))]
    (warning,) = [text for text in source.warnings if "cut off" in text]
    assert f"after the {len(frames)} frames that are left" in warning

    # Who asks for no more than is there gets no warning.
    short = open_source(cut, max_frames=5)
    assert sum(1 for _ in short) == 5
    assert short.warnings == []


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", gaps=(3000,) * 60, sound=False)
    with av.open(str(clip)) as container:
        packets = [p for p in container.demux(video=0) if p.pos is not None and p.size]
    content = bytearray(clip.read_bytes())
    for packet in packets[30:33]:
        assert packet.pos is not None
        content[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"  # the length of its first unit
    clip.write_bytes(content)
    source = open_source(clip)
    frames = list(source)
    assert 40 <= len(frames) < 58
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[-1].pts == 59 * 3000  # what follows the damage is there again, in its time
    assert any("3 damaged packets" in text for text in source.warnings)


def test_times_that_stand_still_are_moved_on(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", gaps=(3000,) * 8, sound=False)
    twice = tmp_path / "twice.mp4"
    with av.open(str(clip)) as whole, av.open(str(twice), "w") as output:
        stream = output.add_stream_from_template(whole.streams.video[0], opaque=True)
        for packet in whole.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts += 3000 if packet.dts != 4 * 3000 else 0  # two pictures at one time
            packet.stream = stream
            output.mux(packet)
    times = np.array([frame.pts for frame in open_source(twice)])
    assert len(times) == 8
    assert sorted(np.diff(times))[0] == 1
    assert (np.diff(times) > 0).all()


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.ts", width=64, sound=False)
    large = write_clip(tmp_path / "b.ts", width=96, sound=False)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(SourceError, match=r"frame \d+ of .* is 96x48, the first was 64x48"):
        list(open_source(both))


def test_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="is a pipe"):
        open_source(tmp_path / "pipe.mp4")
