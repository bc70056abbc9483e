"""Solids of generated scenes: signed distances and heights on a small grid, from which masks and shading follow.

Coordinates: x to the right, y down, in units of an object's size. A frame lays them over a window of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
"""``(h, w)`` or what broadcasts to it; float32 throughout, for speed."""

Point = tuple[float, float]

_FAR = np.float32(1e3)
_NEAR = 0.25  # units


@dataclass(frozen=True)
class Frame:
    """A window of pixels and the object's coordinates of their centres.

    x, y: ``(h, w)``, in units of the object's size.
    scale: pixels per unit.
    across, down: pixels from the window's middle, to the right and down, that one unit of x and one of y lead to.
    """

    x: Plane
    y: Plane
    scale: float
    across: Point
    down: Point

    @classmethod
    def turned(cls, *, reach: Point, scale: float, angle: float, mirrored: bool = False) -> Frame:
        """A window that holds everything within ``reach`` units of the origin along x and y, turned by ``angle``."""
        cos, sin, sign = math.cos(angle), math.sin(angle), -1 if mirrored else 1
        across = (cos * scale, -sin * sign * scale)
        down = (sin * scale, cos * sign * scale)
        half = [math.ceil(abs(way[0]) * reach[0] + abs(way[1]) * reach[1]) + 3 for way in (across, down)]
        columns = np.arange(-half[0], half[0] + 1, dtype=np.float32)[None] / np.float32(scale)
        rows = np.arange(-half[1], half[1] + 1, dtype=np.float32)[:, None] / np.float32(scale)
        return cls(columns * cos + rows * sin, (rows * cos - columns * sin) * sign, scale, across, down)

    def window(self, points: Sequence[Point], margin: float) -> tuple[slice, slice]:
        """Rows and columns within ``margin`` units of the box around ``points``."""
        spans = []
        for way, side in zip((self.down, self.across), self.x.shape, strict=True):
            places = [x * way[0] + y * way[1] + side // 2 for x, y in points]
            first = max(math.floor(min(places) - margin * self.scale), 0)
            spans.append(slice(first, max(math.ceil(max(places) + margin * self.scale) + 1, first)))
        return spans[0], spans[1]


@dataclass(frozen=True)
class Solid:
    """A shape with a rounded upper side.

    distance: ``(h, w)``, to the outline, negative inside, in units.
    height: ``(h, w)``, above the ground, 0 outside, in units.
    along: ``(h, w)``, how far along a tube, 0 to 1; 0 for other solids.
    """

    distance: Plane
    height: Plane
    along: Plane


def length(x: Plane, y: Plane) -> Plane:
    """Of vectors; the numbers are small, so the slow care of ``np.hypot`` is not needed."""
    return np.sqrt(x * x + y * y)


def gradient(plane: Plane) -> tuple[Plane, Plane]:
    """Change per pixel, from row to row and from column to column."""
    by_row, by_column = np.gradient(plane)
    return np.asarray(by_row), np.asarray(by_column)


def tube(frame: Frame, points: Sequence[Point], radii: Sequence[float]) -> Solid:
    """A bent tube through ``points`` (two or more) whose radius changes linearly between them.

    Distances are exact up to ``_NEAR`` outside, and very large further away.
    """
    best = np.full_like(frame.x, _FAR)
    radius = np.ones_like(frame.x)
    along = np.zeros_like(frame.x)
    segments = len(points) - 1
    for number in range(segments):
        (ax, ay), (bx, by) = points[number], points[number + 1]
        near = frame.window(points[number : number + 2], max(radii[number : number + 2]) + _NEAR)
        dx, dy = bx - ax, by - ay
        px, py = frame.x[near] - ax, frame.y[near] - ay
        t = np.minimum(np.maximum((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0), 1)
        r = radii[number] + (radii[number + 1] - radii[number]) * t
        px -= t * dx
        py -= t * dy
        distance = length(px, py) - r
        nearer = distance < best[near]
        np.copyto(best[near], distance, where=nearer)
        np.copyto(radius[near], r, where=nearer)
        np.copyto(along[near], (t + number) / segments, where=nearer)
    return Solid(best, np.sqrt(np.maximum(radius**2 - np.maximum(best + radius, 0) ** 2, 0)), along)


def lens(frame: Frame, *, nose: float, tail: float, deep: float, bend: float) -> Solid:
    """A fish's body along x from ``nose`` to ``tail``, ``deep`` to either side where it is deepest."""
    extent = nose - tail
    t = (nose - frame.x) / extent
    within = np.clip(t, 0.004, 1)
    root = within**0.65
    half = deep * 3.0 * root * (1 - within) + 0.07 * within
    slope = (deep * 3.0 * root * (0.65 / within - 1.65) + 0.07) / extent
    away = np.abs(frame.y - bend * frame.x**2)
    distance = np.maximum((away - half) / np.sqrt(1 + slope**2), np.maximum(-t, t - 1) * extent)
    return Solid(distance, 0.8 * np.sqrt(np.maximum(half**2 - away**2, 0)) * (distance < 0), within)


def blob(frame: Frame, radii: Sequence[float], waves: Sequence[tuple[int, float, float]], bulge: float) -> Solid:
    """An ellipse of two half axes, its outline moved by waves: (periods around, share of the radius, phase).

    bulge: height in the middle.
    """
    x, y = frame.x / radii[0], frame.y / radii[1]
    turn = np.arctan2(y, x)
    reach = np.ones_like(x)
    for periods, by, phase in waves:
        reach += by * np.cos(periods * turn + phase)
    share = length(x, y) / reach
    return Solid(_to_distance(share, frame), bulge * np.sqrt(np.maximum(1 - share * share, 0)), np.zeros_like(x))


def fan(frame: Frame, *, spread: float, flutes: int, depth: float) -> Solid:
    """A scallop's fan: the hinge at (0, 0.8), ``spread`` radians to either side, ``flutes`` ribs ``depth`` high."""
    x, y = frame.x, 0.8 - frame.y
    rho, turn = length(x, y), np.arctan2(x, y)
    ribs = np.cos(turn * (flutes * math.pi / spread))
    reach = (1.62 + 0.5 * depth * ribs) * np.maximum(np.cos(turn * (0.9 / spread)), 0.05) ** 0.45
    sides = rho * np.sin(np.minimum(np.abs(turn) - spread, math.pi / 2))
    distance = _smooth_maximum(rho - reach, sides, 0.12)
    share = np.clip(rho / reach, 0, 1)
    dome = 0.55 * np.sqrt(np.maximum(-distance, 0) * np.maximum(1.1 - share, 0.05) * 2)
    return Solid(distance, np.where(distance < 0, dome + depth * 0.5 * share * ribs, 0), share)


def inflated(distance: Plane, width: float) -> Plane:
    """Height of a shape whose rim is a quarter circle of radius ``width``, flat further inside."""
    rim = width - np.clip(-distance, 0, width)
    return np.sqrt(width**2 - rim**2)


def joined(solids: Sequence[Solid], *, blend: float = 0.0) -> Solid:
    """The union of solids; ``blend`` rounds the corners between them, in units. ``along`` is the nearest one's."""
    first, *rest = solids
    distance, height, along = first.distance, first.height, first.along
    for solid in rest:
        along = np.where(solid.distance < distance, solid.along, along)
        height = np.maximum(height, solid.height)
        distance = -_smooth_maximum(-distance, -solid.distance, blend)
    return Solid(distance, height, along)


def _smooth_maximum(a: Plane, b: Plane, blend: float) -> Plane:
    if blend <= 0:
        return np.maximum(a, b)
    mixed = np.maximum(blend - np.abs(a - b), 0)
    return np.maximum(a, b) + mixed**2 / (4 * blend)


def _to_distance(share: Plane, frame: Frame) -> Plane:
    """About the distance to the line where ``share`` is 1, in units."""
    return (share - 1) / np.maximum(length(*gradient(share)) * np.float32(frame.scale), np.float32(0.2))
