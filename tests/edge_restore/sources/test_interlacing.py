"""Interlaced pictures are refused where they begin; progressive ones never are."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip("av")

from edge_restore.cli import main  # noqa: E402
from edge_restore.errors import SourceError  # noqa: E402
from edge_restore.sources import open_source  # noqa: E402
from tests.edge_restore.clips import facts, picture  # noqa: E402
from tests.edge_restore.onnx_models import write_model  # noqa: E402

INTERLACED = {
    "x264 top field first": ("libx264", "yuv420p", {"x264-params": "tff=1"}, "i.mp4"),
    "x264 bottom field first": ("libx264", "yuv420p", {"x264-params": "bff=1"}, "i.mkv"),
    "MPEG-2": ("mpeg2video", "yuv420p", {"flags": "+ilme+ildct"}, "i.mpg"),
    "MPEG-2 4:2:2": ("mpeg2video", "yuv422p", {"flags": "+ilme+ildct"}, "i.ts"),
    "MPEG-4": ("mpeg4", "yuv420p", {"flags": "+ilme+ildct"}, "i.avi"),
    "ProRes": ("prores_ks", "yuv422p10le", {"flags": "+ilme+ildct"}, "i.mov"),
}
PROGRESSIVE = {
    "flagged in the stream, not in its frames": (
        "libx264", "yuv420p", {"x264-params": "fake-interlaced=1"}, "p.mp4",
    ),
    "plain": ("libx264", "yuv420p", {}, "p.mp4"),
    "MPEG-2": ("mpeg2video", "yuv420p", {}, "p.mpg"),
}  # fmt: skip


def encode(path: Path, codec: str, pixel_format: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 96, 64, pixel_format
        fields = av.filter.Graph()
        field_order = "tff" if "flags" in options else "prog"
        fields.link_nodes(
            fields.add_buffer(width=96, height=64, format=pixel_format, time_base=Fraction(1, 25)),
            fields.add("setfield", field_order),
            fields.add("buffersink"),
        ).configure()
        for index in range(8):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 96), "rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            fields.push(frame)
            container.mux(video.encode(fields.pull()))
        container.mux(video.encode(None))
    return path


def make(tmp_path: Path, codec: str, pixel_format: str, options: dict[str, str], name: str) -> Path:
    return encode(tmp_path / name, codec, pixel_format, options)


@pytest.mark.parametrize("kind", INTERLACED)
def test_interlaced_video_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    source = make(tmp_path, *INTERLACED[kind])
    with pytest.raises(SourceError, match=r"frame 0 of .* is interlaced") as caught:
        open_source(source)
    assert "ffmpeg -i" in caught.value.hint and "bwdif" in caught.value.hint


@pytest.mark.parametrize("kind", PROGRESSIVE)
def test_progressive_video_is_taken(kind: str, tmp_path: Path) -> None:
    with open_source(make(tmp_path, *PROGRESSIVE[kind])) as source:
        assert sum(1 for _ in source) == 8


def test_interlacing_in_mid_stream_ends_the_run_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        encode(tmp_path / "first.ts", "mpeg2video", "yuv420p", {}),
        encode(tmp_path / "second.ts", "mpeg2video", "yuv420p", {"flags": "+ilme+ildct"}),
    ]
    source, out = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    model = write_model(tmp_path)
    assert main(["run", str(source), "--out", str(out), "--model", str(model)]) == 2
    assert "ended early at frame 8: frame 8 of" in capsys.readouterr().err
    assert facts(out)["frames"] == 8


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", ["in.mp4", "it's in.mp4", "10:30.mp4"])
def test_the_advice_makes_a_video_that_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / name, "libx264", "yuv420p", {"x264-params": "tff=1"})
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path / name)
    command = caught.value.hint.partition("first: ")[2]
    subprocess.run([*shlex.split(command), "-v", "error", "-nostdin"], check=True)
    with open_source(tmp_path / (Path(name).stem + ".progressive.mp4")) as source:
        assert sum(1 for _ in source) >= 8
