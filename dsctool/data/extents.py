"""What masks span and how much they cover, many at once, without drawing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dsctool.data.segmentations import FLAT, is_flat
from dsctool.data.shapes import Floats, Shapes
from dsctool.rle import Ints

_AT_ONCE = 100_000  # polygons


@dataclass(frozen=True)
class Extents:
    """Of ``m`` segmentations, NaN where there is none.

    corners: ``(m, 4)``, x1, y1, x2, y2 in pixels, also of what lies out of the image, but without parts that have no
    area beside others that have one. area: ``(m,)`` in square pixels;
    of polygons it is that of their outlines, which is more than they cover where they overlap or leave the image.
    """

    corners: Floats
    area: Floats

    @classmethod
    def of(cls, shapes: Shapes, sizes: Ints) -> Self:
        """sizes: ``(m, 2)``, heights and widths of the images."""
        corners, area = np.full((len(shapes), 4), np.nan), np.full(len(shapes), np.nan)
        outlined = np.flatnonzero(shapes.polygons_of)
        if len(outlined):
            low, high, covered = _of_polygons(shapes)
            count = shapes.polygons_of[outlined]
            start = np.cumsum(count) - count
            which = np.repeat(shapes.polygon[outlined] - start, count) + np.arange(count.sum())
            corners[outlined, :2] = np.minimum.reduceat(low[which], start)
            corners[outlined, 2:] = np.maximum.reduceat(high[which], start)
            area[outlined] = np.add.reduceat(covered[which], start)
            for row in outlined[(count > 1) & (np.minimum.reduceat(covered[which], start) <= FLAT)].tolist():
                parts = _with_area(shapes, row)
                if len(parts):
                    corners[row] = [*low[parts].min(axis=0), *high[parts].max(axis=0)]
        runs = np.flatnonzero(shapes.letters_of)
        if len(runs):
            rles, every = shapes.rles(runs, sizes[runs]), np.arange(len(runs))
            boxes = rles.boxes(every)
            corners[runs] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            area[runs] = rles.areas(every)
        return cls(corners, area)


def _with_area(shapes: Shapes, row: int) -> Ints:
    """Which polygons of an annotation have one."""
    first, last = int(shapes.polygon[row]), int(shapes.polygon[row] + shapes.polygons_of[row])
    starts, counts = shapes.point[first:last].tolist(), shapes.points_of[first:last].tolist()
    parts = [shapes.points[start : start + count].tolist() for start, count in zip(starts, counts, strict=True)]
    return first + np.flatnonzero([not is_flat(part) for part in parts])


def _of_polygons(shapes: Shapes) -> tuple[Floats, Floats, Floats]:
    """Least and greatest x and y ``(q, 2)``, and area ``(q,)``, of every polygon; a few at a time, to save memory."""
    parts = [_of_some(shapes, slice(at, at + _AT_ONCE)) for at in range(0, len(shapes.point), _AT_ONCE)]
    low, high, area = (np.concatenate(values) for values in zip(*parts, strict=True))
    return low, high, area


def _of_some(shapes: Shapes, some: slice) -> tuple[Floats, Floats, Floats]:
    first, count = shapes.point[some], shapes.points_of[some] // 2
    begin, end = int(first[0]), int(first[-1] + shapes.points_of[some][-1])
    points, start = shapes.points[begin:end].reshape(-1, 2), (first - begin) // 2
    shifted = points - np.repeat(points[start], count, axis=0)
    crossed = np.zeros(len(points))
    crossed[1:] = shifted[:-1, 0] * shifted[1:, 1] - shifted[1:, 0] * shifted[:-1, 1]
    crossed[start] = 0.0  # the edge between two polygons
    area = np.abs(np.add.reduceat(crossed, start)) / 2
    return np.minimum.reduceat(points, start), np.maximum.reduceat(points, start), area
