"""Colours, noise and light of generated scenes.

Colours are red, green, blue from 0 to 1, as they are shown, and lead the other axes: with the colours last, NumPy
broadcasts a plane over them ten times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dsctool.data.synthetic.shapes import Plane, gradient
from dsctool.terms import Size

Colour = NDArray[np.floating[Any]]
"""``(3, 1, 1)``."""

Picture = NDArray[np.floating[Any]]
"""``(3, h, w)``."""

Window = tuple[slice, slice]
"""Rows and columns."""

_ALL = (slice(None), slice(None))
_TILE = 256  # side of the noise tiles, in pixels
_LIGHT = (-0.46, -0.62, 0.64)  # towards the light: upper left, above
_SHINE = np.array((1, 0.98, 0.92), np.float32).reshape(3, 1, 1)


def colour(text: str) -> Colour:
    """``"rrggbb"``."""
    return np.array([int(text[at : at + 2], 16) / 255 for at in (0, 2, 4)], np.float32).reshape(3, 1, 1)


def varied(rng: np.random.Generator, base: Colour, by: float = 0.05) -> Colour:
    """``base``, a little lighter or darker and a little off in hue."""
    off = rng.normal(0, by) + rng.normal(0, by / 2, base.shape)
    return np.clip(base + off.astype(np.float32), 0.02, 0.98)


def mixed(a: Colour | Picture, b: Colour | Picture, share: Plane) -> Picture:
    """``a`` where ``share`` is 0, ``b`` where it is 1."""
    return a + (b - a) * share


def smoothstep(values: Plane, low: float, high: float) -> Plane:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def clouds(rng: np.random.Generator, size: Size, cell: float, octaves: int = 2) -> Plane:
    """Smooth noise of about -1 to 1 with lumps of ``cell`` pixels, stretched over ``size``."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        rows, columns = (max(2, math.ceil(side / cell * 2**octave) + 1) for side in size)
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += resized(grid, size) * 0.5**octave
    return total * np.float32(1.1)


def grain(rng: np.random.Generator, size: Size, tile: int = 0) -> Plane:
    """Fine noise of about -1 to 1: tile 0 is sharp, 1 and 2 are softer and softer."""
    return tiled(tiles()[tile], rng.integers(_TILE, size=2).tolist(), size)


def tiled(plane: Plane, corner: Sequence[int], size: Size) -> Plane:
    """``size`` of a square tile that repeats, from ``corner`` (row, column) on."""
    rows, columns = ((np.arange(side) + start) % len(plane) for start, side in zip(corner, size, strict=True))
    return plane[rows[:, None], columns]


def grain_at(x: Plane, y: Plane, tile: int) -> Plane:
    """Fine noise that turns with an object: ``x``, ``y`` in pixels of the tile."""
    return tiles()[tile][y.astype(np.int32) % _TILE, x.astype(np.int32) % _TILE]


def caustics(rng: np.random.Generator, size: Size, cell: float) -> Plane:
    """The net of light that waves throw on a sea bed, 0 to 1."""
    a, b = clouds(rng, size, cell), clouds(rng, size, cell * 0.8)
    net = np.maximum(1 - np.abs(a) * 3.2, 0) ** 2 + np.maximum(1 - np.abs(b) * 3.2, 0) ** 2
    return np.minimum(net, 1.2)


def lit(albedo: Picture, height: Plane, *, gloss: float, window: Window = _ALL) -> Picture:
    """A surface under the scene's light, or the ``window`` of it that is wanted.

    height: in pixels. gloss: strength of the highlight.
    """
    by_row, by_column = (change[window] for change in gradient(height))
    length = 1 / np.sqrt(by_row * by_row + by_column * by_column + 1)
    towards = _LIGHT[2] - by_column * _LIGHT[0] - by_row * _LIGHT[1]
    diffuse = 0.5 + 0.78 * np.maximum(towards * length, 0)
    sky = 0.5 + 0.5 * length  # steep sides see less of the water above
    picture = albedo[:, *window] * (diffuse * sky)
    if gloss > 0:
        halfway = np.maximum((towards + 1) * length * (1 / 1.811), 0)
        picture += (gloss * halfway**28) * _SHINE
    return picture


def blurred(image: Image.Image, radius: float) -> Plane:
    """Gaussian blur of a grey image, as values from 0 to 1."""
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) * np.float32(1 / 255)


def resized(values: Plane, size: Size) -> Plane:
    """Bicubic; ``(h, w)``."""
    image: Any = Image.fromarray(values)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)


@lru_cache(maxsize=1)
def tiles() -> tuple[Plane, Plane, Plane]:
    """Noise that repeats without a seam; the same in every data set."""
    white = np.random.default_rng(20).normal(0, 1, (_TILE, _TILE)).astype(np.float32)
    soft = _smoothed(white)
    softer = _smoothed(_smoothed(_smoothed(soft)))
    sharp, fine, lumpy = (np.clip(plane / (2 * plane.std()), -1, 1) for plane in (white, soft, softer))
    return sharp, fine, lumpy


def _smoothed(plane: Plane) -> Plane:
    for axis in (0, 1):
        plane = (np.roll(plane, 1, axis) + 2 * plane + np.roll(plane, -1, axis)) / 4
    return plane
