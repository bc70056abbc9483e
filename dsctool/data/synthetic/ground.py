"""The sea bed of generated scenes: sand, gravel, rock, and the weed and grit that lie about on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dsctool.data.synthetic.figures import NO_CLASS, Figure, finished
from dsctool.data.synthetic.shapes import Frame, Plane, Point, Solid, blob, tube
from dsctool.data.synthetic.textures import (
    Picture,
    clouds,
    colour,
    grain,
    lit,
    mixed,
    smoothstep,
    tiled,
    varied,
)
from dsctool.terms import Size

STUFF = ("sand", "gravel", "rock", "seaweed")
"""Names of what is no object; seaweed also grows in front of objects."""

_SAND = ("dcc79c", "d2b98c", "cfc3a4", "c4b48e", "e3cfa6")
_GRAVEL = ("a39c8c", "8f9490", "b0a58f")
_ROCK = ("566168", "625c58", "4d5f5d")
_GRIT = ("8d8a83", "e9e0cf", "6c6a66", "b79f82")
_WEED = ("4f7a45", "6d8a3c", "3d6b57", "8a7a3a", "7a4a4f")


@dataclass(frozen=True)
class Ground:
    """A bed without anything on it.

    picture: ``(3, h, w)``.
    surface: ``(h, w)``, indices of :data:`STUFF`.
    """

    picture: Picture
    surface: NDArray[np.uint8]


def draw_ground(rng: np.random.Generator, size: Size) -> Ground:
    """Sand, with a patch of gravel or of rock in two of three scenes."""
    unit = min(size) / 192
    picture = _sand(rng, size, unit)
    surface = np.zeros(size, np.uint8)
    kind = int(rng.choice([0, 1, 2]))
    if kind == 0:
        return Ground(picture, surface)
    lump = clouds(rng, size, 110 * unit) + 0.25 * clouds(rng, size, 18 * unit)
    level = float(np.quantile(lump, float(rng.uniform(0.45, 0.75))))
    rise = (lump - level).astype(np.float32)
    patch = _gravel(rng, size) if kind == 1 else _rock(rng, size, rise, unit)
    sharp = 0.16 if kind == 1 else 0.03
    if kind == 2:
        fallen = smoothstep(rise, -0.12, 0.05)
        fallen[3:, 2:] = fallen[:-3, :-2].copy()
        picture = picture * (1 - 0.38 * fallen)
    surface[rise > 0] = kind
    return Ground(mixed(picture, patch, smoothstep(rise, -sharp, sharp)), surface)


def draw_weed(rng: np.random.Generator, length: float) -> Figure:
    """A tuft of a few blades, ``length`` pixels long."""
    frame = Frame.turned(reach=(0.95, 0.75), scale=length, angle=float(rng.uniform(-0.9, 0.9)))
    base, tip = (varied(rng, colour(_WEED[int(rng.integers(len(_WEED)))])) for _ in range(2))
    distance = np.full_like(frame.x, 9)
    height, along = np.zeros_like(frame.x), np.zeros_like(frame.x)
    wide = max(float(rng.uniform(0.035, 0.06)), 1.1 / length)
    for _ in range(int(rng.integers(2, 5))):
        lean, sway = float(rng.normal(0, 0.28)), float(rng.normal(0, 0.16))
        points: list[Point] = []
        for t in (0.0, 0.25, 0.5, 0.75, 1.0):
            points.append((lean * t + sway * math.sin(3.4 * t), 0.5 - 1.05 * t))
        blade = tube(frame, points, [wide * 0.7, wide * 1.05, wide * 1.05, wide * 0.8, wide * 0.3])
        over = blade.distance < 0
        height, along = np.where(over, blade.height, height), np.where(over, blade.along, along)
        distance = np.minimum(distance, blade.distance)
    albedo = mixed(base, tip, along * 0.7) * (0.8 + 0.35 * along)
    return finished(NO_CLASS, frame, Solid(distance, height, along), albedo, gloss=0.05)


@lru_cache(maxsize=8)
def grit(unit: float) -> tuple[Figure, ...]:
    """Crumbs of stone and shell, no objects of their own, of about ``unit`` to 3 ``unit`` pixels; always the same."""
    rng = np.random.default_rng(22)
    return tuple(_crumb(rng, (1.2 + 2 * number / 32) * unit) for number in range(32))


def _crumb(rng: np.random.Generator, radius: float) -> Figure:
    frame = Frame.turned(reach=(1.2, 1.2), scale=radius, angle=float(rng.uniform(0, 3.1)))
    solid = blob(frame, (1.0, float(rng.uniform(0.55, 1))), [(3, 0.12, float(rng.uniform(0, 6)))], 0.5)
    shade = varied(rng, colour(_GRIT[int(rng.integers(len(_GRIT)))]))
    albedo = np.broadcast_to(shade, (3, *frame.x.shape))
    return finished(NO_CLASS, frame, solid, albedo, gloss=0.05)


def _sand(rng: np.random.Generator, size: Size, unit: float) -> Picture:
    base = varied(rng, colour(_SAND[int(rng.integers(len(_SAND)))]), 0.025)
    turn, period = float(rng.normal(0.5, 0.5)), float(rng.uniform(9, 20)) * unit
    rows, columns = np.ogrid[0 : size[0], 0 : size[1]]
    across = (rows * math.cos(turn) + columns * math.sin(turn)).astype(np.float32)
    phase = across * (2 * math.pi / period) + 2.4 * clouds(rng, size, 60 * unit)
    ripple: Plane = np.sin(phase + 0.45 * np.sin(phase)) * np.float32(rng.uniform(0.1, 0.42) * unit)
    lumps = clouds(rng, size, 40 * unit)
    height = ripple * smoothstep(lumps, -0.8, 0.4) * 2.2 + lumps * 2 * unit + grain(rng, size, 1) * 0.16
    speckle = grain(rng, size, 0)
    albedo = base * (1.0 + 0.055 * speckle + 0.05 * lumps)
    return lit(albedo, height, gloss=0.0)


def _gravel(rng: np.random.Generator, size: Size) -> Picture:
    base = colour(_GRAVEL[int(rng.integers(len(_GRAVEL)))])
    height, tone = (tiled(plane, rng.integers(len(plane), size=2).tolist(), size) for plane in stones())
    albedo = base * (0.92 + 0.2 * tone + 0.06 * grain(rng, size, 1))
    return lit(albedo, height, gloss=0.03)


def _rock(rng: np.random.Generator, size: Size, rise: Plane, unit: float) -> Picture:
    base, moss = colour(_ROCK[int(rng.integers(len(_ROCK)))]), colour("5f7357")
    rough = clouds(rng, size, 26 * unit, 4)
    height = np.minimum(np.maximum(rise, 0), 0.4) * 14 * unit + rough * 3.2 * unit + grain(rng, size, 1) * 0.3
    albedo = mixed(base, moss, smoothstep(clouds(rng, size, 30 * unit), 0.1, 0.7) * 0.6)
    return lit(albedo * (1.12 + 0.08 * grain(rng, size, 1)), height, gloss=0.04)


@lru_cache(maxsize=1)
def stones() -> tuple[Plane, Plane]:
    """Height in pixels, and tone from -1 to 1, of a bed of small stones that repeats without a seam."""
    rng, side = np.random.default_rng(21), 192
    height, tone = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    for _ in range(2600):
        radius, flat, turn = rng.uniform(2.0, 5.5), rng.uniform(0.6, 1), rng.uniform(0, math.pi)
        reach = np.arange(-6, 7)
        rows, columns = reach[:, None], reach[None]
        x, y = columns * math.cos(turn) + rows * math.sin(turn), rows * math.cos(turn) - columns * math.sin(turn)
        bump = np.sqrt(np.maximum(1 - (x**2 + (y / flat) ** 2) / radius**2, 0)) * radius * 0.7
        top, left = rng.integers(side, size=2)
        window = np.ix_((reach + top) % side, (reach + left) % side)
        higher = (bump + rng.uniform(0, 1.5)) * (bump > 0) > height[window]
        height[window] = np.where(higher, bump, height[window])
        tone[window] = np.where(higher, rng.uniform(-1, 1), tone[window])
    return height, tone
