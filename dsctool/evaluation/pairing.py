"""Pairs of detections and annotations that overlap, with pycocotools' IoUs.

IoU of masks is worked out for few pairs only: their areas, and boxes around them, say how large it can be at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.cores import on_all_cores, without_collection
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.rle import PackedRles
from dsctool.terms import Kind

_PAIRS = 1 << 21  # at a time: memory, not results, depends on it
_WIDE = 1 << 30  # pixels, wider than any image
_MASKS = 128  # of detections, that pycocotools compares in one call


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
) -> Overlapping:
    """All pairs whose IoU reaches ``at_least``, and masks that nearly do.

    among: ``(m,)``, the annotations to look at. at_least: above 0, one for all detections or ``(n,)``.
    """
    rows = np.flatnonzero(among)
    found, wanted = detections.image, truth.image[rows]
    if categories == "same":
        step = max(len(truth.categories), 1)
        found, wanted = found * step + detections.category, wanted * step + truth.category[rows]
    lowest = np.broadcast_to(at_least, len(found))
    # Masks of one category are few: comparing them takes less time than finding boxes around them first.
    boxes = None if kind == "segm" and categories == "same" else _Boxes.of_truth(truth, kind)

    def paired(part: slice) -> Overlapping:
        """Of a slice of the detections."""
        candidates = [(one + part.start, rows[other]) for one, other in _combinations(found[part], wanted)]
        if kind == "segm":
            candidates = [_alike(pair, truth, detections, lowest) for pair in candidates]
        if boxes is None:
            return _exact(united([_unmeasured(*pair) for pair in candidates]), truth, detections)
        involved = np.zeros(part.stop - part.start, dtype=bool)
        for one, _ in candidates:
            involved[one - part.start] = True
        own = _Boxes.of_detections(detections, kind, part, involved)
        parts = []
        for one, other in candidates:
            found_there = _bounded(own, boxes, (one - part.start, other), truth.crowd, exact=kind == "bbox")
            detection = found_there.detection + part.start
            keep = found_there.iou >= lowest[detection]
            if categories == "other":
                keep &= detections.category[detection] != truth.category[found_there.truth]
            parts.append(replace(found_there, detection=detection).take(np.flatnonzero(keep)))
        pairs = united(parts)
        return _exact(pairs, truth, detections) if kind == "segm" else pairs

    return united(on_all_cores(paired, len(found)))


def _unmeasured(detection: Ints, truth: Ints) -> Overlapping:
    return Overlapping(detection, truth, np.full(len(detection), np.nan))


def united(parts: Sequence[Overlapping]) -> Overlapping:
    """All pairs of all parts, one part after the other."""
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


def _alike(pair: tuple[Ints, Ints], truth: TruthTable, detections: DetectionTable, lowest: Floats) -> tuple[Ints, Ints]:
    """Those of the pairs whose areas let their IoU reach ``lowest``; a crowd may be of any area."""
    detection, annotation = pair
    area, other = detections.area["segm"][detection], truth.mask_areas[annotation]
    rows = np.flatnonzero(
        truth.crowd[annotation] | (np.minimum(area, other) >= lowest[detection] * np.maximum(area, other))
    )
    return detection[rows], annotation[rows]


@dataclass(frozen=True)
class _Boxes:
    """Columns ``(n,)``: of boxes, or of boxes around masks, which have areas of their own."""

    left: Floats
    top: Floats
    right: Floats
    bottom: Floats
    area: Floats

    @classmethod
    def of(cls, boxes: Floats, area: Floats) -> _Boxes:
        """boxes: ``(n, 4)`` x, y, width, height."""
        left, top, width, height = np.ascontiguousarray(boxes.T)
        return cls(left, top, left + width, top + height, area)

    @classmethod
    def of_truth(cls, truth: TruthTable, kind: Kind) -> _Boxes:
        """All annotations."""
        if kind == "bbox":
            return cls.of(truth.boxes, truth.boxes[:, 2] * truth.boxes[:, 3])
        return cls.of(truth.mask_boxes, truth.mask_areas)

    @classmethod
    def of_detections(cls, detections: DetectionTable, kind: Kind, part: slice, involved: Bools) -> _Boxes:
        """A slice of them. involved: ``(n,)``, those around whose masks boxes are needed."""
        if kind == "bbox":
            boxes = detections.boxes[part]
            return cls.of(boxes, boxes[:, 2] * boxes[:, 3])
        assert detections.masks is not None
        boxes = np.zeros((len(involved), 4))
        rows = np.flatnonzero(involved)
        boxes[rows] = detections.masks.boxes(rows + part.start)
        return cls.of(boxes, detections.area["segm"][part])


def _bounded(own: _Boxes, other: _Boxes, pair: tuple[Ints, Ints], crowd: Bools, *, exact: bool) -> Overlapping:
    """Those of the pairs whose boxes overlap, with what their IoU is at most; of boxes it is the IoU."""
    one, two = pair
    width = np.minimum(own.right[one], other.right[two]) - np.maximum(own.left[one], other.left[two])
    rows = np.flatnonzero(width > 0)
    one, two, width = one[rows], two[rows], width[rows]
    height = np.minimum(own.bottom[one], other.bottom[two]) - np.maximum(own.top[one], other.top[two])
    rows = np.flatnonzero(height > 0)
    one, two = one[rows], two[rows]
    shared = width[rows] * height[rows]
    area, other_area = own.area[one], other.area[two]
    if not exact:
        shared = np.minimum(shared, np.minimum(area, other_area))
    union = np.where(crowd[two], area, area + other_area - shared)
    return Overlapping(one, two, np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


def _exact(pairs: Overlapping, truth: TruthTable, detections: DetectionTable) -> Overlapping:
    """The same pairs with the IoUs of their masks; pycocotools takes some images and categories at once."""
    assert detections.masks is not None
    assert truth.masks is not None
    group = truth.image[pairs.truth] * len(truth.categories) + truth.category[pairs.truth]
    order = np.argsort(group, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(group[order], prepend=-1)), len(order))
    number = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    rows, row_edges, row = _distinct(number, pairs.detection[order])
    columns, column_edges, column = _distinct(number, pairs.truth[order])
    masks, truth_masks = _set_apart(detections.masks, rows, row_edges), _set_apart(truth.masks, columns, column_edges)
    crowd = truth.crowd[columns]

    starts = np.flatnonzero(np.diff(row_edges[:-1] // _MASKS, prepend=-1))
    iou = np.empty(len(order))
    for first, last in pairwise([*starts.tolist(), len(edges) - 1]):
        own = slice(row_edges[first], row_edges[last])
        other = slice(column_edges[first], column_edges[last])
        table = coco_mask.iou(masks.chosen(own), truth_masks.chosen(other), crowd[other].tolist())
        inside = slice(edges[first], edges[last])
        iou[order[inside]] = table[row[inside] - own.start, column[inside] - other.start]
    return Overlapping(pairs.detection, pairs.truth, iou)


def _distinct(group: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """The different rows of every group, where each group's begin, and the place of every given row among them."""
    step = int(rows.max(initial=0)) + 1
    keys, inverse = np.unique(group * step + rows, return_inverse=True)
    edges = np.searchsorted(keys, np.arange(group.max(initial=-1) + 2) * step)
    return keys % step, edges, inverse


def _set_apart(masks: PackedRles, rows: Ints, edges: Ints) -> PackedRles:
    """The masks of these rows; those of different groups have different widths, wider than any image.

    Runs do not depend on the width, and pycocotools does not compare masks of different sizes: so it loses no time with
    pairs of different groups. Of one size, but with different numbers of pixels, it would never come back.
    """
    chosen = masks.take(rows)
    width = _WIDE + np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    return replace(chosen, size=np.stack([chosen.size[:, 0], width], axis=1))
