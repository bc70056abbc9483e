"""mmdet 1.x's conventions as slow definitions: one box, one pixel, one sample at a time.

Boxes are its own here, ``(x1, y1, x2, y2)`` with the last pixel in them: ``x2 - x1 + 1`` wide. :func:`half_open` and
:func:`inclusive` go between these and the project's. Nothing of what is tested is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Box = Sequence[float]
Array = NDArray[np.float64]


def half_open(boxes: Tensor) -> Tensor:
    """Of the project, from those of mmdet 1.x."""
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def inclusive(boxes: Tensor) -> Tensor:
    """Of mmdet 1.x, from those of the project."""
    return boxes - boxes.new_tensor([0, 0, 1, 1])


# --- boxes ------------------------------------------------------------------------------------------


def area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(width, 0) * max(height, 0)
    return both / (area(a) + area(b) - both)


def encode(box: Box, target: Box, stds: Box) -> list[float]:
    deltas = []
    for low, high in ((0, 2), (1, 3)):
        side, target_side = box[high] - box[low] + 1, target[high] - target[low] + 1
        deltas.append(((target[low] + target[high]) / 2 - (box[low] + box[high]) / 2) / side)
        deltas.append(math.log(target_side / side))
    return [delta / std for delta, std in zip((deltas[0], deltas[2], deltas[1], deltas[3]), stds, strict=True)]


def decode(box: Box, deltas: Box, stds: Box, size: tuple[int, int]) -> list[float]:
    """Clipped to an image of ``size`` (h, w)."""
    dx, dy, dw, dh = (delta * std for delta, std in zip(deltas, stds, strict=True))
    cut = math.log(1000 / 16)
    corners = []
    for low, high, shift, growth, extent in ((0, 2, dx, dw, size[1]), (1, 3, dy, dh, size[0])):
        side = box[high] - box[low] + 1
        grown = side * math.exp(min(max(growth, -cut), cut))
        centre = (box[low] + box[high]) / 2 + side * shift
        corners.append(min(max(centre - grown / 2 + 0.5, 0), extent - 1))
        corners.append(min(max(centre + grown / 2 - 0.5, 0), extent - 1))
    return [corners[0], corners[2], corners[1], corners[3]]


def flip(box: Box, width: int) -> list[float]:
    return [width - box[2] - 1, box[1], width - box[0] - 1, box[3]]


def factor(size: tuple[int, int], short: int, long: int) -> float:
    return min(long / max(size), short / min(size))


def resize(box: Box, size: tuple[int, int], short: int, long: int) -> list[float]:
    """In training, clipped to the resized image."""
    by = factor(size, short, long)
    height, width = (int(side * by + 0.5) for side in size)
    limits = (width - 1, height - 1, width - 1, height - 1)
    return [min(max(side * by, 0), limit) for side, limit in zip(box, limits, strict=True)]


def anchors(size: tuple[int, int], stride: int, scale: float, ratios: Box) -> list[list[float]]:
    """Of a level of ``size`` (h, w): row by row, ratios innermost; NumPy rounds half to even, as the original."""
    found = []
    for row in range(size[0]):
        for column in range(size[1]):
            for ratio in ratios:
                width, height = stride / math.sqrt(ratio) * scale, stride * math.sqrt(ratio) * scale
                centre = 0.5 * (stride - 1)
                sides = (centre - 0.5 * (width - 1), centre - 0.5 * (height - 1))
                ends = (centre + 0.5 * (width - 1), centre + 0.5 * (height - 1))
                x1, y1, x2, y2 = (float(np.round(side)) for side in (*sides, *ends))
                found.append([x1 + column * stride, y1 + row * stride, x2 + column * stride, y2 + row * stride])
    return found


def is_inside(anchor: Box, size: tuple[int, int]) -> bool:
    return anchor[0] >= 0 and anchor[1] >= 0 and anchor[2] < size[1] and anchor[3] < size[0]


def level(box: Box, levels: int = 4) -> int:
    return min(max(math.floor(math.log2(math.sqrt(area(box)) / 56 + 1e-6)), 0), levels - 1)


def assign(boxes: Sequence[Box], gts: Sequence[Box], positive: float, negative: float, least: float) -> list[int]:
    """The instance of each box, -1: background, -2: ignored. Matches of low quality count."""
    if not gts:
        return [-1] * len(boxes)
    table = [[iou(gt, box) for box in boxes] for gt in gts]
    found = []
    for column in range(len(boxes)):
        overlaps = [row[column] for row in table]
        best = max(overlaps)
        found.append(overlaps.index(best) if best >= positive else -1 if best < negative else -2)
    for gt, row in enumerate(table):
        if max(row) >= least:
            found = [gt if abs(overlap - max(row)) < 1e-9 else old for old, overlap in zip(found, row, strict=True)]
    return found


# --- suppression ------------------------------------------------------------------------------------


def nms(boxes: Sequence[Box], scores: Box, threshold: float) -> list[int]:
    """Rows that stay, the best first."""
    left = sorted(range(len(boxes)), key=lambda row: -scores[row])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [row for row in left if iou(boxes[best], boxes[row]) <= threshold]
    return kept


def soft_nms(boxes: Sequence[Box], scores: Box, threshold: float, least: float = 1e-3) -> list[tuple[int, float]]:
    """Linear: rows and what is left of their scores."""
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=lambda row: left[row])
        kept.append((best, left.pop(best)))
        for row in list(left):
            overlap = iou(boxes[best], boxes[row])
            if overlap > threshold:
                left[row] *= 1 - overlap
                if left[row] < least:
                    del left[row]
    return kept


def by_class(
    suppress: Callable[[Sequence[Box], Box], list[tuple[int, float]]], boxes: Array, scores: Array, least: float
) -> list[tuple[float, int, int]]:
    """(score, class, row) of all classes, the best first, from boxes ``(R, 4)`` and scores ``(R, K)``."""
    found = []
    for label in range(scores.shape[1]):
        rows = [row for row in range(len(boxes)) if scores[row, label] > least]
        kept = suppress([boxes[row].tolist() for row in rows], [float(scores[row, label]) for row in rows])
        found += [(score, label, rows[place]) for place, score in kept]
    return sorted(found, key=lambda each: -each[0])[:100]


def proposals(
    levels: Sequence[tuple[Sequence[Box], Box]], *, best: int, threshold: float
) -> tuple[list[list[float]], list[float]]:
    """Of (boxes, scores) of every level, decoded: the best ``best`` of each after NMS, of them the best ``best``."""
    found = []
    for boxes, scores in levels:
        order = sorted(range(len(boxes)), key=lambda row: -scores[row])[:best]
        kept = nms([boxes[row] for row in order], [scores[row] for row in order], threshold)[:best]
        found += [(scores[order[row]], list(boxes[order[row]])) for row in kept]
    found.sort(key=lambda each: -each[0])
    return [box for _, box in found[:best]], [score for score, _ in found[:best]]


# --- RoIAlign ---------------------------------------------------------------------------------------


def sample(feature: Array, y: float, x: float) -> Array:
    """``feature (C, h, w)`` at a place, cell i centred at i: ``(C,)``."""
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(feature))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * feature[:, top, left] + across * feature[:, top, right]
    lower = (1 - across) * feature[:, bottom, left] + across * feature[:, bottom, right]
    return (1 - down) * upper + down * lower


def roi_align(feature: Array, box: Box, bins: int, stride: float) -> Array:
    """``(C, bins, bins)``, two by two samples a bin."""
    left, top = box[0] / stride, box[1] / stride
    width, height = max((box[2] + 1) / stride - left, 0) / bins, max((box[3] + 1) / stride - top, 0) / bins
    pooled = np.zeros((len(feature), bins, bins))
    for row in range(bins):
        for column in range(bins):
            for down in (0.25, 0.75):
                for across in (0.25, 0.75):
                    place = sample(feature, top + (row + down) * height, left + (column + across) * width)
                    pooled[:, row, column] += place / 4
    return pooled


# --- masks ------------------------------------------------------------------------------------------


def _along(length: int, target: int, *, settled: bool) -> list[tuple[int, int, float]]:
    """OpenCV's bilinear interpolation of an axis: for each target cell two source cells and the share of the second.

    settled: beyond the border, where both are the same cell, the second has no share. OpenCV does so along rows only.
    """
    found = []
    for cell in range(target):
        place = (cell + 0.5) * (length / target) - 0.5
        low = math.floor(place)
        share = place - low
        first, second = min(max(low, 0), length - 1), min(max(low + 1, 0), length - 1)
        found.append((first, second, 0.0 if settled and first == second else share))
    return found


def resize_floats(image: Array, height: int, width: int) -> Array:
    """``cv2.resize(image, (width, height))`` of floats."""
    found = np.zeros((height, width))
    for row, (top, bottom, down) in enumerate(_along(image.shape[0], height, settled=False)):
        for column, (left, right, across) in enumerate(_along(image.shape[1], width, settled=True)):
            upper = (1 - across) * image[top, left] + across * image[top, right]
            lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
            found[row, column] = (1 - down) * upper + down * lower
    return found


def resize_bytes(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The same of bytes: weights of 11 bits; what a row adds is cut off to quarters, the sum is rounded half up."""
    found = np.zeros((height, width), dtype=np.uint8)
    for row, (top, bottom, down) in enumerate(_along(image.shape[0], height, settled=False)):
        for column, (left, right, across) in enumerate(_along(image.shape[1], width, settled=True)):
            rows = (round((1 - down) * 2048), round(down * 2048))
            columns = (round((1 - across) * 2048), round(across * 2048))
            upper = int(image[top, left]) * columns[0] + int(image[top, right]) * columns[1]
            lower = int(image[bottom, left]) * columns[0] + int(image[bottom, right]) * columns[1]
            quarters = ((upper >> 4) * rows[0] >> 16) + ((lower >> 4) * rows[1] >> 16)
            found[row, column] = (quarters + 2) >> 2
    return found


def paste(probs: Array, box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``probs (s, s)`` in an image of ``size`` (h, w)."""
    x1, y1, x2, y2 = (int(side) for side in box)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    found = np.zeros(size, dtype=bool)
    found[y1 : y1 + height, x1 : x1 + width] = (resize_floats(probs, height, width) > 0.5)[
        : size[0] - y1, : size[1] - x1
    ]
    return found


def mask_target(mask: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    x1, y1, x2, y2 = (int(side) for side in box)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    return resize_bytes(mask[y1 : y1 + height, x1 : x1 + width], size, size)
