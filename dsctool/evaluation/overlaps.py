"""How strongly the instances of an image overlap each other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.errors import DataError
from dsctool.evaluation.tables import Floats, Ints, TruthTable

Overlap = Literal["box", "mask", "iomin"]
"""IoU of boxes, IoU of masks, or the intersection of masks over the smaller one."""


def largest_overlaps(truth: TruthTable, overlap: Overlap, *, same_class: bool) -> Floats:
    """``(m,)``: of every annotation, with another instance of its image; NaN for crowds.

    same_class: only instances of one category are neighbours. Raises :class:`DataError` where there are no masks and
    ``overlap`` needs them.
    """
    if overlap != "box" and truth.masks is None:
        raise DataError(f"{truth.name}: has no segmentations, which overlap {overlap!r} needs; use 'box'")
    largest = np.full(len(truth.image), np.nan)
    largest[~truth.crowd] = 0.0
    for rows in _neighbourhoods(truth, same_class):
        if len(rows) > 1:
            shapes = truth.boxes[rows] if overlap == "box" or truth.masks is None else truth.masks.chosen(rows)
            # Against a crowd pycocotools divides by the first one's area: this gives the smaller one's.
            shares = np.asarray(coco_mask.iou(shapes, shapes, [overlap == "iomin"] * len(rows)))
            np.fill_diagonal(shares, 0.0)
            largest[rows] = np.maximum(shares, shares.T).max(axis=1)
    return largest


def _neighbourhoods(truth: TruthTable, same_class: bool) -> list[Ints]:
    """Rows of the instances that may overlap, image by image."""
    instances = np.flatnonzero(~truth.crowd)
    key = truth.image[instances]
    if same_class:
        key = key * len(truth.categories) + truth.category[instances]
    return np.split(instances, np.flatnonzero(np.diff(key)) + 1)
