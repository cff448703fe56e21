"""A calibration set: frames of a camera, packed into one file with their hashes and statistics.

The file is an uncompressed .npz: `frames`, uint8 (N, height, width, 3), RGB, and `header`, JSON:
the schema, and of each frame its name, SHA-256 and statistics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.statistics import Statistics, different, measure
from edge_restore.errors import DataError
from edge_restore.frames import Pixels
from edge_restore.storage.files import atomic_path, check_writable
from edge_restore.storage.json_fields import JsonFields
from edge_restore.storage.json_file import decode
from edge_restore.storage.npz_file import read_arrays
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.calibration_set/1"

_KIND = Kind(
    "a calibration set",
    "a file that `python -m calibration collect` wrote",
    "copy the file again, or collect the frames anew",
)

FEWEST = 4
"""Frames of a set that can be used. Ranges from one or two would be those of a chance."""

MIN_CONTRAST = 2.0
"""Standard deviation of the luma, in levels of 255, below which a frame shows nothing."""


@dataclass(frozen=True)
class CalibrationFrame:
    """One frame of a set: where it came from, its hash, and what it shows."""

    name: str
    sha256: str
    statistics: Statistics


@dataclass(frozen=True)
class CalibrationSet:
    """Frames of one size.

    Attributes:
        pixels: uint8 (N, height, width, 3), RGB.
        frames: N descriptions.
    """

    pixels: npt.NDArray[np.uint8]
    frames: tuple[CalibrationFrame, ...]

    @property
    def sha256(self) -> str:
        """Of the frames' hashes: the same frames in the same order give the same."""
        return hashlib.sha256("".join(f.sha256 for f in self.frames).encode()).hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])

    @classmethod
    def of(cls, frames: list[tuple[str, Pixels]]) -> CalibrationSet:
        """The set of named frames of one size.

        Raises:
            DataError: too few, or too few different ones, of several sizes, not uint8 RGB, or
                without contrast.
        """
        described = []
        for name, pixels in frames:
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise DataError(
                    f"the frame '{name}' is {pixels.dtype} of shape {pixels.shape}",
                    expected="uint8 (height, width, 3), RGB, levels 0 to 255",
                    hint="give the frames as the camera does; floats in [0, 1] times 255, rounded",
                )
            described.append(CalibrationFrame(name, digest(pixels), measure(pixels)))
        if len(sizes := {pixels.shape[:2] for _, pixels in frames}) > 1:
            listed = ", ".join(f"{h}x{w}" for h, w in sorted(sizes))
            raise DataError(
                f"the calibration frames have several sizes: {listed}",
                expected="frames of one size, height x width",
                hint="crop them with --size HxW",
            )
        check(described, [pixels for _, pixels in frames])
        return cls(np.stack([pixels for _, pixels in frames]), tuple(described))

    def save(self, path: Path) -> None:
        """Write the set to `path`, whole or not at all."""
        check_writable(path)
        header = {"schema": SCHEMA, "frames": [asdict(frame) for frame in self.frames]}
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez(stream, header=encoded, frames=self.pixels)

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """The set in the file `path`.

        Raises:
            DataError: it is missing, no calibration set, changed since it was packed, or useless.
        """
        arrays = read_arrays(path, _KIND)
        try:
            header = decode(bytes(arrays["header"]))
            pixels = arrays["frames"]
        except KeyError as error:
            raise _KIND.unusable(path, f"it has no member {error}") from None
        except ValueError as error:
            raise _KIND.unusable(path, f"its header: {error}") from None
        fields = JsonFields(header)
        fields.choice("schema", (SCHEMA,))
        frames = fields.sequence("frames", _described)
        if pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
            fields.errors.append(f"the frames are of shape {pixels.shape}")
        if fields.errors:
            raise _KIND.unusable(path, f"its header is malformed:{fields.listing()}")
        found = [digest(frame) for frame in pixels]
        if found != [frame.sha256 for frame in frames]:
            raise DataError(
                f"the frames in '{path}' are not those that were packed",
                expected="uint8 frames with the hashes that its header lists",
                hint="copy the file again, or collect the frames anew",
            )
        check(list(frames), list(pixels))
        return cls(pixels, frames)


def check(frames: list[CalibrationFrame], pixels: Sequence[Pixels]) -> None:
    """Make sure that ranges can be learned from these frames; DataError otherwise.

    It is the different frames that count: a hundred copies of one tell no more than it does.
    """
    if len(frames) < FEWEST:
        raise DataError(
            f"there are {len(frames)} calibration frames",
            expected=f"{FEWEST} or more, 16 or more for a camera in daily use",
            hint="collect from more footage: python -m calibration collect SOURCE",
        )
    flat = [frame.name for frame in frames if frame.statistics.contrast < MIN_CONTRAST]
    if flat:
        raise DataError(
            f"{len(flat)} of {len(frames)} calibration frames show nothing: {', '.join(flat[:4])}",
            expected=f"a luma that varies by {MIN_CONTRAST:g} levels or more",
            hint="collect again; `python -m calibration collect` leaves such frames out",
        )
    if (count := len(different(pixels))) < FEWEST:
        noun = "one is" if count == 1 else f"{count} are"
        raise DataError(
            f"of the {len(frames)} calibration frames only {noun} different; the others show the "
            "same",
            expected=f"{FEWEST} different ones or more, 16 or more for a camera in daily use",
            hint="collect from footage in which the camera or the scene moves",
        )


def digest(pixels: Pixels) -> str:
    """SHA-256 of a frame's levels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _described(fields: JsonFields) -> CalibrationFrame:
    statistics = fields.child("statistics")
    figures = {field.name: statistics.number(field.name) for field in dataclass_fields(Statistics)}
    return CalibrationFrame(fields.text("name"), fields.digest("sha256"), Statistics(**figures))
