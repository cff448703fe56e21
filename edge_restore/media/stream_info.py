"""StreamInfo: what a source says of its video before the first frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

UNSPECIFIED = 2
"""The value of an unspecified matrix, primaries or transfer characteristic in ITU-T H.273."""


@dataclass(frozen=True)
class StreamInfo:
    """The properties of a video stream that the output must share.

    Attributes:
        width, height: size of the coded picture in pixels, before `rotation`.
        rate: nominal frame rate in frames per second; None when the source does not know.
        time_base: seconds per tick of the frames' `pts`.
        display_matrix: the nine numbers that tell a player how to turn the picture (16.16 fixed
            point, the last column 2.30; ISO/IEC 14496-12, 8.3.2); None for upright.
        color_range: 1 limited ("tv"), 2 full ("pc"), 0 unspecified.
        color_space, color_primaries, color_trc: matrix, primaries and transfer characteristic,
            numbered as in ITU-T H.273; 2 unspecified.
        sample_aspect_ratio: width of a pixel over its height; None for square or unknown.
        frames: how many frames will come, as far as the container tells; None when unknown.
        duration: length in seconds; None when unknown.
        has_audio: whether there is a sound track.
        metadata: the container's tags.
        stream_metadata: the video stream's own tags.
        pixel_format: FFmpeg's name of the decoded pictures' layout; empty for RGB of 8 bits that
            came from no video.
        side_data: what else the first picture carries, by FFmpeg's names, e.g. HDR metadata.
    """

    width: int
    height: int
    rate: Fraction | None
    time_base: Fraction
    display_matrix: tuple[int, ...] | None = None
    color_range: int = 0
    color_space: int = UNSPECIFIED
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    sample_aspect_ratio: Fraction | None = None
    frames: int | None = None
    duration: float | None = None
    has_audio: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    stream_metadata: Mapping[str, str] = field(default_factory=dict)
    pixel_format: str = ""
    side_data: tuple[str, ...] = ()

    @property
    def rotation(self) -> int:
        """Degrees by which a player turns the picture counter-clockwise, in (-180, 180]."""
        if self.display_matrix is None:
            return 0
        a, b, _, c, d = self.display_matrix[:5]
        across, down = math.hypot(a, c), math.hypot(b, d)
        if not across or not down:
            return 0
        return round(-math.degrees(math.atan2(b / down, a / across)))

    @property
    def ticks_per_frame(self) -> int:
        """How long a frame lasts at the nominal rate, in ticks; at least 1."""
        return max(1, round(1 / (self.rate or Fraction(25)) / self.time_base))
