"""Small real video files for the tests, and what can be read back from one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from edge_restore.media.colour import from_rgb
from edge_restore.media.display_matrix import write_display_matrix
from edge_restore.sources import StreamInfo

TICKS = 90000
QUARTER_TURN = (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30)
"""Display matrix of a picture that is shown turned by 90 degrees counter-clockwise."""

VARIABLE_GAPS = (3000, 3000, 6000, 1500, 4500, 3000, 9000, 3000) * 3
"""Ticks between frames of varying rate; the last is the last frame's duration."""


def picture(index: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """A smooth colourful picture that moves with `index`: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin((x * a + y * b + 7 * index) / 19.0) for a, b in ((1, 0.3), (0.2, 1), (0.7, 0.7))
    ]
    return np.stack([128 + 90 * wave for wave in waves], axis=2).astype(np.uint8)


def write_clip(
    path: Path,
    *,
    width: int = 64,
    height: int = 48,
    gaps: tuple[int, ...] = (3000,) * 24,
    start: int = 0,
    sound: bool = True,
    matrix: tuple[int, ...] | None = None,
    color_range: int = 1,
    color_space: int = 1,
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write an H.264 clip of `len(gaps)` frames, `gaps[i]` ticks of 1/90000 s apart."""
    container = av.open(
        str(path),
        "w",
        container_options={
            "movflags": "use_metadata_tags",
            "video_track_timescale": str(TICKS),
            **(options or {}),
        },
    )
    container.metadata.update(tags or {})
    video = container.add_stream(
        "libx264",
        rate=Fraction(30),
        width=width,
        height=height,
        pix_fmt="yuv444p" if width % 2 or height % 2 else "yuv420p",
        time_base=Fraction(1, TICKS),
        options={"preset": "ultrafast", "bf": "0", "crf": "10"},
    )
    context = video.codec_context
    context.color_range, context.colorspace = color_range, color_space
    context.color_primaries, context.color_trc = 1, 1
    info = StreamInfo(width, height, None, Fraction(1, TICKS), None, color_range, color_space)
    reformatter = VideoReformatter()
    audio = container.add_stream("aac", rate=48000) if sound else None
    pts = start
    for index, gap in enumerate(gaps):
        pixels = picture(index, height, width)
        frame = from_rgb(pixels, info, str(video.pix_fmt), reformatter)
        frame.pts, frame.time_base = pts, Fraction(1, TICKS)
        pts += gap
        for packet in video.encode(frame):
            packet.duration = gaps[-1]
            container.mux(packet)
    for packet in video.encode(None):
        packet.duration = gaps[-1]
        container.mux(packet)
    if audio is not None:
        _add_tone(container, audio, start, pts)
    container.close()
    if matrix is not None:
        write_display_matrix(path, matrix)
    return path


def _add_tone(container: Any, audio: Any, start: int, end: int) -> None:
    count = (end - start) * 48000 // TICKS
    tone = (np.sin(np.arange(count) * 0.05) * 0.3).astype(np.float32)
    for begin in range(0, count, 1024):
        block = np.stack([tone[begin : begin + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        frame.pts, frame.time_base = begin + start * 48000 // TICKS, Fraction(1, 48000)
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def facts(path: Path) -> dict[str, Any]:
    """What a player knows of a file: what ffprobe would print, read by PyAV."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        context = video.codec_context
        first = next(container.decode(video))
        known: dict[str, Any] = {
            "size": (context.width, context.height),
            "frames": video.frames,
            "rates": (video.average_rate, video.base_rate),
            "time_base": video.time_base,
            "start": video.start_time,
            "duration": video.duration,
            "rotation": first.rotation,
            "colour": (
                first.color_range,
                first.colorspace,
                first.color_primaries,
                first.color_trc,
            ),
            "pixel_format": context.pix_fmt,
            "video_tags": _lasting(video.metadata),
            "tags": _lasting(container.metadata),
        }
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        known["times"] = sorted(packet.pts for packet in packets)
    known["sound"] = sound(path)
    return known


def sound(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    """Every packet of the first sound track: pts, duration, content."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        packets = container.demux(container.streams.audio[0])
        return [(p.pts, p.duration, bytes(p)) for p in packets if p.dts is not None]


def planes(path: Path) -> list[np.ndarray[Any, Any]]:
    """Every frame's planes as stored, without any colour conversion."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def _lasting(tags: dict[str, str]) -> dict[str, str]:
    of_the_file = {"major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"}
    unknown = {"language": "und"}.items()  # QuickTime leaves out what MP4 calls undetermined
    return {k: v for k, v in tags.items() if k not in of_the_file and (k, v) not in unknown}
