"""What an output cannot have of its source's pictures is said, what it can is kept."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from edge_restore.sinks import open_sink  # noqa: E402
from edge_restore.sinks.losses import losses, pixel_format  # noqa: E402
from edge_restore.sources import StreamInfo, open_source  # noqa: E402
from tests.edge_restore.clips import facts, picture  # noqa: E402

INFO = StreamInfo(width=64, height=48, rate=Fraction(30), time_base=Fraction(1, 30))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("", "yuv420p"),
        ("yuv420p", "yuv420p"),
        ("yuvj420p", "yuv420p"),
        ("nv12", "yuv420p"),
        ("yuv410p", "yuv420p"),
        ("yuv411p", "yuv422p"),
        ("yuyv422", "yuv422p"),
        ("yuvj422p", "yuv422p"),
        ("yuv440p", "yuv444p"),
        ("yuv444p", "yuv444p"),
        ("rgb24", "yuv444p"),
        ("gbrp", "yuv444p"),
        ("bgra", "yuv444p"),
        ("gray", "yuv420p"),
        ("gray10le", "yuv420p10le"),
        ("yuv420p10le", "yuv420p10le"),
        ("p010le", "yuv420p10le"),
        ("yuv422p12le", "yuv422p10le"),
        ("yuva444p10le", "yuv444p10le"),
        ("gbrp12le", "yuv444p10le"),
    ],
)
def test_colours_and_bits_are_kept_where_the_encoder_has_them(name: str, kept: str) -> None:
    assert pixel_format(replace(INFO, pixel_format=name)) == kept


@pytest.mark.parametrize(
    ("properties", "parts"),
    [
        ({"pixel_format": "yuv420p"}, []),
        ({"pixel_format": "yuvj422p", "side_data": ("SEI_UNREGISTERED",)}, []),
        ({"pixel_format": "yuv420p10le"}, ["10 bits"]),
        ({"pixel_format": "gbrp12le"}, ["12 bits"]),
        ({"pixel_format": "bgra"}, ["transparency"]),
        ({"pixel_format": "yuva444p10le"}, ["10 bits", "transparency"]),
        ({"pixel_format": "ya8"}, ["transparency"]),
        ({"pixel_format": "yuv420p", "stream_metadata": {"alpha_mode": "1"}}, ["transparency"]),
        ({"pixel_format": "yuv420p", "color_trc": 16}, ["HDR (PQ)"]),
        ({"pixel_format": "yuv420p", "color_trc": 18}, ["HDR (HLG)"]),
        (
            {"side_data": ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")},
            ["mastering display", "content light level"],
        ),
        ({"side_data": ("DOVI_RPU_BUFFER", "DOVI_METADATA")}, ["Dolby Vision"]),
        ({"side_data": ("DYNAMIC_HDR_PLUS",)}, ["HDR10+"]),
        ({"side_data": ("A53_CC",)}, ["closed captions"]),
        ({"side_data": ("ICC_PROFILE",)}, ["ICC"]),
    ],
)
def test_each_loss_is_a_sentence(properties: dict[str, object], parts: list[str]) -> None:
    found = losses(replace(INFO, **properties))  # type: ignore[arg-type]
    assert len(found) == len(parts)
    assert all(part in sentence for part, sentence in zip(parts, found, strict=True))


FILES = {
    "10 bits": ("libx264", "yuv420p10le", "s.mkv", "yuv420p10le", ["10 bits"]),
    "4:2:2 of 10 bits": ("prores_ks", "yuv422p10le", "s.mov", "yuv422p10le", ["10 bits"]),
    "ProRes 4444": ("prores_ks", "yuva444p10le", "s.mov", "yuv444p10le", ["bits", "transp"]),
    "VP9 with alpha": ("libvpx-vp9", "yuva420p", "s.webm", "yuv420p", ["transparency"]),
    "QuickTime Animation": ("qtrle", "argb", "s.mov", "yuv444p", ["transparency"]),
    "PNG": ("png", "rgba", "s.mov", "yuv444p", ["transparency"]),
    "4:4:4": ("libx264", "yuv444p", "s.mp4", "yuv444p", []),
    "MJPEG 4:2:2": ("mjpeg", "yuvj422p", "s.avi", "yuvj422p", []),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_that_kind(kind: str, tmp_path: Path) -> None:
    codec, layout, name, kept, parts = FILES[kind]
    source = tmp_path / name
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(source), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, layout
        for index in range(4):
            pixels = np.dstack([picture(index, 64, 96), np.full((64, 96), 128, np.uint8)])
            frame = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=layout)
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with open_source(source) as frames:
        sink = open_sink(tmp_path / "output.mp4", frames.info, source_path=source)
        shown = [frame.pixels for frame in frames]
        for frame in frames:
            sink.write(frame)
    sink.finish()
    assert facts(tmp_path / "output.mp4")["pixel_format"] == kept
    assert len(sink.warnings) == len(parts)
    assert all(part in said for part, said in zip(parts, sink.warnings, strict=True))
    with open_source(tmp_path / "output.mp4") as written:
        for first, second in zip(shown, written, strict=True):
            assert np.abs(first.astype(int) - second.pixels).mean() < 2.5


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_hdr_metadata_is_named(tmp_path: Path) -> None:
    source = tmp_path / "hdr.mp4"
    parameters = (
        "log-level=0:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,"
        "400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    )
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.2"]
    command += ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", parameters]
    command.append(str(source))
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this ffmpeg has no libx265")
    with open_source(source) as frames:
        found = losses(frames.info)
        sink = open_sink(tmp_path / "output.mp4", frames.info, source_path=source)
        for frame in frames:
            sink.write(frame)
    sink.finish()
    for part in ("10 bits", "PQ", "mastering display", "content light level"):
        assert any(part in sentence for sentence in found)
    assert facts(tmp_path / "output.mp4")["colour"][1:] == (9, 9, 16)
