"""Pavements, walls, fences and louvres: what repeats, laid over a part of a picture.

Tiles in perspective run together into soft stripes far away, which a motion towards the horizon
would have left of hard ones. Stripes side by side look alike after motions whose lengths differ by
their period. Few photos hold such things, and a network that has not met them restores them boldly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Texture = npt.NDArray[np.float32]

TEXELS = 48
"""Side of a tile's texture; less where the picture is smaller."""

SAMPLES = 16
"""Per pixel, from its upper edge to its lower one."""


def _darkest_and_brightest(
    picture: Picture, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(2, 3): of four of the picture's colours, further apart in grey where they are alike."""
    height, width = picture.shape[:2]
    colours = picture[random.integers(0, height, 4), random.integers(0, width, 4)].astype(float)
    darkest, brightest = colours[colours.sum(axis=1).argsort()[[0, -1]]]
    missing = max(random.uniform(0.0, 160.0) - (brightest - darkest).mean(), 0.0)
    # The one up and the other down alike, as far as 0 and 255 allow.
    lift = np.clip(brightest.mean() + missing / 2, missing, 255.0) - brightest.mean()
    ends = np.stack((darkest + lift - missing, brightest + lift))
    return np.asarray(np.clip(ends, 0.0, 255.0))


def _texture(picture: Picture, random: np.random.Generator) -> Texture:
    """(side, side, 3) in [0, 255]: a cut of the picture, or fields of two of its colours."""
    height, width = picture.shape[:2]
    side = min(TEXELS, height, width)
    if random.random() < 0.3:
        y, x = (random.integers(0, room - side + 1) for room in (height, width))
        return picture[y : y + side, x : x + side].astype(np.float32)
    darkest, brightest = _darkest_and_brightest(picture, random)
    x, y = np.meshgrid(*2 * [np.arange(side) / side])
    share = random.choice(np.stack(((0.5, 0.5), random.uniform(0.2, 0.8, 2))))
    fields = (x < share[0]) ^ ((y < share[1]) & (random.random() < 0.7))
    noise = random.normal(0.0, random.uniform(0.0, 5.0), fields.shape)
    colour = np.where(fields[..., None], brightest, darkest) + noise[..., None]
    return np.asarray(np.clip(colour, 0, 255), np.float32)


@dataclass(frozen=True)
class View:
    """How a pinhole camera above a tiled plane sees it.

    Attributes:
        horizon: its row, which may lie outside of the picture.
        focal: length of the camera, in pixels.
        height: of the camera above the plane, in tiles.
        centre: column below which the plane's directions run to the vanishing point.
        angle: by which the tiles are turned in their plane, in radians.
    """

    horizon: float
    focal: float
    height: float
    centre: float
    angle: float


def plane(tile: Texture, rows: int, columns: int, view: View) -> tuple[int, Picture]:
    """A tiled plane below the horizon, as a pinhole camera above it sees it.

    A row y pixels below the horizon lies focal * height / y tiles away, and each of its tiles is
    y / height pixels wide. A pixel is the mean of what it sees of them.

    Args:
        tile: (side, side, 3), in [0, 255].
        rows, columns: of the picture.
        view: of the camera.

    Returns:
        The first row of the plane, and its pixels from there to the last row and column, uint8.
    """
    first = max(int(np.ceil(view.horizon)) + 1, 0)
    below = np.arange(first, rows, dtype=np.float32) - np.float32(view.horizon)
    far = (
        view.focal * view.height / below**2 > SAMPLES / 4
    )  # tiles per pixel, too many for the samples
    x = np.arange(columns, dtype=np.float32) - np.float32(view.centre)
    near = np.zeros((np.count_nonzero(~far), columns, 3), np.float32)
    for sample in range(SAMPLES):  # which keeps the arrays in the cache of a CPU
        y = below[~far, None] + np.float32((sample + 0.5) / SAMPLES - 0.5)
        aside = np.float32((sample + 0.5 - SAMPLES / 2) * 0.618 % 1 - 0.5)
        across = (x + aside) * np.float32(view.height) / y
        near += _look(tile, across, np.float32(view.focal * view.height) / y, view.angle)
    seen = np.empty((len(below), columns, 3), np.float32)
    seen[~far] = near / SAMPLES
    seen[far] = _far(tile, columns, view.height / below[far], view.centre, view.angle)
    return first, np.rint(seen).astype(np.uint8)


def _far(
    tile: Texture, columns: int, width: npt.NDArray[np.floating], centre: float, angle: float
) -> Texture:
    """Rows whose pixels see many tiles, one behind the other, and `width` of them side by side."""
    period = {0.0: 1.0, np.pi / 4: np.sqrt(2.0)}.get(angle)
    if period is None:  # turned by anything else, tiles run together into one colour
        return np.broadcast_to(tile.mean(axis=(0, 1)), (len(width), columns, 3))
    steps = np.linspace(0.0, period, 257)
    between = (steps[1:] + steps[:-1]) / 2
    profile = _look(tile, between[:, None], between[None], angle).mean(axis=1)
    breadth = np.broadcast_to(width[:, None] / period, (len(width), columns))
    return stripes(profile, (np.arange(columns) - centre) * breadth, breadth)


def _look(
    tile: Texture, across: npt.NDArray[np.floating], along: npt.NDArray[np.floating], angle: float
) -> Texture:
    """The nearest texels (..., 3) at places of the plane, in tiles; the two broadcast."""
    side, c, s = len(tile), float(np.cos(angle)), float(np.sin(angle))
    u, v = (
        np.minimum(((tiles - np.floor(tiles)) * side).astype(np.int32), side - 1)
        for tiles in (c * across + s * along, c * along - s * across)
    )
    texels: Texture = np.take(tile.reshape(-1, 3), v * side + u, axis=0)
    return texels


def tiled(picture: Picture, random: np.random.Generator) -> Picture:
    """The picture (H, W, 3) uint8 with a plane of tiles below a line, all of it drawn at random."""
    rows, columns = picture.shape[:2]
    tile = _texture(picture, random)
    horizon = random.uniform(-0.7, 0.6) * rows
    focal, height = 300.0 * 10.0 ** random.random(), 0.6 * 20.0 ** random.random()
    centre = random.uniform(-1.0, 2.0) * columns
    # Only tiles that lie straight or across run together into stripes; others become one colour.
    angle = float(random.choice((random.uniform(0.0, 2.0), 0.0, 1.0, 1.0)) * np.pi / 4)
    first, seen = plane(tile, rows, columns, View(horizon, focal, height, centre, angle))
    result = picture.copy()
    result[first:] = seen
    return result


def stripes(
    profile: Texture, phase: npt.NDArray[np.floating], breadth: npt.NDArray[np.floating]
) -> Texture:
    """Pixels (H, W, 3) that see `breadth` periods (H, W) about `phase`, in periods, of a profile.

    Args:
        profile: (n, 3): one period in n equal fields.
        phase: of each pixel's centre; its whole part does not matter.
        breadth: of each pixel, above 0.
    """
    places = np.linspace(0.0, 1.0, len(profile) + 1)
    upto = np.vstack([np.zeros(3), np.cumsum(profile, axis=0) / len(profile)])
    both = [np.divmod(phase + side * breadth / 2, 1.0) for side in (-1, 1)]
    seen = np.empty((*phase.shape, 3), np.float32)
    for c in range(3):
        start, end = (
            turns * upto[-1, c] + np.interp(rest, places, upto[:, c]) for turns, rest in both
        )
        seen[..., c] = (end - start) / breadth
    return seen


def softened(profile: npt.NDArray[np.floating], deviation: float) -> npt.NDArray[np.floating]:
    """One period (n, channels) after a Gaussian blur of `deviation` periods, as it repeats."""
    waves = np.fft.rfftfreq(len(profile), 1 / len(profile))[:, None]
    kept = np.exp(-2 * (np.pi * deviation * waves) ** 2)
    return np.fft.irfft(np.fft.rfft(profile, axis=0) * kept, len(profile), axis=0)


def striped(picture: Picture, random: np.random.Generator, waves: float = 0.5) -> Picture:
    """The picture (H, W, 3) uint8 with stripes on one side of a line, all of it drawn at random.

    They repeat about every 4 to 40 pixels, fan out or bend a little, and have two to five levels
    between two of the picture's colours. A share of `waves` is soft, as far tiles and fine lines
    are though no motion has blurred them.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - height / 2, x - width / 2
    angle, reach = random.uniform(0.0, np.pi), max(height, width)
    across, along = (
        np.cos(angle) * y + np.sin(angle) * x,
        (np.cos(angle) * x - np.sin(angle) * y) / reach,
    )
    across += random.uniform(0.0, 0.05) * reach * np.sin(random.uniform(0.0, 6.0) * along)
    period = 4.0 * 10.0 ** random.random() * (1 + random.uniform(0.0, 0.9) * along)
    phase = across / period + random.random()
    breadth = np.maximum(np.hypot(*np.gradient(phase)), 1e-3)
    darkest, brightest = _darkest_and_brightest(picture, random)
    levels = random.permutation(np.linspace(0.0, 1.0, random.integers(2, 6)))
    field = np.sort(random.integers(1, 48, len(levels) - 1))
    share = levels[np.searchsorted(field, np.arange(48), side="right")][:, None]
    if random.random() < waves:
        share = softened(share, random.uniform(0.05, 0.3))
    profile = darkest + share * (brightest - darkest)
    seen = stripes(profile.astype(np.float32), phase, breadth)
    turn = random.uniform(0.0, 2 * np.pi)
    side = np.cos(turn) * y + np.sin(turn) * x
    over = side >= np.quantile(side, max(random.uniform(-0.6, 0.6), 0.0))
    share = (over * random.uniform(0.5, 1.0))[..., None]
    result: Picture = np.rint(picture + share * (seen - picture)).clip(0, 255).astype(np.uint8)
    return result
