"""Damage in the middle of a source is named, and what can be decoded is kept."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_restore.errors import SourceError
from edge_restore.media.container_damage import damaged_places
from edge_restore.media.truncation import truncation
from edge_restore.sources import open_source
from tests.edge_restore.containers import ffmpeg, restored, write_video

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
    # The second of two MP4 files is not read at all.
    assert damaged_places(joined) == (suffix in ("mp4", "mov"))


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


def test_a_start_of_a_packet_that_is_overwritten_is_noticed(stream: Path) -> None:
    content = stream.read_bytes()
    starts = [
        i for i in range(len(content)) if content[i : i + 4] in (b"\0\0\1\xe0", b"\0\0\1\xc0")
    ]
    assert len(starts) > 40
    for at in starts[2::7]:
        stream.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
        assert damaged_places(stream) > 0, at


def test_a_picture_of_a_transport_stream_that_is_passed_over_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", "h264-b", "aac")
    content = path.read_bytes()
    slices = [i + 4 for i in range(len(content)) if content.startswith(b"\0\0\1\x01", i)]
    assert len(slices) > 10
    for at in slices[::5]:
        path.write_bytes(content[: at - 1] + b"\x5a" + content[at:])  # no kind of picture
        with open_source(path) as source:
            found = len(list(source))
        assert found == 50 or source.warnings, at


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


PARTS = (
    *("moov", "mvhd", "trak", "tkhd", "mdia", "mdhd", "minf", "stbl", "stsd", "stts", "stsc"),
    *("stsz", "stco", "moof", "mfhd", "traf", "tfhd", "trun"),
)


@pytest.fixture(scope="module")
def index_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("index")
    extra = "-movflags +frag_keyframe+empty_moov -g 12"
    clips = {
        "last": write_video(folder / "last.mp4", "h264-b", "aac"),
        "quicktime": write_video(folder / "last.mov", "h264-b", "aac"),
        "first": write_video(folder / "f.mp4", "h264-b", "aac", extra="-movflags +faststart"),
        "fragments": write_video(folder / "parts.mp4", "h264", "aac", extra=extra),
    }
    return {name: path.read_bytes() for name, path in clips.items()}


def places_of(part: str, content: bytes) -> list[int]:
    return [i for i in range(4, len(content)) if content.startswith(part.encode(), i)]


@pytest.mark.parametrize("name", ["last", "quicktime", "first", "fragments"])
def test_a_sound_index_has_no_contradiction(
    name: str, index_files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(index_files[name])
    assert damaged_places(path) == 0


@pytest.mark.parametrize("kind", [b"free", b"xxxx", bytes(4), b"stsz", b"trak"])
@pytest.mark.parametrize("name", ["last", "quicktime", "first", "fragments"])
def test_a_box_whose_name_is_damaged_is_noticed(
    name: str, kind: bytes, index_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = index_files[name], tmp_path / "a.mp4"
    tried = 0
    for part in PARTS:
        for at in places_of(part, content):
            if part.encode() == kind:
                continue
            path.write_bytes(content[:at] + kind + content[at + 4 :])
            assert is_named(path), (part, at)
            tried += 1
    assert tried >= 13


@pytest.mark.parametrize("size", [7, 9, 1 << 31])
@pytest.mark.parametrize("name", ["last", "quicktime", "first", "fragments"])
def test_a_box_whose_size_is_damaged_is_noticed(
    name: str, size: int, index_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = index_files[name], tmp_path / "a.mp4"
    for part in PARTS:
        for at in places_of(part, content):
            if (name, part) == ("fragments", "stco"):
                continue  # it is empty there
            path.write_bytes(content[: at - 4] + size.to_bytes(4, "big") + content[at:])
            assert is_named(path), (part, at)


def is_named(path: Path) -> bool:
    try:
        with open_source(path):
            return damaged_places(path) > 0 or truncation(path) is not None
    except SourceError:
        return True


def test_tables_of_different_lengths_are_noticed(
    index_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = index_files["last"], tmp_path / "a.mp4"
    for part, offset in (("stsz", 12), ("stts", 12), ("stsc", 16), ("stsc", 20), ("stco", 8)):
        for at in places_of(part, content):
            place = at + offset
            count = int.from_bytes(content[place : place + 4], "big")
            for other in (count - 1, count + 1):
                changed = other.to_bytes(4, "big")
                path.write_bytes(content[:place] + changed + content[place + 4 :])
                assert damaged_places(path) > 0, (part, count, other)


def test_times_that_the_header_contradicts_are_noticed(
    index_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = index_files["first"], tmp_path / "a.mp4"
    for at in places_of("stts", content):
        place = at + 16
        path.write_bytes(content[:place] + b"\x40" + content[place + 1 :])
        assert damaged_places(path) > 0


def test_a_fragment_that_is_missing_is_noticed(
    index_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = index_files["fragments"], tmp_path / "a.mp4"
    begins = [at - 4 for at in places_of("moof", content)]
    ends = [*begins[1:], places_of("mfra", content)[0] - 4]
    assert len(begins) >= 4
    for begin, end in zip(begins, ends, strict=True):
        path.write_bytes(content[:begin] + content[end:])
        assert damaged_places(path) > 0, begin


def test_a_bit_flipped_in_the_tracks_of_matroska_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", "h264-b", "aac")
    content = path.read_bytes()
    begin = content.rindex(b"\x16\x54\xae\x6b")
    end = content.index(b"\x12\x54\xc3\x67", begin)
    assert damaged_places(path) == 0
    assert end - begin > 200
    for at in [*range(begin, begin + 6), *range(begin + 8, end)]:  # but for the checksum's own name
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        assert damaged_places(path) > 0, at - begin


def test_a_track_of_webm_that_is_not_described_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", "vp9", "opus")  # which has no checksums
    content = path.read_bytes()
    tracks = content.rindex(b"\x16\x54\xae\x6b")
    assert damaged_places(path) == 0
    for number in (1, 2):
        at = content.index(b"\xd7\x81" + bytes([number]), tracks)
        for other in (b"\xd7\x81\x07", b"\xec\x81" + bytes([number])):
            path.write_bytes(content[:at] + other + content[at + 3 :])
            assert damaged_places(path) > 0, (number, other)


def test_a_stream_that_the_header_of_an_avi_counts_and_lacks_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", "mpeg4-b", "mp3")
    content = path.read_bytes()
    assert damaged_places(path) == 0
    for mark in (b"strl", b"strh", b"auds", b"vids"):
        for at in places_of(mark.decode(), content):
            path.write_bytes(content[:at] + b"xxxx" + content[at + 4 :])
            assert damaged_places(path) > 0, mark


def test_a_chunk_of_an_avi_that_takes_others_for_its_own_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", "mpeg4-b", "mp3")
    content = path.read_bytes()
    chunks = places_of("00dc", content[: content.index(b"idx1")])
    assert len(chunks) > 40
    for at in chunks[3:30:4]:
        following = next(place for place in chunks if place > at + 8)
        size = int.from_bytes(content[following + 4 : following + 8], "little") + following - at
        for new in (size, 1 << 16, len(content)):
            changed = content[: at + 4] + new.to_bytes(4, "little") + content[at + 8 :]
            path.write_bytes(changed)
            assert damaged_places(path) > 0, (at, new)


def test_joined_nut_files_are_noticed(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.nut", "h264", "aac").read_bytes()
    joined = tmp_path / "joined.nut"
    joined.write_bytes(part * 2)
    assert damaged_places(joined) == 1


# What FFmpeg says and goes on.


def errors_in(path: Path) -> list[str]:
    with open_source(path) as source:
        list(source)
        return source.remarks


def patched(path: Path, mark: bytes, offset: int, new: bytes) -> None:
    content = path.read_bytes()
    at = content.index(mark) + offset
    path.write_bytes(content[:at] + new + content[at + len(new) :])


def test_what_ffmpeg_reports_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "h264", "")
    assert errors_in(path) == []
    patched(path, b"stsz", 12 + 4 * 30, (1 << 31).to_bytes(4, "big"))
    (said,) = errors_in(path)
    assert "FFmpeg reports 1 error(s)" in said
    assert "Sample size 2147483648 is too large" in said
    assert errors_in(path) == [said]  # an error that was met before is one again


def test_a_raw_stream_that_ends_inside_of_a_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", "h264", "")
    content = path.read_bytes()
    path.write_bytes(content[: -len(content) // 20])
    with open_source(path) as source:
        assert len(list(source)) < 50
        assert source.remarks or source.warnings


def test_messages_of_two_files_at_once_and_the_level_that_was_set(tmp_path: Path) -> None:
    import av.logging

    sound = write_video(tmp_path / "sound.mkv", "h264-b", "")
    broken = write_video(tmp_path / "a.mp4", "h264", "")
    patched(broken, b"stsz", 12 + 4 * 30, (1 << 31).to_bytes(4, "big"))
    level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    with open_source(sound) as one, open_source(broken) as two:
        first = iter(one)
        next(first)
        assert len(list(two)) < 50
        assert len(list(first)) == 49
    assert (len(one.remarks), len(two.remarks)) == (0, 1)
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (level, repeated)


@pytest.mark.parametrize("suffix", ["mkv", "mpg", "ts"])
def test_sound_that_is_missing_in_the_middle_is_named(suffix: str, tmp_path: Path) -> None:
    codecs = ("mpeg2", "mp2") if suffix == "mpg" else ("h264", "aac")
    whole = write_video(tmp_path / f"whole.{suffix}", *codecs)
    path = tmp_path / f"a.{suffix}"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:a", r"noise=drop=between(n\,20\,24)", path)
    (said,) = restored(path, tmp_path / "out.mp4")
    assert "1 gap(s) in it" in said
    length = float(said.split(" of ")[-1].split(" s ")[0])
    np.testing.assert_allclose(length, 5 * (0.024 if suffix == "mpg" else 1024 / 48000), atol=0.03)
