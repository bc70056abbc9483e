"""Ground truth and results as columns, in the order in which pycocotools meets them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.protocol import LARGEST_AREA
from dsctool.evaluation.sources import GroundTruth
from dsctool.rle import PackedRles
from dsctool.terms import Kind

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


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
    masks: PackedRles | None

    @cached_property
    def wanted(self) -> Bools:
        """``(m,)``: what detections should find: all but crowds, and areas that COCO ignores."""
        return ~self.crowd & (self.area >= 0) & (self.area <= LARGEST_AREA)

    @cached_property
    def mask_areas(self) -> Floats:
        """``(m,)``, of the masks themselves."""
        assert self.masks is not None
        return self.masks.areas(np.arange(len(self.masks)))

    @cached_property
    def mask_boxes(self) -> Floats:
        """``(m, 4)``: x, y, width, height around the masks."""
        assert self.masks is not None
        return self.masks.boxes(np.arange(len(self.masks)))

    @property
    def most_instances(self) -> int:
        """Of one category in one image, without crowds."""
        rows = ~self.crowd
        groups = self.image[rows] * max(len(self.categories), 1) + self.category[rows]
        return int(np.unique(groups, return_counts=True)[1].max(initial=0))

    @property
    def instances_per_image(self) -> Ints:
        """``(images,)``: annotations that are not crowds."""
        return np.bincount(self.image[~self.crowd], minlength=len(self.images))


@dataclass(frozen=True)
class DetectionTable:
    """Results by image, then category, then score: ``n`` rows.

    image, category: ``(n,)`` indices of the ground truth's. score: ``(n,)``. rank: ``(n,)``, place among the rows of
    one image and category, from 0. boxes: ``(n, 4)`` x, y, width, height. masks: compressed RLE per row, or None.
    area: ``(n,)`` by kind, as pycocotools has it.
    """

    image: Ints
    category: Ints
    score: Floats
    rank: Ints
    boxes: Floats
    masks: PackedRles | None
    area: dict[Kind, Floats]

    @cached_property
    def by_category(self) -> Ints:
        """``(n,)``: rows by category, then score, ties in the order of rows."""
        return np.argsort(self.category * len(self.score) + self.standing)

    @cached_property
    def standing(self) -> Ints:
        """``(n,)``: the place of every row when all are sorted by score, ties in the order of rows."""
        return _standing(self.score)


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


def detection_table(predictions: Predictions, truth: TruthTable, *, limit: int | None = None) -> DetectionTable:
    """The columns of results; boxes come from the masks where there are only these.

    limit: of detections per image and category, those of highest score; None for all.
    """
    image, category, score = predictions.image, predictions.category, predictions.score
    group = image * max(len(truth.categories), 1) + category
    order = np.argsort(group * len(score) + _standing(score))
    place = places(group[order])
    if limit is not None:
        order, place = order[place < limit], place[place < limit]
    area: dict[Kind, Floats] = {}
    masks = None if predictions.masks is None else predictions.masks.take(order)
    if predictions.areas is not None:
        area["segm"] = predictions.areas[order]
    if predictions.boxes is not None:
        boxes = predictions.boxes[order]
        area["bbox"] = boxes[:, 2] * boxes[:, 3]
    else:
        assert masks is not None
        boxes = masks.boxes(np.arange(len(masks)))
        area["bbox"] = area["segm"]  # pycocotools takes the masks' areas here too
    return DetectionTable(image[order], category[order], score[order], place, boxes, masks, area)


def _standing(score: Floats) -> Ints:
    standing = np.empty(len(score), dtype=np.int64)
    standing[np.argsort(-score, kind="stable")] = np.arange(len(score))
    return standing


def places(key: Ints) -> Ints:
    """Place of every element among its equals, from 0; ``key`` is sorted."""
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    return np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
