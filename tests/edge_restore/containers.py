"""Clips of every container and codec that ffmpeg writes, and what ffmpeg itself makes of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from edge_restore.backends.restorer import Restorer
from edge_restore.frames import Frame
from edge_restore.pipeline import run as pipeline
from edge_restore.sinks import open_sink
from edge_restore.sources import open_source

SECONDS = 2
VIDEO = {
    "h264": "-c:v libx264 -preset ultrafast -bf 0 -g 12",
    "h264-b": "-c:v libx264 -preset ultrafast -bf 3 -b_strategy 0 -g 12",
    "h264-open-gop": "-c:v libx264 -preset ultrafast -bf 3 -b_strategy 0 -g 12 "
    "-x264-params open-gop=1",
    "hevc-b": "-c:v libx265 -preset ultrafast "
    "-x265-params log-level=none:bframes=3:b-adapt=0:keyint=12",
    "mpeg4": "-c:v mpeg4 -g 12",
    "mpeg4-b": "-c:v mpeg4 -bf 2 -g 12",
    "mpeg2": "-c:v mpeg2video -g 12",
    "mpeg2-b": "-c:v mpeg2video -bf 2 -g 12",
    "mpeg1-b": "-c:v mpeg1video -bf 2 -g 12",
    "msmpeg4": "-c:v msmpeg4 -g 12",
    "h263": "-c:v h263 -s 128x96 -g 12",
    "flv1": "-c:v flv -g 12",
    "wmv2": "-c:v wmv2 -g 12",
    "vp8": "-c:v libvpx -deadline realtime -cpu-used 8 -g 12",
    "vp8-hidden": "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 10 -b:v 100k -g 12",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12",
    "vp9-hidden": "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 12",
    "av1": "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 12",
    "theora": "-c:v libtheora -g 12",
    "mjpeg": "-c:v mjpeg -pix_fmt yuvj420p",
    "prores": "-c:v prores -pix_fmt yuv422p10le",
    "ffv1": "-c:v ffv1",
    "huffyuv": "-c:v huffyuv -pix_fmt yuv422p",
    "raw": "-c:v rawvideo",
    "gif": "-c:v gif",
    "apng": "-c:v apng -pix_fmt rgb24",
    "y4m": "",
}
AUDIO = {
    "aac": "-c:a aac",
    "mp3": "-c:a libmp3lame",
    "mp2": "-c:a mp2",
    "ac3": "-c:a ac3",
    "opus": "-c:a libopus",
    "vorbis": "-c:a libvorbis -ac 2",
    "flac": "-c:a flac",
    "pcm": "-c:a pcm_s16le",
    "": "-an",
}


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; its errors fail the test."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


def write_video(
    path: Path,
    video: str,
    audio: str = "",
    *,
    seconds: float = SECONDS,
    audio_seconds: float | None = None,
    audio_at: float = 0.0,
    extra: str = "",
    select: str = "",
) -> Path:
    """A clip of 25 frames a second, of a codec in `VIDEO` and one in `AUDIO`.

    Args:
        audio_at: how much later the sound begins, in seconds.
        extra: more of ffmpeg's output options.
        select: which frames are kept, for a rate that varies: an expression of its "select" filter.
    """
    pictures = f"testsrc=s=64x48:r=25:d={seconds}" + (f",select={select}" if select else "")
    command = ["-f", "lavfi", "-i", pictures]
    if audio:
        command += ["-itsoffset", str(audio_at), "-f", "lavfi"]
        command += [
            "-i",
            f"sine=r=48000:d={audio_seconds or seconds}",
            "-map",
            "0:v",
            "-map",
            "1:a",
        ]
    options = f"{VIDEO[video]} {AUDIO[audio]} -strict -2 -threads 1 {extra}"
    if "-pix_fmt" not in options:
        options += " -pix_fmt yuv420p"
    if select:
        options += " -fps_mode passthrough -enc_time_base -1"
    ffmpeg(*command, *options.split(), path)
    return path


@dataclass(frozen=True)
class Times:
    """Seconds of every frame and sound packet of a file, and the sound's bytes."""

    frames: list[float]
    sound: list[float]
    sound_bytes: int = 0


def times_of_ffmpeg(path: Path) -> Times:
    """What ffmpeg makes of a file: the frames that it decodes and the sound that it copies."""
    command = "ffmpeg -v quiet -nostdin -threads 1 -i FILE -map 0:V:0 -map 0:a:0? "
    command += "-fps_mode passthrough -enc_time_base -1 -c:v rawvideo -c:a copy "
    command += "-avoid_negative_ts disabled -f framecrc -"
    words = [str(path) if word == "FILE" else word for word in command.split()]
    lines = subprocess.check_output(words, text=True, timeout=60).splitlines()
    bases: dict[int, Fraction] = {}
    packets: dict[int, list[tuple[float, int]]] = {0: [], 1: []}
    for line in lines:
        if line.startswith("#tb"):
            bases[int(line.split()[1].rstrip(":"))] = Fraction(line.split()[-1])
        elif not line.startswith("#"):
            stream, _, pts, _, size, *_ = (word.strip() for word in line.split(","))
            packets[int(stream)].append((float(int(pts) * bases[int(stream)]), int(size)))
    return Times(
        sorted(time for time, _ in packets[0]),
        [time for time, _ in packets[1]],
        sum(size for _, size in packets[1]),
    )


def times_of_file(path: Path) -> Times:
    """The times that an MP4 or QuickTime file states."""
    frames, sound, sound_bytes = [], [], 0
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is None:
                continue
            seconds = float(packet.pts * packet.time_base)
            if packet.stream.type == "video":
                frames.append(seconds)
            elif packet.stream.index == container.streams.audio[0].index:
                sound.append(seconds)
                sound_bytes += packet.size
    return Times(sorted(frames), sound, sound_bytes)


class Blank(Restorer):
    """Makes every frame black, which is encoded in no time."""

    name, precision, in_flight = "blank", "fp32", 1

    def open(self, height: int, width: int) -> None:
        pass

    def submit(self, frame: Frame) -> None:
        frame.clock.begin("restore")
        frame.pixels = np.zeros_like(frame.pixels)
        frame.clock.end("restore")
        self._frame: Frame | None = frame

    def collect(self) -> Frame | None:
        frame, self._frame = self._frame, None
        return frame

    def flush(self) -> list[Frame]:
        return []

    def close(self) -> None:
        pass


def restored(path: Path, output: Path, max_frames: int | None = None) -> list[str]:
    """Send a file through the pipeline; the warnings."""
    with open_source(path, max_frames=max_frames) as source:
        sink = open_sink(output, source.info, source_path=path)
        result = pipeline.run(source, Blank(), sink)
    assert result.failure is None
    return result.warnings
