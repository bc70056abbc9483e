"""Pairs of detections and annotations that overlap, with pycocotools' IoUs.

IoU is worked out for few pairs only: areas and the boxes around two masks say how large it can be at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.cores import on_all_cores, without_collection
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.terms import Kind

_PAIRS = 1 << 21  # at a time: memory, not results, depends on it


@dataclass(frozen=True)
class Overlapping:
    """Pairs of one image: ``p`` rows.

    detection, truth: ``(p,)`` rows of the tables. iou: ``(p,)``; with a crowd, the intersection over the detection's
    area.
    """

    detection: Ints
    truth: Ints
    iou: Floats

    def take(self, rows: Ints) -> Overlapping:
        """Some of the pairs."""
        return Overlapping(self.detection[rows], self.truth[rows], self.iou[rows])


@without_collection()
def overlapping(
    truth: TruthTable,
    detections: DetectionTable,
    kind: Kind,
    *,
    among: Bools,
    categories: Literal["same", "other"],
    at_least: Floats | float,
    below: float = np.inf,
) -> Overlapping:
    """All pairs whose IoU may reach ``at_least``, and not ``below``; of some masks it will turn out to be less.

    among: ``(m,)``, the annotations to look at. at_least: above 0, one for all detections or ``(n,)``.
    """
    rows = np.flatnonzero(among)
    found, wanted = detections.image, truth.image[rows]
    if categories == "same":
        step = max(len(truth.categories), 1)
        found, wanted = found * step + detections.category, wanted * step + truth.category[rows]
    lowest = np.broadcast_to(at_least, len(found))
    candidates = [(one, rows[other]) for one, other in _combinations(found, wanted)]
    if kind == "segm":
        candidates = [_alike(pair, truth, detections, lowest) for pair in candidates]
    shapes = _Shapes.of(truth, detections, kind, involved=[one for one, _ in candidates])
    parts = [Overlapping(rows[:0], rows[:0], np.zeros(0))]
    for one, other in candidates:
        part = shapes.bounded(one, other)
        keep = (part.iou >= lowest[part.detection]) & (part.iou < below)
        if categories == "other":
            keep &= detections.category[part.detection] != truth.category[part.truth]
        part = part.take(np.flatnonzero(keep))
        parts.append(_exact(part, truth, detections) if kind == "segm" else part)
    return united(parts)


def united(parts: Sequence[Overlapping]) -> Overlapping:
    """All pairs of all parts, one part after the other."""
    return Overlapping(
        np.concatenate([part.detection for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.iou for part in parts]),
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


def _alike(pair: tuple[Ints, Ints], truth: TruthTable, detections: DetectionTable, lowest: Floats) -> tuple[Ints, Ints]:
    """Those of the pairs whose areas let their IoU reach ``lowest``; a crowd may be of any area."""
    detection, annotation = pair
    area, other = detections.area["segm"][detection], truth.mask_areas[annotation]
    rows = np.flatnonzero(
        truth.crowd[annotation] | (np.minimum(area, other) >= lowest[detection] * np.maximum(area, other))
    )
    return detection[rows], annotation[rows]


@dataclass(frozen=True)
class _Shapes:
    """Columns x, y, right, bottom and area of both sides. exact: whether the shapes are these boxes."""

    detections: tuple[NDArray[np.float64], ...]
    truth: tuple[NDArray[np.float64], ...]
    crowd: Bools
    exact: bool

    @classmethod
    def of(cls, truth: TruthTable, detections: DetectionTable, kind: Kind, *, involved: Sequence[Ints]) -> _Shapes:
        """involved: rows of the detections that will be asked for."""
        if kind == "bbox":
            sides = [(table.boxes, table.boxes[:, 2] * table.boxes[:, 3]) for table in (detections, truth)]
        else:
            rows = np.concatenate([np.zeros(0, dtype=np.int64), *involved])
            sides = [(detections.mask_boxes(rows), detections.area["segm"]), (truth.mask_boxes, truth.mask_areas)]
        first, second = (
            (*np.ascontiguousarray(boxes.T[:2]), *(boxes[:, :2] + boxes[:, 2:]).T.copy(), area) for boxes, area in sides
        )
        return cls(first, second, truth.crowd, exact=kind == "bbox")

    def bounded(self, detection: Ints, truth: Ints) -> Overlapping:
        """The pairs whose boxes overlap, with what their IoU is at most; of boxes it is the IoU."""
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
        return Overlapping(detection, truth, np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


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

    def compared(part: slice) -> Floats:
        """Of the groups in a slice, one after the other."""
        values = [np.zeros(0)]
        for each in range(part.start, part.stop):
            own = rows[row_edges[each] : row_edges[each + 1]]
            other = columns[column_edges[each] : column_edges[each + 1]]
            table = coco_mask.iou(masks.chosen(own), truth_masks.chosen(other), truth.crowd[other].tolist())
            inside = slice(edges[each], edges[each + 1])
            values.append(table[row[inside], column[inside]])
        return np.concatenate(values)

    iou = np.empty(len(order))
    iou[order] = np.concatenate(on_all_cores(compared, len(edges) - 1))
    return Overlapping(pairs.detection, pairs.truth, iou)


def _distinct(group: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """The different rows of every group, where each group's begin, and the place of every given row among them."""
    step = int(rows.max(initial=0)) + 1
    keys, inverse = np.unique(group * step + rows, return_inverse=True)
    edges = np.searchsorted(keys, np.arange(group.max(initial=-1) + 2) * step)
    return keys % step, edges, inverse - edges[group]
