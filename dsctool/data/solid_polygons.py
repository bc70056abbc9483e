"""Masks as polygons that people can edit: simplified, without holes, in as many parts as it takes.

COCO's polygons, and the editors that read them, know no holes: all polygons of an instance are filled. So a part with
a hole is cut along a column through the hole, and becomes two or more polygons that lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.outlines import Ring, area, outline, simplified
from dsctool.data.shapes import drawn
from dsctool.rle import Bools, Rle

Bitmap = NDArray[np.bool_]

SPECK = 4
"""Parts and holes of fewer pixels are left out, unless nothing else is there."""
FAITHFUL = 0.95
"""IoU that polygons and mask must have; where simplifying costs more, it is done less."""


def solid_polygons(mask: Rle, *, tolerance: float = 1.0) -> list[list[float]]:
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
    rings = sorted(_solid_rings(bitmap), key=lambda ring: abs(area(ring[0])), reverse=True)
    rings = [ring for ring in rings if abs(area(ring[0])) >= SPECK] or rings[:1]
    size = (mask["size"][0], mask["size"][1])
    while True:
        polygons = [
            (simplified(ring, tolerance, fixed) + np.array([x, y])).reshape(-1).tolist() for ring, fixed in rings
        ]
        if tolerance < 0.25 or coco_mask.iou([drawn(polygons, size)], [mask], [0])[0, 0] >= FAITHFUL:
            return polygons
        tolerance = tolerance / 2 if tolerance >= 0.5 else 0.0


def _solid_rings(bitmap: Bitmap) -> Iterator[tuple[Ring, Bools]]:
    """Rings around parts without holes, which together are the bitmap; with the corners ``(n,)`` on the seams between
    the parts of something that was cut, which stay: or there would be gaps.
    """
    for part in outline(bitmap):
        holes = [hole for hole in part.holes if abs(area(hole)) >= SPECK]
        if not holes:
            yield part.outer, np.zeros(len(part.outer), dtype=bool)
            continue
        inside = _filled(part.outer, bitmap.shape)
        for hole in holes:
            inside &= ~_filled(hole, bitmap.shape)
        cuts = sorted({int(hole[:, 0].min() + hole[:, 0].max()) // 2 for hole in holes})
        for first, last in zip([0, *cuts], [*cuts, bitmap.shape[1]], strict=True):
            for ring, fixed in _solid_rings(inside[:, first:last]):
                moved = ring + np.array([first, 0])
                yield moved, fixed | np.isin(moved[:, 0], cuts)


def _filled(ring: Ring, shape: tuple[int, ...]) -> Bitmap:
    """What a ring along the edges of pixels surrounds."""
    flips = np.zeros((shape[0], shape[1] + 1), dtype=bool)
    ends = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring[:, 1], ends[:, 1]).astype(int), np.maximum(ring[:, 1], ends[:, 1]).astype(int)
    for x, top, bottom in zip(ring[:, 0].astype(int).tolist(), low.tolist(), high.tolist(), strict=True):
        flips[top:bottom, x] ^= True
    inside: Bitmap = np.logical_xor.accumulate(flips, axis=1)[:, :-1]
    return inside
