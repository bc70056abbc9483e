"""Objects that are annotated twice: of one image, one class and one shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.data.extents import Extents
from dsctool.rle import Ints

if TYPE_CHECKING:
    from dsctool.data.columns import Annotations

ALIKE = 0.9
"""Least IoU of two masks that are hardly of two objects."""
_ROUNDED = 0.01
"""How far the edges of one outline, written twice, may be apart, in pixels."""
_OFF = 0.05  # how far their edges may be apart, in widths or heights; at least a pixel


@dataclass(frozen=True)
class Duplicates:
    """Rows that repeat an earlier one, by row: exactly, nearly, and exactly but in another class."""

    exact: dict[int, int]
    near: dict[int, int]
    other_class: dict[int, int]


def duplicates(annotations: Annotations, sizes: Ints, extents: Extents) -> Duplicates:
    """Boxes are compared where there are no masks.

    annotations: without crowds. sizes: ``(m, 2)``, of their images. extents: of their shapes.
    """
    exact: dict[int, int] = {}
    near: dict[int, int] = {}
    other_class: dict[int, int] = {}
    masked, label = annotations.shapes.given, annotations.label
    pairs = _pairs(annotations, extents)
    pairs = pairs[np.lexsort(pairs.T)]
    drawn = np.unique(pairs[masked[pairs].all(axis=1)])
    rles = dict(zip(drawn.tolist(), annotations.shapes.rles(drawn, sizes[drawn]), strict=True)) if len(drawn) else {}
    for first, second in pairs.tolist():
        one_class = label[first] == label[second]
        if first in rles and second in rles:
            a, b = rles[first], rles[second]
            if a["counts"] == b["counts"]:
                (exact if one_class else other_class).setdefault(second, first)
            elif one_class and second not in exact and coco_mask.iou([a], [b], [0])[0, 0] >= ALIKE:
                near.setdefault(second, first)
        elif not masked[first] and not masked[second] and (annotations.box[first] == annotations.box[second]).all():
            (exact if one_class else other_class).setdefault(second, first)
    near = {row: first for row, first in near.items() if row not in exact}
    return Duplicates(exact, near, {row: first for row, first in other_class.items() if row not in exact})


def _pairs(annotations: Annotations, extents: Extents) -> Ints:
    """``(p, 2)``: rows of one image whose four edges are close, or, of two classes, equal; the earlier one first."""
    start, extent = annotations.box[:, :2], annotations.box[:, 2:]
    boxes = np.concatenate([start, start + extent], axis=1)
    corners = np.where(np.isnan(extents.corners), boxes, extents.corners)
    order = np.lexsort((corners[:, 0], annotations.image))
    corners, image, label = corners[order], annotations.image[order], annotations.label[order]
    slack = np.tile(np.maximum(_OFF * (corners[:, 2:] - corners[:, :2]), 1), 2)
    found = [np.zeros((0, 2), dtype=np.int64)]
    first = np.arange(len(order))
    for shift in count(1):  # neighbours in the order of x, as long as any are near
        first = first[first + shift < len(order)]
        second = first + shift
        near = image[first] == image[second]
        near &= corners[second, 0] - corners[first, 0] <= slack[first, 0]
        first, second = first[near], second[near]
        if not len(first):
            break
        least = np.where((label[first] == label[second])[:, None], slack[first], _ROUNDED)
        close = (np.abs(corners[first] - corners[second]) <= least).all(axis=1)
        found.append(np.sort(np.stack([order[first[close]], order[second[close]]], axis=1), axis=1))
    return np.concatenate(found)
