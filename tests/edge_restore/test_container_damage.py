"""Damage in the middle of a source is named, and what can be decoded is kept."""

from __future__ import annotations

import random
import shutil
import subprocess
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


def ts_packets(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[i : i + 188] for i in range(0, len(data), 188)]


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.ts", "h264-b", "aac")


def test_lost_packets_of_a_transport_stream_are_noticed(stream: Path) -> None:
    packets = ts_packets(stream)
    assert damaged_places(stream) == 0
    for first in range(20, len(packets) - 20, 17):
        stream.write_bytes(b"".join([*packets[:first], *packets[first + 2 :]]))
        assert damaged_places(stream) > 0, first


def test_joined_and_repeated_packets_of_a_transport_stream_are_none_lost(stream: Path) -> None:
    packets = ts_packets(stream)
    for parts in ((packets, packets), (packets[:60], packets), (packets[:33], packets, packets)):
        stream.write_bytes(b"".join(b"".join(part) for part in parts))
        assert damaged_places(stream) == 0
    stream.write_bytes(b"".join([*packets[:40], packets[39], *packets[40:]]))
    assert damaged_places(stream) == 0


def test_damage_in_a_program_stream_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mpg"
    path.write_bytes(program_stream())
    assert damaged_places(path) == 0
    whole = path.read_bytes()
    for place in range(100, len(whole) - 2100, 2048):
        path.write_bytes(whole[:place] + bytes(2048) + whole[place + 2048 :])
        assert damaged_places(path) > 0, place
    path.write_bytes(whole + whole)
    assert damaged_places(path) == 0


def program_stream() -> bytes:
    """Twenty packs with a packet each, as ISO/IEC 13818-1 has them."""
    pack = b"\0\0\1\xba\x44" + bytes(8) + b"\xf8"
    packet = b"\0\0\1\xe0" + (2000).to_bytes(2, "big") + b"\x80" * 2000
    return (pack + packet) * 20 + b"\0\0\1\xb9"


def test_a_slice_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.4",
         "-c:v", "ffv1", "-level", "3", "-slicecrc", "1", str(path)],
        check=True,
    )  # fmt: skip
    whole = path.read_bytes()

    def warnings() -> list[str]:
        with open_source(path) as source:
            list(source)
            return source.warnings

    assert warnings() == []
    for place in (len(whole) // 3, len(whole) // 2, len(whole) * 2 // 3):
        path.write_bytes(whole[:place] + b"\xa5" + whole[place + 1 :])
        assert "damaged" in " ".join(warnings()), place
