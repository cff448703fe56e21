"""Tags are where players look for them; mutagen reads as players do."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip("av")
mp4 = pytest.importorskip("mutagen.mp4", reason="mutagen is not installed")

from edge_restore.media.images import jpeg_bytes, write_png  # noqa: E402
from edge_restore.sinks import open_sink  # noqa: E402
from edge_restore.sources import open_source  # noqa: E402
from tests.edge_restore.clips import facts, picture, write_clip  # noqa: E402

TAGS = {
    "title": "a walk \N{SNOWMAN}",
    "artist": "me",
    "album_artist": "us",
    "album": "walks",
    "date": "2024-05-01",
    "comment": "no comment",
    "genre": "Documentary",
    "composer": "you",
    "copyright": "2024",
    "description": "short",
    "track": "3/12",
    "disc": "1",
    "compilation": "1",
}
EXPECTED = {
    "\xa9nam": [TAGS["title"]],
    "\xa9ART": ["me"],
    "aART": ["us"],
    "\xa9alb": ["walks"],
    "\xa9day": ["2024-05-01"],
    "\xa9cmt": ["no comment"],
    "\xa9gen": ["Documentary"],
    "\xa9wrt": ["you"],
    "cprt": ["2024"],
    "desc": ["short"],
    "trkn": [(3, 12)],
    "disk": [(1, 0)],
    "cpil": True,
}
OTHERS = {"firmware": "H19.03", "location": "+41.0-029.0/", "creation_time": "2024-05-01T10:00:00Z"}


def send(source: Path, output: Path) -> Path:
    with open_source(source) as opened:
        sink = open_sink(output, opened.info, source_path=source)
        for frame in opened:
            sink.write(frame)
    sink.finish()
    assert sink.warnings == []
    return output


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov"])
@pytest.mark.parametrize("name", ["source.mp4", "source.mkv", "source.mov"])
def test_tags_are_read_by_players_and_nothing_is_lost(
    name: str, suffix: str, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / name, gaps=(3000,) * 5, tags={**TAGS, **OTHERS})
    output = send(source, tmp_path / f"output{suffix}")
    found = dict(mp4.MP4(output).tags)
    assert {key: found.get(key) for key in EXPECTED} == EXPECTED
    kept = {key.lower(): value for key, value in facts(output)["tags"].items()}
    assert kept["firmware"] == "H19.03"
    assert kept["location"].startswith("+41.0")
    assert kept["creation_time"].startswith("2024-05-01T10:00:00")
    for key, value in TAGS.items():
        assert kept[key] == value


def test_a_file_without_tags_gets_none(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 5)
    tags = mp4.MP4(send(source, tmp_path / "output.mp4")).tags or {}
    assert not [atom for atom in tags if not atom.startswith("\0")]  # FFmpeg's own name alone


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_cover_picture_is_kept(kind: str, suffix: str, tmp_path: Path) -> None:
    cover = tmp_path / f"cover.{kind}"
    if kind == "jpeg":
        cover.write_bytes(jpeg_bytes(picture(0, 32, 32)))
    else:
        write_png(cover, picture(0, 32, 32))
    source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 5)
    tagged = mp4.MP4(source)
    form = mp4.MP4Cover.FORMAT_JPEG if kind == "jpeg" else mp4.MP4Cover.FORMAT_PNG
    tagged["covr"] = [mp4.MP4Cover(cover.read_bytes(), form)]
    tagged.save()
    output = send(source, tmp_path / f"output{suffix}")
    (found,) = mp4.MP4(output).tags["covr"]
    assert (bytes(found), found.imageformat) == (cover.read_bytes(), form)
    assert facts(output)["frames"] == 5


def test_numbers_that_are_none_are_left_to_the_keys(tmp_path: Path) -> None:
    tags = {"track": "first", "compilation": "yes", "tempo": "99999999", "title": "x"}
    source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 5, tags=tags)
    output = send(source, tmp_path / "output.mp4")
    assert set(mp4.MP4(output).tags) == {"\xa9nam"}
    assert facts(output)["tags"]["track"] == "first"


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")
def test_ffprobe_reads_the_file_without_complaint(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mp4", gaps=(3000,) * 5, tags={**TAGS, **OTHERS})
    for suffix in (".mp4", ".mov"):
        output = send(source, tmp_path / f"output{suffix}")
        command = ["ffprobe", "-v", "warning", "-show_entries", "format_tags", str(output)]
        read = subprocess.run(command, capture_output=True, text=True, check=True)
        assert read.stderr == ""
        assert "TAG:artist=me" in read.stdout and "TAG:firmware=H19.03" in read.stdout
        assert open_source(output).info.time_base == Fraction(1, 90000)
