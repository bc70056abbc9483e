"""What four numbers of a box, or the points of a mask, may mean in other tools than COCO's.

Everything here is of ``(m, 4)`` numbers as written and of ``(m, 2)`` image sizes, height and width; readings give
corners x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsctool.data.shapes import Floats
from dsctool.rle import Ints

Reading = Callable[[Floats, Ints], Floats]


def corners_of(box: Floats) -> Floats:
    """Of x, y, width, height, as COCO has it."""
    return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)


def sides_of(size: Ints) -> Floats:
    """Width, height, width, height."""
    return np.tile(size[:, ::-1], 2).astype(np.float64)


def cut_at(corners: Floats, size: Ints) -> Floats:
    """What of them lies in their images."""
    return np.clip(corners, 0, sides_of(size))


def iou(a: Floats, b: Floats) -> Floats:
    """``(m,)`` of corners ``(m, 4)``; 0 where one has no area."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
        first, second = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (a, b))
        found: Floats = np.nan_to_num(shared / (first + second - shared))
    return found


def centred(box: Floats) -> Floats:
    """Of centre x, centre y, width, height."""
    half = box[:, 2:] / 2
    return np.concatenate([box[:, :2] - half, box[:, :2] + half], axis=1)


def _turned(corners: Floats) -> Floats:
    return corners[:, [1, 0, 3, 2]]


def _upside_down(corners: Floats, size: Ints) -> Floats:
    turned = corners[:, [0, 3, 2, 1]].copy()
    turned[:, 1::2] = size[:, :1] - turned[:, 1::2]
    return turned


READINGS: dict[str, Reading] = {
    "x1, y1, x2, y2 (corners)": lambda box, size: box,
    "centre x, centre y, width, height": lambda box, size: centred(box),
    "y, x, height, width (or the masks like y, x)": lambda box, size: _turned(corners_of(box)),
    "y1, x1, y2, x2 (corners)": lambda box, size: _turned(box),
    "x1, x2, y1, y2": lambda box, size: box[:, [0, 2, 1, 3]],
    "x, y, width, height with y from the bottom (or the masks are upside down)": lambda box, size: _upside_down(
        corners_of(box), size
    ),
    "normalised x, y, width, height (from 0 to 1)": lambda box, size: corners_of(box) * sides_of(size),
    "normalised centres and sizes (from 0 to 1)": lambda box, size: centred(box) * sides_of(size),
    "normalised corners (from 0 to 1)": lambda box, size: box * sides_of(size),
    "percentages x, y, width, height": lambda box, size: corners_of(box) * sides_of(size) / 100,
    "percentages of centres and sizes": lambda box, size: centred(box) * sides_of(size) / 100,
    "percentages of corners": lambda box, size: box * sides_of(size) / 100,
}
"""Of boxes, by what they look like then."""
MASK_READINGS: dict[str, Reading] = {
    "y, x instead of x, y": lambda corners, size: _turned(corners),
    "normalised points (from 0 to 1)": lambda corners, size: corners * sides_of(size),
    "points in percent": lambda corners, size: corners * sides_of(size) / 100,
}
"""Of the corners of what masks span."""
