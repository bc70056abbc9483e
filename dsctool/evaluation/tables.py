"""Ground truth and results as columns, in the order in which pycocotools meets them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth, GroundTruthSource, load_ground_truth
from dsctool.rle import Rle, calls
from dsctool.terms import Kind

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PER_IMAGE = 100
"""COCO looks at so many detections per image and category, the ones of highest score."""
_LARGEST_AREA = 1e5**2  # COCO's "all" areas end here; what is larger, or negative, is ignored


@dataclass(frozen=True)
class TruthTable:
    """Annotations of known images and categories, by image, then category, then as in the file: ``m`` rows.

    name: the file, for messages. images, categories: ids, ascending. names: of the categories. ids: of the annotations.
    image, category: ``(m,)`` indices of ``images`` and ``categories``. crowd: ``(m,)``. area: ``(m,)``, as the file has
    it. counted: ``(m,)``, False for id 0, whose matches COCO counts as misses. boxes: ``(m, 4)`` x, y, width, height.
    masks: as compressed RLE, or None where the ground truth has none.
    """

    name: str
    images: tuple[Hashable, ...]
    categories: tuple[Hashable, ...]
    names: tuple[str, ...]
    ids: tuple[int, ...]
    image: Ints
    category: Ints
    crowd: Bools
    area: Floats
    counted: Bools
    boxes: Floats
    masks: Sequence[Rle] | None

    @property
    def ignored(self) -> Bools:
        """``(m,)``: what no detection has to find: crowds, and areas that COCO ignores."""
        return self.crowd | _outside(self.area)

    @property
    def instances_per_image(self) -> Ints:
        """``(images,)``: annotations that are not crowds."""
        return np.bincount(self.image[~self.crowd], minlength=len(self.images))


@dataclass(frozen=True)
class DetectionTable:
    """Results by image, then category, then score, of each at most ``PER_IMAGE`` where COCO's limit holds: ``n`` rows.

    image, category: ``(n,)`` indices of the ground truth's. score: ``(n,)``. boxes: ``(n, 4)`` x, y, width, height.
    masks: compressed RLE per row, or None. outside: ``(n,)`` per kind, areas that COCO ignores.
    """

    image: Ints
    category: Ints
    score: Floats
    boxes: Floats
    masks: Sequence[Rle] | None
    outside: dict[Kind, Bools]


def open_truth(source: GroundTruthSource) -> tuple[GroundTruth, TruthTable]:
    """Ground truth and its columns; ``DataError`` names the file and the annotation."""
    truth = load_ground_truth(source)
    return truth, truth_table(truth)


def truth_table(truth: GroundTruth) -> TruthTable:
    """The columns of ground truth."""
    columns = truth.annotations
    order = np.lexsort((columns.label, columns.image))
    return TruthTable(
        name=truth.name,
        images=tuple(each.id for each in truth.images),
        categories=tuple(each.id for each in truth.categories),
        names=tuple(each.name for each in truth.categories),
        ids=tuple(columns.id[order].tolist()),
        image=columns.image[order],
        category=columns.label[order],
        crowd=columns.crowd[order],
        area=columns.area[order],
        counted=columns.id[order] != 0,
        boxes=columns.box[order],
        masks=truth.masks.take(order) if truth.has_masks else None,
    )


def detection_table(predictions: Predictions, truth: TruthTable, *, limited: bool = True) -> DetectionTable:
    """The columns of results; boxes come from the masks where there are only these. limited: as COCO limits them."""
    image, category, score = predictions.image, predictions.category, predictions.score
    order = np.lexsort((-score, category, image))
    if limited:
        order = order[_rank(image[order] * max(len(truth.categories), 1) + category[order]) < PER_IMAGE]
    masks = None if predictions.masks is None else predictions.masks.take(order)
    outside: dict[Kind, Bools] = {}
    if predictions.areas is not None:
        outside["segm"] = _outside(predictions.areas[order])
    if predictions.boxes is not None:
        boxes = predictions.boxes[order]
        outside["bbox"] = _outside(boxes[:, 2] * boxes[:, 3])
    else:
        assert masks is not None
        parts = [coco_mask.toBbox([masks[row] for row in range(len(masks))[part]]) for part in calls(len(masks))]
        boxes = np.concatenate([np.zeros((0, 4)), *parts])
        outside["bbox"] = outside["segm"]  # pycocotools takes the masks' areas here too
    return DetectionTable(image[order], category[order], score[order], boxes, masks, outside)


def _outside(area: Floats) -> Bools:
    return (area < 0) | (area > _LARGEST_AREA)


def _rank(key: Ints) -> Ints:
    """Place of every element among its equals; ``key`` is sorted."""
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    return np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
