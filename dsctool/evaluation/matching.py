"""Detections matched to ground truth exactly as pycocotools does it, at all IoU thresholds at once.

pycocotools lets the detections of an image and category choose in turn, by descending score, and for every threshold
anew: the free annotation of highest IoU, of ignored ones only where no other is left. What a detection prefers does not
depend on the threshold, and only pairs of at least the lowest threshold matter. So the few such pairs are listed once,
and thresholds are the bits of an integer: bit ``t`` stands for ``IOU_THRESHOLDS[t]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.terms import Kind

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's, computed as pycocotools computes them."""
ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1


@dataclass(frozen=True)
class Pairs:
    """Detections and annotations of one image and category whose IoU reaches the lowest threshold: ``p`` rows.

    detection, truth: ``(p,)`` rows of the tables, ascending. iou: ``(p,)``; with a crowd, over the detection's area.
    bits: ``(p,)``, the thresholds that the IoU reaches.
    """

    detection: Ints
    truth: Ints
    iou: Floats
    bits: Ints


@dataclass(frozen=True)
class Matches:
    """What became of every detection, as bits per threshold.

    found: ``(n,)``, true positives. ignored: ``(n,)``, neither right nor wrong. All others are false positives.
    taken: ``(m,)``, of every annotation that is no crowd: where some detection matched it.
    """

    found: Ints
    ignored: Ints
    taken: Ints


def find_pairs(truth: TruthTable, detections: DetectionTable, kind: Kind) -> Pairs:
    """The pairs that can match; IoUs are pycocotools'."""
    found: list[tuple[Ints, Ints, Floats]] = []
    masks, truth_masks = detections.masks or [], truth.masks or []
    for first, last, truth_first, truth_last in _shared_groups(truth, detections):
        crowd = truth.crowd[truth_first:truth_last].tolist()
        if kind == "bbox":
            iou = coco_mask.iou(detections.boxes[first:last], truth.boxes[truth_first:truth_last], crowd)
        else:
            iou = coco_mask.iou(masks[first:last], truth_masks[truth_first:truth_last], crowd)
        rows, columns = np.nonzero(iou >= IOU_THRESHOLDS[0])
        if len(rows):
            found.append((rows + first, columns + truth_first, iou[rows, columns]))
    nothing = np.zeros(0, dtype=np.int64)
    detection, annotation = (np.concatenate([nothing, *(each[side] for each in found)]) for side in (0, 1))
    overlap: Floats = np.concatenate([np.zeros(0), *(each[2] for each in found)])
    reached = np.searchsorted(IOU_THRESHOLDS, overlap, side="right")
    return Pairs(detection, annotation, overlap, (np.int64(1) << reached) - 1)


def _shared_groups(truth: TruthTable, detections: DetectionTable) -> NDArray[np.int64]:
    """``(groups, 4)``: rows ``[first, last)`` of detections, then of annotations, of one image and category."""
    categories = len(truth.categories)
    keys = detections.image * categories + detections.category, truth.image * categories + truth.category
    shared = np.intersect1d(*keys)
    bounds = [np.searchsorted(key, shared, side=side) for key in keys for side in ("left", "right")]
    return np.stack(bounds, axis=1)


def match(pairs: Pairs, truth: TruthTable, detections: DetectionTable, kind: Kind, *, ignored: Bools) -> Matches:
    """One choice after the other; ``ignored`` ``(m,)`` are annotations that need not be found.

    Ignored annotations that are no crowd are matched once, by ordinary IoU. Detections that match nothing are ignored
    where their area is out of COCO's range.
    """
    order = np.lexsort((-pairs.truth, -pairs.iou, ignored[pairs.truth], pairs.detection))
    columns = (pairs.detection, pairs.truth, pairs.bits, ignored[pairs.truth], truth.crowd[pairs.truth])
    taken = [0] * len(truth.image)
    found = [0] * len(detections.image)
    dropped = [0] * len(detections.image)
    counted = truth.counted.tolist()
    current, open_bits = -1, 0
    for row, annotation, bits, ignore, crowd in zip(*(column[order].tolist() for column in columns), strict=True):
        if row != current:
            current, open_bits = row, ALL_BITS
        bits &= open_bits & ~taken[annotation]
        open_bits &= ~bits
        if not crowd:
            taken[annotation] |= bits
        if ignore:
            dropped[row] |= bits
        elif counted[annotation]:
            found[row] |= bits
    hits, left_out = np.asarray(found, dtype=np.int64), np.asarray(dropped, dtype=np.int64)
    left_out |= np.where(detections.outside[kind], ALL_BITS & ~hits, 0)
    return Matches(hits, left_out, np.asarray(taken, dtype=np.int64))
