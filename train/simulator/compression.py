"""What a codec leaves of a picture: JPEG for training batches, H.264 for pairs and packs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from edge_restore.errors import DependencyError, OptionError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from train.simulator.trajectories import uniform

SEVERITIES = {"light": (80, 95), "medium": (50, 75), "heavy": (15, 35)}
"""JPEG quality of each level, worst and best, as OpenCV and libjpeg count it (1 to 100)."""

H264_CRF = {"light": 23, "medium": 30, "heavy": 38}
"""x264's constant rate factor of each level (0 to 51; 23 is its default)."""

_BLOCK = 16
"""JPEG's largest unit, two blocks of 8, where colour has half the resolution."""


@dataclass(frozen=True)
class CompressionModel:
    """JPEG artefacts on the degraded picture; the truth has none.

    Attributes:
        jpeg: share of pictures that are compressed.
        jpeg_worst, jpeg_best: quality, drawn uniformly between them.
    """

    jpeg: float = 0.0
    jpeg_worst: int = 40
    jpeg_best: int = 95

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_worst <= self.jpeg_best <= 100:
            raise OptionError(
                f"JPEG quality from {self.jpeg_worst} to {self.jpeg_best}",
                expected="1 <= jpeg_worst <= jpeg_best <= 100",
                hint="correct these keys",
            )

    @classmethod
    def of(cls, severity: str) -> CompressionModel:
        """Every picture compressed at a named level.

        Raises:
            OptionError: no such level.
        """
        if severity not in SEVERITIES:
            raise OptionError(
                f"no compression severity is called '{severity}'",
                expected="one of: " + ", ".join(SEVERITIES),
                hint="choose one of these names",
            )
        return cls(1.0, *SEVERITIES[severity])


def compressed(srgb: Tensor, model: CompressionModel, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W), sRGB in multiples of 1/255, after JPEG; 4:2:0, on the CPU.

    A patch is cut from anywhere in a picture, so the grid of blocks starts anywhere, too.

    Raises:
        DependencyError: no OpenCV.
    """
    if not model.jpeg:
        return srgb
    cv2 = optional.require("cv2", needed_for="JPEG artefacts")
    count, _, height, width = srgb.shape
    chosen = uniform((count,), 0.0, 1.0, srgb, generator) < model.jpeg
    drawn = uniform((count, 3), 0.0, 1.0, srgb, generator).tolist()
    pictures = (srgb * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    result = pictures.copy()
    for i in chosen.nonzero()[:, 0].tolist():
        quality = model.jpeg_worst + round(drawn[i][0] * (model.jpeg_best - model.jpeg_worst))
        top, left = int(drawn[i][1] * _BLOCK), int(drawn[i][2] * _BLOCK)
        whole = np.pad(pictures[i], ((top, 0), (left, 0), (0, 0)), mode="edge")[..., ::-1]
        _, data = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, quality])
        back = cv2.imdecode(data, cv2.IMREAD_COLOR)
        result[i] = back[top : top + height, left : left + width, ::-1]
    return torch.from_numpy(result).to(srgb.device, srgb.dtype).permute(0, 3, 1, 2) / 255


def h264(frames: Iterable[Pixels], crf: int, rate: int = 30) -> Iterator[Pixels]:
    """Frames after H.264: encoded by x264 as one clip, in their order, and decoded again.

    Every frame has the first one's size. 8-bit 4:2:0, preset "medium"; a single frame is coded
    without prediction from others, a clip has B- and P-frames as a camera's recording has.

    Args:
        frames: RGB uint8 (H, W, 3).
        crf: constant rate factor, 0 (best) to 51.
        rate: frames per second, by which x264 weighs the frames.

    Raises:
        OptionError: a rate factor that x264 does not have.
        DependencyError: no PyAV, or one without x264.
    """
    if not 0 <= crf <= 51:
        raise OptionError(
            f"H.264 with a rate factor of {crf}",
            expected="0 (best) to 51 (worst)",
            hint="choose one, such as " + ", ".join(map(str, H264_CRF.values())),
        )
    av = optional.require("av", needed_for="H.264 artefacts")
    cv2 = optional.require("cv2", needed_for="H.264 artefacts")
    try:
        av.codec.Codec("libx264", "w")
    except ValueError as error:
        raise DependencyError(
            "av", needed_for="H.264 artefacts (with its x264 encoder, and opencv-python)", extra=""
        ) from error
    coded = io.BytesIO()
    size = (0, 0)
    with av.open(coded, "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                size = frame.shape[0], frame.shape[1]
                stream = container.add_stream(
                    "libx264", Fraction(rate), options={"crf": str(crf), "preset": "medium"}
                )
                stream.height, stream.width = (side + side % 2 for side in size)
                stream.pix_fmt = "yuv420p"
            # 4:2:0 needs even sides.
            even = np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            # OpenCV rounds where FFmpeg's converter truncates: that darkens by a level.
            planes = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(picture))
        if stream is None:
            return
        container.mux(stream.encode())
    coded.seek(0)
    with av.open(coded) as container:
        for decoded in container.decode(video=0):
            planes = decoded.to_ndarray(format="yuv420p")
            yield cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)[: size[0], : size[1]]
