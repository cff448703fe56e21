"""A hand-held camera that films a photo, with the sharp frames that it would have liked to take.

The scene is far away, so that the hand's rotation alone moves the picture: a rotation R takes a
pixel x of the straight camera to K R K^-1 x (Hartley and Zisserman, "Multiple View Geometry in
Computer Vision", 2nd ed., section 8.4). While the shutter is open the sensor adds up light; the
blurred frame is the mean of many sharp ones in linear light, then noise, gamma and 8-bit rounding.
The ground truth is the sharp frame that a camera at rest would take, pointing where this one
pointed on average during the exposure. (In the middle of the exposure it points half a pixel beside
that, in a direction that the blurred frame does not tell.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from edge_restore.frames import Pixels
from edge_restore.machine import optional

Vector = npt.NDArray[np.float64]
LinearLight = npt.NDArray[np.float32]
"""(height, width, 3) float32, 1 is the brightest that the sensor tells apart."""

SCENE_WIDTH = 1.5
"""Width of the photo in the scene over the width of a frame: the room for the hand's motion."""
_OVERSAMPLING = 2
"""Sub-frames are rendered at this multiple of the frame's size and averaged down, as a pixel
averages the light on its area."""

# Frequencies in Hz and RMS amplitudes in degrees of yaw, pitch and roll. Physiological tremor of
# the hand lies at 8 to 12 Hz (McAuley and Marsden, "Physiological and pathological tremors and
# rhythmic central motor control", Brain 123, 2000). The other bands and all amplitudes are
# assumptions, chosen so that the blur is what low light and a long lens give: 4 to 14 px at 640 px.
_MOTION = (
    ("pan", (0.1, 0.3), (1.6, 0.5, 0.3)),
    ("sway", (0.6, 2.5), (0.40, 0.35, 0.35)),
    ("tremor", (8.0, 12.0), (0.13, 0.13, 0.15)),
)
_TONES = 6


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        blurred: what the camera recorded, RGB uint8 (height, width, 3).
        sharp: the ground truth, seen from the mean direction of the exposure, the same form.
        blur_px: how far a point of the picture travelled during the exposure, in pixels; the mean
            over the frame.
        time: the middle of the exposure, in seconds.
    """

    blurred: Pixels
    sharp: Pixels
    blur_px: float
    time: float


@dataclass(frozen=True)
class HandHeldCamera:
    """A camera in a hand.

    Attributes:
        width, height: of a frame, in pixels.
        rate: frames per second.
        exposure: how long the shutter is open, in seconds.
        field_of_view: horizontal, in degrees.
        full_well: photo-electrons at full brightness; shot noise is their square root.
        read_noise: RMS, in photo-electrons.
        seed: of the hand's motion and the sensor's noise; the same seed films the same clip.
    """

    width: int = 640
    height: int = 360
    rate: float = 30.0
    exposure: float = 1 / 40
    field_of_view: float = 24.0
    full_well: float = 12_000.0
    read_noise: float = 8.0
    seed: int = 1

    def film(self, photo: Pixels, frames: int) -> Iterator[Shot]:
        """Film `photo`, RGB uint8 of any size, for `frames` frames."""
        scene = self._scene(photo)
        noise = np.random.default_rng([self.seed, 1])
        for i in range(frames):
            middle = (i + 0.5) / self.rate
            blur_px = self.blur_px(middle)
            # Steps of half a pixel or less: the mean of the sub-frames shows no separate copies.
            steps = max(16, math.ceil(2 * blur_px))
            times = middle + self.exposure * ((np.arange(steps) + 0.5) / steps - 0.5)
            directions = [self.angles(float(time)) for time in times]
            steady = self._view(scene, np.mean(directions, axis=0))
            light = np.zeros_like(steady)
            for angles in directions:
                light += self._view(scene, angles)
            light /= np.float32(steps)
            blurred = self._recorded(self._binned(light), noise)
            sharp = _to_8_bit(self._binned(steady))
            yield Shot(blurred, sharp, blur_px, middle)

    def angles(self, time: float) -> Vector:
        """Yaw, pitch and roll at `time` (seconds), in radians.

        Each band is a sum of tones with random frequencies and phases: noise limited to the band,
        smooth and known at any time.
        """
        random = np.random.default_rng([self.seed, 0])
        total = np.zeros(3)
        for _, (low, high), amplitudes in _MOTION:
            frequency = random.uniform(low, high, (_TONES, 3))
            phase = random.uniform(0, 2 * math.pi, (_TONES, 3))
            tones = np.sin(2 * math.pi * frequency * time + phase)
            # A sine's RMS is 1/sqrt(2), and independent tones add in power.
            total += np.radians(amplitudes) * math.sqrt(2 / _TONES) * tones.sum(axis=0)
        return total

    def blur_px(self, middle: float) -> float:
        """Length of the path that a point travels in the exposure around `middle`, in pixels.

        The mean over nine points of the frame.
        """
        x, y = np.meshgrid(np.linspace(0, self.width - 1, 3), np.linspace(0, self.height - 1, 3))
        points = np.stack([x.ravel(), y.ravel(), np.ones(9)])
        times = middle + self.exposure * np.linspace(-0.5, 0.5, 17)
        paths = []
        for time in times:
            moved = self.homography(self.angles(float(time))) @ points
            paths.append(moved[:2] / moved[2])
        steps = np.diff(np.stack(paths), axis=0)
        return float(np.hypot(steps[:, 0], steps[:, 1]).sum(axis=0).mean())

    def homography(self, angles: Vector) -> npt.NDArray[np.float64]:
        """Takes a pixel of the camera turned by `angles` to where the straight one sees it; 3x3."""
        yaw, pitch, roll = angles
        focal = self.width / 2 / math.tan(math.radians(self.field_of_view) / 2)
        k = np.array(
            [[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]]
        )
        moved: npt.NDArray[np.float64] = k @ _rotation(yaw, pitch, roll) @ np.linalg.inv(k)
        return moved

    def locate(
        self, point: tuple[float, float], photo_size: tuple[int, int], time: float
    ) -> tuple[float, float]:
        """Where a point of the photo is in the frame at `time`.

        Args:
            point: (x, y) in the photo, as fractions of its width and height.
            photo_size: (height, width) of the photo in pixels.
            time: in seconds.

        Returns:
            (x, y) in pixels; outside of the frame when the camera does not see the point.
        """
        scale = self._photo_scale(photo_size)
        straight = (
            (self.width - 1) / 2 + (point[0] - 0.5) * photo_size[1] * scale,
            (self.height - 1) / 2 + (point[1] - 0.5) * photo_size[0] * scale,
            1.0,
        )
        x, y, w = np.linalg.inv(self.homography(self.angles(time))) @ straight
        return float(x / w), float(y / w)

    def _photo_scale(self, photo_size: tuple[int, int]) -> float:
        """Pixels of the frame per pixel of the photo: the photo fills the scene both ways."""
        return SCENE_WIDTH * max(self.height / photo_size[0], self.width / photo_size[1])

    def _scene(self, photo: Pixels) -> LinearLight:
        """The photo in linear light, cut to the frame's aspect, at the rendering's resolution."""
        cv2 = _opencv()
        width = round(self.width * SCENE_WIDTH) * _OVERSAMPLING
        height = round(self.height * SCENE_WIDTH) * _OVERSAMPLING
        scale = self._photo_scale((photo.shape[0], photo.shape[1])) * _OVERSAMPLING
        size = (
            max(width, round(photo.shape[1] * scale)),
            max(height, round(photo.shape[0] * scale)),
        )
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = cv2.resize(_to_linear(photo), size, interpolation=way)
        top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
        scene = scaled[top : top + height, left : left + width]
        return np.ascontiguousarray(scene, np.float32)

    def _view(self, scene: LinearLight, angles: Vector) -> LinearLight:
        """What the sensor sees with the camera turned by `angles`, oversampled."""
        cv2 = _opencv()
        n = _OVERSAMPLING
        # Pixel centres: the middle of oversampled pixel i lies at (i + 0.5) / n - 0.5.
        to_frame = np.array([[1 / n, 0, 0.5 / n - 0.5], [0, 1 / n, 0.5 / n - 0.5], [0, 0, 1]])
        middle = np.array(
            [
                [1, 0, (scene.shape[1] / n - self.width) / 2],
                [0, 1, (scene.shape[0] / n - self.height) / 2],
                [0, 0, 1],
            ]
        )
        to_scene = np.linalg.inv(to_frame) @ middle @ self.homography(angles) @ to_frame
        view = cv2.warpPerspective(
            scene,
            to_scene,
            (self.width * n, self.height * n),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return np.asarray(view, np.float32)

    def _binned(self, light: LinearLight) -> LinearLight:
        cv2 = _opencv()
        size = (self.width, self.height)
        binned = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
        return np.asarray(binned, np.float32)

    def _recorded(self, light: LinearLight, random: np.random.Generator) -> Pixels:
        """Light as the sensor records it: shot and read noise, gamma, 8 bits."""
        variance = light * self.full_well + self.read_noise**2
        noise = random.standard_normal(light.shape, dtype=np.float32) * np.sqrt(variance)
        return _to_8_bit(light + noise / self.full_well)


def _rotation(yaw: float, pitch: float, roll: float) -> npt.NDArray[np.float64]:
    """About the y, x and z axes, in this order outwards; 3x3."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotation: npt.NDArray[np.float64] = about_y @ about_x @ about_z
    return rotation


def _to_linear(pixels: Pixels) -> LinearLight:
    """Linear light of sRGB values (IEC 61966-2-1)."""
    value = np.arange(256, dtype=np.float32) / 255
    table = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light: LinearLight = table.astype(np.float32)[pixels]
    return light


def _to_8_bit(light: LinearLight) -> Pixels:
    """SRGB values of linear light, rounded."""
    light = np.clip(light, 0, 1)
    value = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, np.float32(1 / 2.4)) - 0.055
    )
    levels: Pixels = np.rint(value * 255).astype(np.uint8)
    return levels


def _opencv() -> ModuleType:
    return optional.require("cv2", needed_for="simulating a camera")
