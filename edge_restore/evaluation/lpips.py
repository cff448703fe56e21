"""LPIPS, the learned perceptual distance, with VGG16; numpy only.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, Eq. 1, version 0.1 (which scales its input). The weights do not come
with this project: they are read from a file that the user names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_restore.errors import ModelError
from edge_restore.media.metrics import Image
from edge_restore.storage.tensor_file import read_floats

_Features = npt.NDArray[np.float32]
"""(height, width, channels)."""

_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""VGG16's convolutions by their number in torchvision's `features`; each is followed by a ReLU, and
a 2x2 max pooling stands between two blocks. A block's last ReLU is compared."""

_CHANNELS = (3, 64, 128, 256, 512, 512)

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
"""Of RGB in [-1, 1]: what version 0.1 brings ImageNet's mean and deviation to."""

_EPSILON = np.float32(1e-10)
_STRIP = 1 << 13
"""Pixels that are convolved at once: their taps take 150 MB at most."""

SMALLEST = 16
"""The shortest side in pixels: four poolings leave one pixel of it."""


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that a weights file must hold.

    VGG16's convolutions under torchvision's names, ``features.N.weight`` (Cout, Cin, 3, 3) and
    ``features.N.bias`` (Cout,), and LPIPS's linear layers ``lpips.linK.weight`` (1, C, 1, 1), K
    from 0 to 4, one to each block.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for number, block in enumerate(_BLOCKS):
        inputs, outputs = _CHANNELS[number], _CHANNELS[number + 1]
        for layer in block:
            expected[f"features.{layer}.weight"] = (outputs, inputs, 3, 3)
            expected[f"features.{layer}.bias"] = (outputs,)
            inputs = outputs
        expected[f"lpips.lin{number}.weight"] = (1, outputs, 1, 1)
    return expected


class Lpips:
    """The distance, with the weights of one file.

    Args:
        path: a .safetensors file with the tensors of `shapes`, F16 or F32; others are ignored.

    Raises:
        ModelError: the file is missing or malformed, lacks a tensor, has one of another shape, or
            a number that is not finite.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        expected = shapes()
        tensors = read_floats(path, expected)
        wrong = [
            f"{name} is {tensors[name].shape if name in tensors else 'missing'}, not {shape}"
            for name, shape in expected.items()
            if name not in tensors or tensors[name].shape != shape
        ]
        if wrong:
            more = f"\n    and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ModelError(
                f"'{path}' does not hold the weights of LPIPS with VGG16:"
                + "".join(f"\n    {line}" for line in wrong[:3]) + more,
                expected="features.N.weight and .bias of VGG16's thirteen convolutions as "
                "torchvision numbers them, and lpips.lin0.weight to lpips.lin4.weight",
                hint="rename the tensors, or name another file",
            )  # fmt: skip
        # (9 Cin, Cout): the tap before the channel, as `_convolved` lays them out.
        self._layers = {
            layer: (
                np.ascontiguousarray(
                    tensors[f"features.{layer}.weight"]
                    .transpose(2, 3, 1, 0)
                    .reshape(-1, tensors[f"features.{layer}.bias"].size)
                ),
                tensors[f"features.{layer}.bias"],
            )
            for block in _BLOCKS
            for layer in block
        }
        self._linear = [tensors[f"lpips.lin{k}.weight"].ravel() for k in range(len(_BLOCKS))]

    def distances(self, truth: Image, pictures: Sequence[Image]) -> list[float]:
        """How far each picture is from the truth; 0 for an equal one.

        The sum over the five blocks of the mean over the places of ``w . (y - z)^2``, y and z
        being the two images' features divided by their length at each place.

        Args:
            truth: RGB (height, width, 3), uint8 or floating in [0, 1].
            pictures: likewise, of the same size. An image's features take about 0.5 GB per
                megapixel.

        Raises:
            ValueError: the shapes differ, or a side is shorter than `SMALLEST`.
            ModelError: a distance is not finite.
        """
        for image in (truth, *pictures):
            if image.shape != truth.shape or image.ndim != 3 or min(image.shape[:2]) < SMALLEST:
                raise ValueError(
                    f"LPIPS needs RGB images of one size, at least {SMALLEST}x{SMALLEST}, not "
                    f"{truth.shape} and {image.shape}"
                )
        features = [_scaled(image) for image in (truth, *pictures)]
        totals = [0.0] * len(pictures)
        for number, block in enumerate(_BLOCKS):
            if number:
                features = [_pooled(image) for image in features]
            for layer in block:
                features = [_convolved(image, *self._layers[layer]) for image in features]
            reference = _normalised(features[0])
            for i, other in enumerate(features[1:]):
                difference = np.square(reference - _normalised(other)) @ self._linear[number]
                totals[i] += float(np.mean(difference, dtype=np.float64))
        if not all(math.isfinite(total) for total in totals):
            raise ModelError(
                f"the weights in '{self._path}' give a distance that is not finite",
                expected="weights of LPIPS with VGG16",
                hint="name another file",
            )
        return totals


def _scaled(image: Image) -> _Features:
    unit = image.astype(np.float32) / np.float32(255 if image.dtype == np.uint8 else 1)
    two, one = np.float32(2), np.float32(1)
    scaled: _Features = (two * unit - one - _SHIFT) / _SCALE
    return scaled


def _convolved(image: _Features, matrix: _Features, bias: _Features) -> _Features:
    """A 3x3 convolution with zeros around, then ReLU; in strips of rows, so that memory stays."""
    height, width, channels = image.shape
    out = np.empty((height, width, bias.size), np.float32)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        columns = np.empty((count, width, 9, channels), np.float32)
        for tap in range(9):
            y, x = top + tap // 3, tap % 3
            columns[:, :, tap] = padded[y : y + count, x : x + width]
        out[top : top + count] = (columns.reshape(-1, 9 * channels) @ matrix + bias).reshape(
            count, width, -1
        )
    return np.maximum(out, 0, out=out)


def _pooled(image: _Features) -> _Features:
    """2x2 max pooling; an odd last row or column is left out."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    cells = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    pooled: _Features = cells.max(axis=(1, 3))
    return pooled


def _normalised(image: _Features) -> _Features:
    length = np.sqrt(np.sum(np.square(image), axis=2, keepdims=True))
    normalised: _Features = image / (length + _EPSILON)
    return normalised
