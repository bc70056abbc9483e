"""Masks as polygons that people can edit: simplified, without holes, in as many parts as it takes.

COCO's polygons, and the editors that read them, know no holes: all polygons of an instance are filled. So a part with
a hole is cut along a column through the hole, and becomes two or more polygons that lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.shapes import drawn
from dsctool.rle import Bools, Floats, Ints, Rle

Bitmap = NDArray[np.bool_]

SPECK = 4
"""Parts and holes of fewer pixels are left out, unless nothing else is there."""
FAITHFUL = 0.95
"""IoU that polygons and mask must have; where simplifying costs more, it is done less."""


def outlines(mask: Rle, *, tolerance: float = 1.0) -> list[list[float]]:
    """Polygons that cover a mask, each a list of x and y in turn, in pixels; the largest part first.

    The corner of the image is (0, 0), its first pixel reaches to (1, 1). None has a hole, and no two overlap by more
    than ``tolerance``.

    tolerance: how far a polygon may run beside the border of the mask, in pixels; less where the mask is so small that
    their IoU would be below :data:`FAITHFUL`. 0: not at all. A mask without pixels has no polygons.
    """
    x, y, width, height = (int(side) for side in coco_mask.toBbox(mask))
    if not width or not height:
        return []
    bitmap = coco_mask.decode(mask)[y : y + height, x : x + width].astype(bool)
    loops = sorted(_solid_loops(bitmap), key=lambda loop: _area(loop.points), reverse=True)
    loops = [loop for loop in loops if _area(loop.points) >= SPECK] or loops[:1]
    size = (mask["size"][0], mask["size"][1])
    while True:
        polygons = [(_simplified(loop, tolerance) + np.array([x, y])).reshape(-1).tolist() for loop in loops]
        if tolerance < 0.25 or coco_mask.iou([drawn(polygons, size)], [mask], [0])[0, 0] >= FAITHFUL:
            return polygons
        tolerance = tolerance / 2 if tolerance >= 0.5 else 0.0


# --- tracing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loop:
    """A closed line along the borders of pixels.

    points: ``(n, 2)`` its corners, x and y. hole: what it surrounds. fixed: ``(n,)``, the corners on the seams between
    the parts of something that was cut, which stay: or there would be gaps.
    """

    points: Ints
    hole: bool
    fixed: Bools


def _solid_loops(bitmap: Bitmap) -> Iterator[_Loop]:
    """Loops around parts without holes, which together are the bitmap; pixels that meet at a corner are apart."""
    loops = _traced(bitmap)
    holes = [loop.points for loop in loops if loop.hole and _area(loop.points) >= SPECK]
    for outer in (loop for loop in loops if not loop.hole):
        inside = _filled(outer.points, bitmap.shape) if holes else np.zeros_like(bitmap)
        own = [hole for hole in holes if inside[hole[0, 1], hole[0, 0]]]
        if not own:
            yield outer
            continue
        for hole in own:
            inside &= ~_filled(hole, bitmap.shape)
        cuts = sorted({int(hole[:, 0].min() + hole[:, 0].max()) // 2 for hole in own})
        for first, last in zip([0, *cuts], [*cuts, bitmap.shape[1]], strict=True):
            for part in _solid_loops(inside[:, first:last]):
                points = part.points + np.array([first, 0])
                yield _Loop(points, hole=False, fixed=part.fixed | np.isin(points[:, 0], cuts))


def _traced(bitmap: Bitmap) -> list[_Loop]:
    """All borders. Corners of a row are the ends of its horizontal lines in turn, those of a column of the vertical."""
    padded = np.pad(bitmap, 1)
    above_left, above_right, left, right = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = above_left.astype(np.int8) + above_right + left + right
    falling = (count == 2) & above_left & right  # two pixels meet at this point alone: it is a corner of both
    rising = (count == 2) & above_right & left
    kinds = [(count % 2 == 1, 0, 0), (falling, 0, 0), (falling, 1, 1), (rising, 0, 1), (rising, 1, 0)]
    corners = np.concatenate([np.insert(np.argwhere(where), [2, 2], order, axis=1) for where, *order in kinds])
    corners = corners[np.lexsort((corners[:, 2], corners[:, 1], corners[:, 0]))]
    across = np.arange(len(corners)) ^ 1
    by_column = np.lexsort((corners[:, 3], corners[:, 0], corners[:, 1]))
    along = np.empty(len(corners), dtype=np.int64)
    along[by_column[::2]], along[by_column[1::2]] = by_column[1::2], by_column[::2]
    loops, seen, across_, along_ = [], bytearray(len(corners)), across.tolist(), along.tolist()
    for start in range(len(corners)):
        if seen[start]:
            continue
        rows, at = [], start
        while not seen[at]:
            other = across_[at]
            rows += [at, other]
            seen[at] = seen[other] = True
            at = along_[other]
        points = corners[rows, 1::-1]
        x, y = points[0]  # the first one of the highest: what lies right below is inside
        loops.append(_Loop(points, hole=not right[y, x], fixed=np.zeros(len(points), dtype=bool)))
    return loops


def _filled(loop: Ints, shape: tuple[int, ...]) -> Bitmap:
    """What a loop surrounds."""
    flips = np.zeros((shape[0], shape[1] + 1), dtype=bool)
    following = np.roll(loop, -1, axis=0)
    for x, low, high in zip(
        loop[:, 0].tolist(),
        np.minimum(loop[:, 1], following[:, 1]).tolist(),
        np.maximum(loop[:, 1], following[:, 1]).tolist(),
        strict=True,
    ):
        flips[low:high, x] ^= True
    inside: Bitmap = np.logical_xor.accumulate(flips, axis=1)[:, :-1]
    return inside


def _area(loop: Ints | Floats) -> float:
    x, y = loop.T.astype(np.float64)
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


# --- simplifying ----------------------------------------------------------------------------------


def _simplified(loop: _Loop, tolerance: float) -> Floats:
    """Fewer corners (Douglas and Peucker 1973): those left out lie within ``tolerance`` of the line.

    Begins with two corners that are far from each other, and those that are fixed. What would be left without area
    stays as it is.
    """
    points = loop.points.astype(np.float64)
    if tolerance <= 0:
        return points
    closed = np.concatenate([points, points[:1]])
    kept = np.append(loop.fixed, False)
    kept[[0, int(np.square(points - points[0]).sum(axis=1).argmax()), len(points)]] = True
    spans = list(pairwise(np.flatnonzero(kept).tolist()))
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        offset, line = closed[first + 1 : last] - closed[first], closed[last] - closed[first]
        length = max(float(line @ line), 1e-9)  # of a loop that comes back to where it began, 0
        distance = np.hypot(*(offset - np.clip(offset @ line / length, 0, 1)[:, None] * line).T)
        middle = int(distance.argmax())
        if distance[middle] > tolerance:
            middle += first + 1
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    chosen = points[kept[:-1]]
    return chosen if len(chosen) > 2 and _area(chosen) > 0 else points
