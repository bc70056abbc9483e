"""Which boxes and segmentations are certainly in order, many at once.

What is proved here has no problem by :mod:`dsctool.data.rules` and :mod:`dsctool.data.segmentations`; of what is not,
nothing is known.
"""

from __future__ import annotations

import numpy as np

from dsctool.data.records import LARGEST_NUMBER
from dsctool.data.rules import BOX_TOLERANCE
from dsctool.data.segmentations import FLAT, REACH
from dsctool.data.shapes import Floats, Shapes
from dsctool.rle import Bools, Ints, sum_runs


def proved_boxes(box: Floats, size: Ints) -> Bools:
    """``(m,)``: boxes ``(m, 4)`` x, y, width, height with an area, inside their images; a size of 0 is unknown."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = (np.abs(box) <= LARGEST_NUMBER).all(axis=1)
        ends = box[:, :2] + box[:, 2:]
        inside = (box[:, :2] >= -BOX_TOLERANCE).all(axis=1) & (ends - size[:, ::-1] <= BOX_TOLERANCE).all(axis=1)
        proved: Bools = finite & (box[:, 2:] > 0).all(axis=1) & (inside | (size == 0).any(axis=1))
    return proved


def proved_runs(shapes: Shapes, size: Ints) -> Bools:
    """``(m,)``: run-length texts, in one piece, that fill images of ``size`` ``(m, 2)`` and have some foreground."""
    sums = sum_runs(shapes.text, shapes.letters_of)
    return sums.formed & (sums.pixels == size[:, 0] * size[:, 1]) & (sums.area > 0)


def proved_polygons(shapes: Shapes, size: Ints) -> Bools:
    """``(m,)``: annotations whose polygons all are proper, and have an area inside images of ``size`` ``(m, 2)``."""
    row = np.repeat(np.arange(len(shapes)), shapes.polygons_of)
    proper = (shapes.points_of % 2 == 0) & (shapes.points_of >= 6)
    proved = np.zeros(len(proper), dtype=bool)
    if proper.any():
        points = shapes.points if proper.all() else shapes.points[np.repeat(proper, shapes.points_of)]
        proved[proper] = _lie_inside(points.reshape(-1, 2), shapes.points_of[proper] // 2, size[row[proper]])
    failed = np.bincount(row[~proved], minlength=len(shapes))
    return (shapes.polygons_of > 0) & (failed == 0)


def _lie_inside(points: Floats, count: Ints, size: Ints) -> Bools:
    """``(q,)``: polygons of ``count`` points ``(p, 2)``, one after the other."""
    start = np.cumsum(count) - count
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = np.minimum.reduceat(points, start), np.maximum.reduceat(points, start)
        side = size.max(axis=1)
        near = (low.min(axis=1) >= -REACH * side) & (high.max(axis=1) <= (1 + REACH) * side)
        inside = (high > 0).all(axis=1) & (low < size[:, ::-1]).all(axis=1)
        shifted = points - np.repeat(points[start], count, axis=0)
        crossed = np.zeros(len(points))
        crossed[1:] = shifted[:-1, 0] * shifted[1:, 1] - shifted[1:, 0] * shifted[:-1, 1]
        crossed[start] = 0.0  # the edge between two polygons
        area = np.add.reduceat(crossed, start)
        finite = np.maximum(np.abs(low), np.abs(high)).max(axis=1) <= LARGEST_NUMBER
        proved: Bools = finite & near & inside & (np.abs(area) > FLAT)
    return proved
