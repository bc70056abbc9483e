"""Where the objects of a generated scene lie, and which hides which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsctool.data.synthetic.figures import Figure, draw_figure
from dsctool.terms import Size

SMALLEST_PX = 20
"""Objects are never drawn for a smaller box than a square of this side."""

SIZES = (0.105, 0.54)
"""Of the smallest and the largest objects, as shares of the image's shorter side."""

_CANDIDATES = 48  # places tried for an object
_COVER = 1.25  # the boxes of all objects, as a share of the image
_GROUP_COVER = 0.6  # the boxes of a group, unless it is of two
_GROUPS_TOUCH = 0.35  # share of the huddling groups that begin on another one
_INSIDE = 0.7  # of an object's box, at least
_APART = 0.02  # largest IoU of two boxes that do not huddle

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """A figure with its window's top left corner, in pixels, which may lie outside the image."""

    figure: Figure
    top: int
    left: int


def arrange(
    rng: np.random.Generator, size: Size, huddle: float, labels: Sequence[int], sizes: tuple[float, float]
) -> list[Placed]:
    """Groups of one class of ``labels`` each, about equal in size within a group; from the bottom to the top.

    An object joins another one of its group, so that their boxes overlap, with a probability of ``huddle``;
    else it lies where it is alone, or is left out where there is no such place. Groups of large objects lie below,
    and within a group what is lower in the picture is in front. sizes: as :data:`SIZES`.
    """
    placed: list[tuple[float, Placed]] = []
    boxes = np.zeros((0, 4))
    budget = _COVER * size[0] * size[1]
    for length, label, count in _groups(rng, size, labels, sizes):
        level = -math.log(length) + float(rng.normal(0, 0.25))
        angle, start = float(rng.uniform(0, 2 * math.pi)), len(boxes)
        for _ in range(count):
            figure = draw_figure(rng, label, length * float(rng.uniform(0.85, 1.15)), angle + float(rng.normal(0, 0.4)))
            if budget < figure.coverage.size:
                break
            corner = _place(rng, size, figure, boxes, start, huddle)
            if corner is None:
                continue
            budget -= figure.coverage.size
            box = _boxes(np.array([corner]), figure)
            boxes = np.concatenate([boxes, box])
            placed.append((level + 1e-3 * float(box[0, 3]) / size[0], Placed(figure, int(corner[1]), int(corner[0]))))
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


def _groups(
    rng: np.random.Generator, size: Size, labels: Sequence[int], sizes: tuple[float, float]
) -> list[tuple[float, int, int]]:
    """Size in pixels, class and number of members, the largest first: a scene has something of every size."""
    count = int(rng.integers(4, 7))
    steps = (np.arange(count) + rng.uniform(0, 1, count)) / count
    low, high = (share * min(size) for share in sizes)
    low = max(low, SMALLEST_PX)
    groups = []
    for step in sorted((steps**1.2).tolist(), reverse=True):
        length = low * (max(high / low, 1.0)) ** step
        most = max(2, min(6, int(_GROUP_COVER * size[0] * size[1] / length**2)))
        groups.append((length, labels[int(rng.integers(len(labels)))], int(rng.integers(2, most + 1))))
    return groups


def _place(
    rng: np.random.Generator, size: Size, figure: Figure, boxes: Boxes, start: int, huddle: float
) -> NDArray[np.int64] | None:
    """``(x, y)`` of the window's corner; ``boxes[start:]`` are the group's."""
    height, width = figure.coverage.shape
    joins = float(rng.random()) < huddle
    target = float(rng.uniform(0.33, 0.62))
    if joins and len(boxes) > start:
        anchor = boxes[int(rng.integers(start, len(boxes)))]
        middle = np.array([anchor[0] + anchor[2] - width, anchor[1] + anchor[3] - height]) / 2
        spread = np.array([width, height]) * rng.normal(0, 0.3, (_CANDIDATES, 2))
        corners = _inside(middle + spread, figure, size)
        overlap = _iou(_boxes(corners, figure), boxes)
        crowded = np.maximum(overlap - 0.66, 0).sum(axis=1) + 0.15 * overlap[:, :start].sum(axis=1)
        off = np.abs(overlap[:, start:].max(axis=1) - target) + 4 * crowded
        return corners[int(off.argmin())]
    corners = rng.uniform(0, 1, (_CANDIDATES, 2)) * (size[1] - 0.6 * width, size[0] - 0.6 * height)
    corners = _inside(corners - np.array([0.2 * width, 0.2 * height]), figure, size)
    if not len(boxes):
        return corners[0]
    overlap = _iou(_boxes(corners, figure), boxes).max(axis=1)
    if joins and rng.random() < _GROUPS_TOUCH:
        return corners[int(np.abs(overlap - 0.6 * target).argmin())]
    best = int(overlap.argmin())
    return corners[best] if joins or overlap[best] <= _APART else None


def _inside(corners: Boxes, figure: Figure, size: Size) -> NDArray[np.int64]:
    """Moved so that enough of the box is in the image."""
    height, width = figure.coverage.shape
    out = (1 - _INSIDE) / 2
    low = np.array([-out * width, -out * height])
    high = np.array([size[1] - (1 - out) * width, size[0] - (1 - out) * height])
    return np.rint(np.clip(corners, low, np.maximum(high, low))).astype(np.int64)


def _boxes(corners: NDArray[np.int64], figure: Figure) -> Boxes:
    height, width = figure.coverage.shape
    return np.concatenate([corners, corners + np.array([width, height])], axis=1).astype(np.float64)


def _iou(first: Boxes, second: Boxes) -> Boxes:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)
