"""Anchors that fit the boxes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsctool.rle import Floats

STRIDES = (4, 8, 16, 32, 64)
"""Of the pyramid's levels, in pixels."""
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
WORTH = 0.02
"""Gain of mean IoU for which other anchors than the configuration's are proposed."""
_MOST = 20_000
"""Boxes that are looked at."""


@dataclass(frozen=True)
class Anchors:
    """scale: side of the square anchor in strides. ratios: height over width. iou: mean over boxes of the best one."""

    scale: float
    ratios: tuple[float, ...]
    iou: float


def fit_anchors(boxes: Floats, scale: float, ratios: Sequence[float]) -> Anchors:
    """The anchors to take: those given, unless others are worth it; no more ratios than are.

    boxes: ``(n, 2)`` width and height in pixels of the canvas. The same number of ratios costs nothing more.
    """
    boxes = boxes[:: max(1, len(boxes) // _MOST)]
    given = Anchors(scale, tuple(ratios), mean_best_iou(boxes, scale, ratios))
    if not len(boxes):
        return given
    log_ratio = np.log(boxes[:, 1] / boxes[:, 0])
    best = given
    for places in (None, (1 / 6, 1 / 2, 5 / 6), (0.1, 0.3, 0.5, 0.7, 0.9)):
        if places is None:
            shapes = tuple(ratios)
        else:
            shapes = tuple(float(f"{ratio:.2g}") for ratio in np.exp(np.quantile(log_ratio, places)))
        if len(set(shapes)) < len(shapes):
            continue
        for each in SCALES:
            found = Anchors(each, shapes, mean_best_iou(boxes, each, shapes))
            if found.iou > best.iou + (WORTH if best is given or len(shapes) > len(best.ratios) else 0):
                best = found
    return best


def mean_best_iou(boxes: Floats, scale: float, ratios: Sequence[float]) -> float:
    """Mean over boxes of the IoU with the best anchor, a quarter of a stride away in both directions, as on average."""
    best = np.zeros(len(boxes))
    for stride in STRIDES:
        for ratio in ratios:
            anchor = stride * scale * np.array([ratio**-0.5, ratio**0.5])
            shared = np.minimum(np.minimum(boxes, anchor), (boxes + anchor) / 2 - stride / 4).clip(min=0).prod(axis=1)
            union = boxes.prod(axis=1) + anchor.prod() - shared
            best = np.maximum(best, shared / union)
    return float(best.mean()) if len(boxes) else 0.0
