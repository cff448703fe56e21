"""Writing the demonstration's own clips: H.264 that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media.colour import from_rgb
from edge_restore.media.container import file_url
from edge_restore.sources import StreamInfo
from edge_restore.storage.files import atomic_path

_BT709 = 1
_LIMITED = 1
_SRGB_CURVE = 13


def write_clip(path: str | Path, frames: Iterable[Pixels], rate: int, crf: int) -> None:
    """Write `frames`, RGB uint8 of one even size, as 4:2:0 H.264 in the container of the suffix.

    Args:
        path: the file, published whole or not at all.
        frames: at least one.
        rate: frames per second.
        crf: x264's constant rate factor; 4 keeps nearly everything, 18 looks the same.

    Raises:
        SinkError: the file cannot be written.
        DependencyError: PyAV is not installed.
    """
    av = optional.require("av", needed_for="writing video files")
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    with atomic_path(path) as temporary, av.open(file_url(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_range = _LIMITED
        context.colorspace = context.color_primaries = _BT709
        context.color_trc = _SRGB_CURVE
        for i, pixels in enumerate(frames):
            height, width = pixels.shape[:2]
            if i == 0:
                stream.width, stream.height = width, height
            info = StreamInfo(
                width, height, Fraction(rate), Fraction(1, rate), None, _LIMITED, _BT709
            )
            picture = from_rgb(pixels, info, "yuv420p", reformatter)
            picture.pts, picture.time_base = i, info.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
