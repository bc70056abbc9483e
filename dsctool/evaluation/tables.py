"""Ground truth and results as columns, in the order in which pycocotools meets them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.records import Rle
from dsctool.evaluation.sources import GroundTruth, GroundTruthSource, Predictions, check_truth_masks, load_ground_truth
from dsctool.structures import Kind

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
    masks: list[Rle] | None

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
    masks: list[Rle] | None
    outside: dict[Kind, Bools]


def open_truth(source: GroundTruthSource) -> tuple[GroundTruth, TruthTable]:
    """Ground truth and its columns; ``DataError`` names the file and the annotation."""
    truth = load_ground_truth(source)
    if truth.has_masks:
        check_truth_masks(truth)
    return truth, truth_table(truth)


def truth_table(truth: GroundTruth) -> TruthTable:
    """The columns of ground truth, whose masks have been checked. Ids are sorted as pycocotools sorts them."""
    images, categories = _sorted(truth.images), _sorted(truth.categories)
    image_index, category_index = _index(images), _index(categories)
    known = [
        entry
        for entry in truth.annotations
        if entry["image_id"] in image_index and entry["category_id"] in category_index
    ]
    image = np.asarray([image_index[entry["image_id"]] for entry in known], dtype=np.int64)
    category = np.asarray([category_index[entry["category_id"]] for entry in known], dtype=np.int64)
    order = np.lexsort((category, image))
    entries = [known[row] for row in order]
    return TruthTable(
        name=truth.name,
        images=images,
        categories=categories,
        names=tuple(str(truth.categories[category].get("name", category)) for category in categories),
        ids=tuple(entry["id"] for entry in entries),
        image=image[order],
        category=category[order],
        crowd=np.asarray([bool(entry["iscrowd"]) for entry in entries], dtype=bool),
        area=np.asarray([entry["area"] for entry in entries], dtype=np.float64),
        counted=np.asarray([entry["id"] != 0 for entry in entries], dtype=bool),
        boxes=_boxes([entry["bbox"] for entry in entries]),
        masks=[entry["segmentation"] for entry in entries] if truth.has_masks else None,
    )


def detection_table(predictions: Predictions, truth: TruthTable, *, limited: bool = True) -> DetectionTable:
    """The columns of results; boxes come from the masks where there are only these. limited: as COCO limits them."""
    results = predictions.results
    image_index, category_index = _index(truth.images), _index(truth.categories)
    image = np.asarray([image_index[result["image_id"]] for result in results], dtype=np.int64)
    category = np.asarray([category_index[result["category_id"]] for result in results], dtype=np.int64)
    score = np.asarray([result["score"] for result in results], dtype=np.float64)
    order = np.lexsort((-score, category, image))
    if limited:
        order = order[_rank(image[order] * max(len(truth.categories), 1) + category[order]) < PER_IMAGE]
    with_masks = predictions.has_masks or not results
    masks = [results[row]["segmentation"] for row in order] if with_masks else None
    outside: dict[Kind, Bools] = {}
    if masks is not None:
        outside["segm"] = _outside(_mask_areas(masks))
    if predictions.has_boxes or not predictions.has_masks:
        boxes = _boxes([results[row]["bbox"] for row in order])
        outside["bbox"] = _outside(boxes[:, 2] * boxes[:, 3])
    else:
        boxes = np.asarray(coco_mask.toBbox(masks), dtype=np.float64).reshape(-1, 4)
        outside["bbox"] = outside["segm"]  # pycocotools takes the masks' areas here too
    return DetectionTable(image[order], category[order], score[order], boxes, masks, outside)


def _sorted(ids: Iterable[Hashable]) -> tuple[Hashable, ...]:
    return tuple(sorted(ids))  # type: ignore[type-var]


def _index(ids: Sequence[Hashable]) -> dict[Hashable, int]:
    return {value: index for index, value in enumerate(ids)}


def _boxes(values: list[list[float]]) -> Floats:
    return np.asarray(values, dtype=np.float64).reshape(-1, 4)


def _outside(area: Floats) -> Bools:
    return (area < 0) | (area > _LARGEST_AREA)


def _mask_areas(masks: list[Rle]) -> Floats:
    """Areas where they may matter: a mask of an image with few enough pixels cannot be too large."""
    pixels = np.asarray([float(mask["size"][0]) * float(mask["size"][1]) for mask in masks], dtype=np.float64)
    for row in np.flatnonzero(pixels > _LARGEST_AREA):
        pixels[row] = float(coco_mask.area(masks[row]))
    return pixels


def _rank(key: Ints) -> Ints:
    """Place of every element among its equals; ``key`` is sorted."""
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    return np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
