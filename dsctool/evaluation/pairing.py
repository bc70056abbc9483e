"""Pairs of detections and annotations that overlap, with pycocotools' IoUs.

IoU is worked out for few pairs only: areas and the boxes around two masks say how large it can be at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.structures import Kind

_PAIRS = 1 << 21  # at a time: memory, not results, depends on it


@dataclass(frozen=True)
class Overlapping:
    """Pairs of one image: ``p`` rows.

    detection, truth: ``(p,)`` rows of the tables, detections ascending. iou: ``(p,)``; with a crowd, the intersection
    over the detection's area.
    """

    detection: Ints
    truth: Ints
    iou: Floats


def overlapping(
    truth: TruthTable, detections: DetectionTable, kind: Kind, *, among: Bools, same_category: bool, at_least: float
) -> Overlapping:
    """All pairs with an IoU of ``at_least``, which is above 0. among: ``(m,)``, the annotations to look at."""
    rows = np.flatnonzero(among)
    step = max(len(truth.categories), 1)
    found, wanted = detections.image, truth.image[rows]
    if same_category:
        found, wanted = found * step + detections.category, wanted * step + truth.category[rows]
    shapes = _Shapes.of(truth, detections, kind)
    parts = []
    for one, other in _combinations(found, wanted):
        part = shapes.bounded(one, rows[other], at_least)
        if kind == "segm":
            part = _exact(part, truth, detections)
        keep = part.iou >= at_least
        parts.append(Overlapping(part.detection[keep], part.truth[keep], part.iou[keep]))
    nothing = np.zeros(0, dtype=np.int64)
    return Overlapping(
        np.concatenate([nothing, *(part.detection for part in parts)]),
        np.concatenate([nothing, *(part.truth for part in parts)]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
    )


def _combinations(found: Ints, wanted: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Indices of all equal elements of two sorted arrays, many pairs at a time."""
    first = np.searchsorted(wanted, found, side="left")
    counts = np.searchsorted(wanted, found, side="right") - first
    edges = [0, *np.searchsorted(np.cumsum(counts), np.arange(_PAIRS, counts.sum(), _PAIRS)).tolist(), len(found)]
    for start, stop in pairwise(edges):
        own = counts[start:stop]
        place = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
        yield np.repeat(np.arange(start, stop), own), place + np.repeat(first[start:stop], own)


@dataclass(frozen=True)
class _Shapes:
    """Columns x, y, right, bottom and area of both sides. exact: whether the shapes are these boxes."""

    detections: tuple[NDArray[np.float64], ...]
    truth: tuple[NDArray[np.float64], ...]
    crowd: Bools
    exact: bool

    @classmethod
    def of(cls, truth: TruthTable, detections: DetectionTable, kind: Kind) -> _Shapes:
        if kind == "bbox":
            sides = [(table.boxes, table.boxes[:, 2] * table.boxes[:, 3]) for table in (detections, truth)]
        else:
            sides = [(detections.mask_boxes, detections.area["segm"]), (truth.mask_boxes, truth.mask_areas)]
        first, second = (
            (*np.ascontiguousarray(boxes.T[:2]), *(boxes[:, :2] + boxes[:, 2:]).T.copy(), area) for boxes, area in sides
        )
        return cls(first, second, truth.crowd, exact=kind == "bbox")

    def bounded(self, detection: Ints, truth: Ints, at_least: float) -> Overlapping:
        """The pairs whose IoU may reach ``at_least``, with what it is at most; of boxes it is the IoU."""
        own, other = self.detections, self.truth
        width = np.minimum(own[2][detection], other[2][truth]) - np.maximum(own[0][detection], other[0][truth])
        rows = np.flatnonzero(width > 0)
        detection, truth, width = detection[rows], truth[rows], width[rows]
        height = np.minimum(own[3][detection], other[3][truth]) - np.maximum(own[1][detection], other[1][truth])
        rows = np.flatnonzero(height > 0)
        detection, truth = detection[rows], truth[rows]
        shared = width[rows] * height[rows]
        area, truth_area = own[4][detection], other[4][truth]
        if not self.exact:
            shared = np.minimum(shared, np.minimum(area, truth_area))
        union = np.where(self.crowd[truth], area, area + truth_area - shared)
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        rows = np.flatnonzero(iou >= at_least)
        return Overlapping(detection[rows], truth[rows], iou[rows])


def _exact(pairs: Overlapping, truth: TruthTable, detections: DetectionTable) -> Overlapping:
    """The same pairs with the IoUs of their masks; pycocotools takes all of an image and category at once."""
    masks, truth_masks = detections.masks, truth.masks
    assert masks is not None
    assert truth_masks is not None
    group = truth.image[pairs.truth] * len(truth.categories) + truth.category[pairs.truth]
    order = np.argsort(group, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(group[order], prepend=-1)), len(order))
    number = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    rows, row_edges, row = _distinct(number, pairs.detection[order])
    columns, column_edges, column = _distinct(number, pairs.truth[order])
    iou = np.empty(len(order))
    for each in range(len(edges) - 1):
        own = rows[row_edges[each] : row_edges[each + 1]]
        other = columns[column_edges[each] : column_edges[each + 1]]
        values = coco_mask.iou(
            [masks[at] for at in own.tolist()], [truth_masks[at] for at in other.tolist()], truth.crowd[other].tolist()
        )
        inside = slice(edges[each], edges[each + 1])
        iou[order[inside]] = values[row[inside], column[inside]]
    return Overlapping(pairs.detection, pairs.truth, iou)


def _distinct(group: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """The different rows of every group, where each group's begin, and the place of every given row among them."""
    step = int(rows.max(initial=0)) + 1
    keys, inverse = np.unique(group * step + rows, return_inverse=True)
    edges = np.searchsorted(keys, np.arange(group.max(initial=-1) + 2) * step)
    return keys % step, edges, inverse - edges[group]
