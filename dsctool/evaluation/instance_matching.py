"""Instances of two annotations, or of two models, of the same images: which of them are the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dsctool.evaluation.pairing import overlapping
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth
from dsctool.evaluation.tables import DetectionTable, Floats, Ints, TruthTable
from dsctool.rle import PackedRles
from dsctool.terms import Kind

SAME_CLASS = 0.1
"""Between candidates of nearly the same IoU, one of the own class counts as so much more."""


@dataclass(frozen=True, eq=False)
class InstanceColumns:
    """``n`` instances. image, label: ``(n,)``, in numbers that both sides share. boxes: ``(n, 4)`` x, y, width, height.

    masks: of all of them, or None.
    """

    image: Ints
    label: Ints
    boxes: Floats
    masks: PackedRles | None

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of_truth(cls, truth: GroundTruth, image: Ints, label: Ints) -> Self:
        """image, label: ``(m,)``, of its annotations, as both sides count them."""
        return cls(image, label, truth.annotations.box, truth.masks if truth.has_masks else None)

    @classmethod
    def of_predictions(cls, found: Predictions, rows: Ints) -> Self:
        """Some results; boxes come from the masks where there are only these."""
        masks = None if found.masks is None else found.masks.take(rows)
        if found.boxes is not None:
            boxes = found.boxes[rows]
        else:
            assert masks is not None
            boxes = masks.boxes(np.arange(len(masks)))
        return cls(found.image[rows], found.category[rows], boxes, masks)


@dataclass(frozen=True)
class Matches:
    """Pairs of instances, one to one. ours, theirs: ``(p,)`` rows. iou: ``(p,)``, of masks, or else of boxes."""

    ours: Ints
    theirs: Ints
    iou: Floats


def match_instances(
    ours: InstanceColumns, theirs: InstanceColumns, *, at_least: float, same_class: bool = False
) -> Matches:
    """One to one, those that overlap most first; of masks where both sides have them.

    at_least: the IoU of a pair. same_class: pairs are of one class; else the class only decides between neighbours
    whose IoUs differ by less than :data:`SAME_CLASS`.
    """
    first, second = np.argsort(ours.image, kind="stable"), np.argsort(theirs.image, kind="stable")
    kind: Kind = "bbox" if ours.masks is None or theirs.masks is None else "segm"
    pairs = overlapping(
        _truth(ours, first),
        _detections(theirs, second),
        kind,
        among=np.ones(len(ours), dtype=bool),
        categories="same",  # of one for all: classes are compared below
        at_least=at_least,
    )
    left, right, iou = first[pairs.truth], second[pairs.detection], pairs.iou
    alike = ours.label[left] == theirs.label[right]
    kept = np.flatnonzero((iou >= at_least) & (alike | (not same_class)))
    order = kept[np.lexsort((right[kept], left[kept], -(iou[kept] + SAME_CLASS * alike[kept])))]
    taken: tuple[set[int], set[int]] = (set(), set())
    chosen = []
    for pair in order.tolist():
        one, other = int(left[pair]), int(right[pair])
        if one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
            chosen.append(pair)
    rows = np.asarray(chosen, dtype=np.int64)
    return Matches(left[rows], right[rows], iou[rows])


def _truth(columns: InstanceColumns, order: Ints) -> TruthTable:
    count = len(columns)
    return TruthTable(
        name="",
        images=(),
        categories=(0,),
        names=("",),
        ids=tuple(range(count)),
        image=columns.image[order],
        category=np.zeros(count, dtype=np.int64),
        crowd=np.zeros(count, dtype=bool),
        area=np.zeros(count),
        counted=np.ones(count, dtype=bool),
        boxes=columns.boxes[order],
        masks=None if columns.masks is None else columns.masks.take(order),
    )


def _detections(columns: InstanceColumns, order: Ints) -> DetectionTable:
    count = len(columns)
    boxes = columns.boxes[order]
    masks = None if columns.masks is None else columns.masks.take(order)
    area: dict[Kind, Floats] = {"bbox": boxes[:, 2] * boxes[:, 3]}
    if masks is not None:
        area["segm"] = masks.areas(np.arange(count))
    return DetectionTable(
        image=columns.image[order],
        category=np.zeros(count, dtype=np.int64),
        score=np.ones(count),
        rank=np.arange(count),
        boxes=boxes,
        masks=masks,
        area=area,
    )
