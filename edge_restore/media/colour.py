"""From a decoded picture to RGB and back, by the matrix and range that the stream states.

RGB here is what a display shows: full range, the stream's own primaries and transfer curve. Both
directions use the same matrix and range, so that a picture which nobody changed keeps its colours
even when the stream states nothing and both had to be guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_restore.frames import Pixels
from edge_restore.media.stream_info import StreamInfo

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

LIMITED, FULL = 1, 2
BT709, SMPTE170M = 1, 6
# The matrices that swscale knows: BT.709, FCC, BT.470BG, SMPTE 170M (both BT.601), SMPTE 240M,
# BT.2020 non-constant luminance.
_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}

# bicubic | full chroma interpolation on output | full chroma input | accurate rounding. Plain
# bicubic is ten times as fast and loses 30 dB of luma: 46.9 against 76.8 dB on a picture that goes
# to RGB and back. The numbers are libswscale's; PyAV 17 has no names for the last three.
_INTERPOLATION = 0x4 | 0x2000 | 0x4000 | 0x40000


def matrix(info: StreamInfo) -> int:
    """The YCbCr matrix to convert with, numbered as in ITU-T H.273.

    Where the stream states none it is guessed as players do: BT.709 for high definition, BT.601
    below.
    """
    if info.color_space in _KNOWN_MATRICES:
        return info.color_space
    return BT709 if info.width >= 1280 or info.height > 576 else SMPTE170M


def to_rgb(frame: VideoFrame, info: StreamInfo, reformatter: VideoReformatter) -> Pixels:
    """The pixels of a decoded frame as RGB uint8 (height, width, 3), in an array of their own.

    Alpha is dropped. A frame that is RGB already is taken as it is.

    Args:
        frame: of the stream `info`; its matrix and range are set to the stream's.
        info: the stream.
        reformatter: kept from frame to frame, because it keeps tables.
    """
    if not frame.format.is_rgb:
        frame.colorspace = matrix(info)
        frame.color_range = _range(info)
    picture = reformatter.reformat(
        frame, format="rgb24", dst_color_range=FULL, interpolation=_INTERPOLATION
    )
    return picture.to_ndarray()  # type: ignore[return-value]


def from_rgb(
    pixels: Pixels, info: StreamInfo, pixel_format: str, reformatter: VideoReformatter
) -> VideoFrame:
    """A frame that an encoder takes from RGB uint8 (height, width, 3).

    Args:
        pixels: the picture.
        info: the stream, whose matrix and range are used.
        pixel_format: planar YCbCr of 8 or 10 bits, e.g. "yuv420p", "yuv422p10le".
        reformatter: kept from frame to frame, because it keeps tables.
    """
    from av import VideoFrame

    picture = VideoFrame.from_ndarray(pixels, format="rgb24")
    picture.colorspace = matrix(info)
    picture.color_range = FULL
    formats = [pixel_format]
    if _range(info) == FULL and not pixel_format.endswith("10le"):
        # swscale widens the range by rounding down, which takes half a level off every colour that
        # is not grey. With two more bits on the way it is a sixth of one.
        formats.insert(0, f"{pixel_format}10le")
    for name in formats:
        picture = reformatter.reformat(
            picture, format=name, dst_color_range=_range(info), interpolation=_INTERPOLATION
        )
    return picture


def _range(info: StreamInfo) -> int:
    return FULL if info.color_range == FULL else LIMITED
