"""Damage in the middle of a source is named, and what can be decoded is kept."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from edge_restore.sources import open_source
from edge_restore.sources.container_damage import damaged_places
from tests.edge_restore.containers import write_video

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")

CLIPS = [
    ("mkv", "h264-b", "aac"),
    ("webm", "vp9", "opus"),
    ("avi", "mpeg4-b", "mp3"),
    ("ts", "h264-b", "aac"),
    ("ts", "mpeg2-b", "mp2"),
    ("flv", "h264", "aac"),
    ("ogv", "theora", "vorbis"),
    ("mp4", "h264-b", ""),
    ("mov", "prores", ""),
]


@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "random"])
@pytest.mark.parametrize(("suffix", "video", "audio"), CLIPS)
def test_overwritten_bytes_are_named_and_the_rest_is_kept(
    tmp_path: Path, suffix: str, video: str, audio: str, zeros: bool
) -> None:
    source = write_video(tmp_path / f"clip.{suffix}", video, audio)
    content = bytearray(source.read_bytes())
    assert damaged_places(source) == 0
    length = len(content) // 20
    for share in (0.4, 0.7):
        begin = int(len(content) * share)
        damage = bytes(length) if zeros else random.Random(7).randbytes(length)
        content[begin : begin + length] = damage
    source.write_bytes(content)
    with open_source(source) as opened:
        count = sum(1 for _ in opened)
    assert 10 < count <= 50
    assert any("damaged" in text for text in opened.warnings)


@pytest.mark.parametrize(("suffix", "video", "audio"), CLIPS)
def test_joined_and_padded_files_are_not_damaged(
    tmp_path: Path, suffix: str, video: str, audio: str
) -> None:
    part = write_video(tmp_path / f"part.{suffix}", video, audio, seconds=1).read_bytes()
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(part * 2)
    assert damaged_places(joined) == 0


def test_a_transport_stream_joined_inside_of_a_packet(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.ts", "mpeg2", "mp2", seconds=1).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part[:-100] + part)
    assert damaged_places(joined) == 1
    joined.write_bytes(part[100:] + part)
    assert damaged_places(joined) == 0
