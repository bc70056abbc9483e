"""Whether the box, the area and the mask of an annotation agree, and what they look like where they do not.

Nothing is wrong with any of these values alone, so only all annotations of a file together tell: boxes written as
x1, y1, x2, y2, areas of the image, coordinates from 0 to 1. Crowds are left alone: nothing is learnt of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.data.extents import Extents
from dsctool.data.segmentations import Problem
from dsctool.data.shapes import Floats, Shapes
from dsctool.rle import Bools, Ints

SHARED = 0.5
"""Least IoU of a box and of what its mask spans."""
SLACK = 2.0
"""Pixels that a box may be off all the same: tools round."""
FITS = 0.8
"""Least IoU at which a way to read boxes explains them."""
BOX, MASK = "box and mask", "mask and box"
"""Kinds of the problem of a box that does not fit its mask: the mask is right, or it may be the mask that is not."""
FEW, SHARE = 3, 0.3
"""So many boxes that fit when they are read otherwise, and such a share of all, are a fault of the file."""
MANY_BOXES = 10
"""So many boxes within 100 pixels of the corner are no chance."""
AREA_RATIO, AREA_SLACK = 2.0, 16.0
"""How far an area may be from the mask's: by this factor, or by so many square pixels."""
NORMALISED = "normalised"
"""Kind of the problem of coordinates from 0 to 1."""
SMALLEST = 16
"""Pixels: in an image with a shorter side, coordinates from 0 to 1 prove nothing."""
_LOOKED_AT = 500  # annotations that are drawn, or compared with others of their image, for a better word


@dataclass(frozen=True)
class Columns:
    """Boxes, areas and masks of ``m`` annotations.

    box: ``(m, 4)``, x, y, width, height as written. area: ``(m,)``. image: ``(m,)``. size: ``(m, 2)``, of the images.
    faulty: ``(m,)``: those whose boxes are a fault already. extents: of the ``shapes``.
    """

    box: Floats
    area: Floats
    image: Ints
    size: Ints
    faulty: Bools
    shapes: Shapes
    extents: Extents


@dataclass(frozen=True)
class Disagreements:
    """whole: problems of the file. each: ``(row, problem)`` of annotations, in their order."""

    whole: list[Problem]
    each: list[tuple[int, Problem]]


def disagreements(columns: Columns) -> Disagreements:
    """What does not agree in annotations that are no crowds."""
    whole: list[Problem] = []
    each: list[tuple[int, Problem]] = []
    normalised = _normalised(columns)
    if (problem := _normalised_file(columns, normalised)) is not None:
        whole.append(problem)
    else:
        whole += [*_percent(columns), *_corners_alone(columns)]
        message = "bbox lies within a pixel of the corner: are its coordinates normalised (from 0 to 1)?"
        each += [(int(row), Problem(NORMALISED, message, "warning")) for row in np.flatnonzero(normalised)]
        found = _boxes(columns)
        whole += found.whole
        each += found.each
        each += _areas(columns)
    each.sort(key=lambda item: item[0])
    return Disagreements(whole, each)


# --- coordinates from 0 to 1 ------------------------------------------------------------------------


def _normalised(columns: Columns) -> Bools:
    box = columns.box
    with np.errstate(invalid="ignore"):
        within = (box >= 0).all(axis=1) & (box[:, :2] + box[:, 2:] <= 1 + 1e-6).all(axis=1)
        proper = (box[:, 2:] > 0).all(axis=1) & (box[:, 2:] < 1).any(axis=1)
    return within & proper & (columns.size.min(axis=1, initial=2**31) >= SMALLEST)


def _normalised_file(columns: Columns, normalised: Bools) -> Problem | None:
    count = int(np.count_nonzero(normalised))
    if count == 0 or 2 * count < len(normalised):
        return None
    message = (
        f"the coordinates of {count} of {len(normalised)} annotations look normalised (from 0 to 1), and COCO's are "
        "pixels: multiply x by the width and y by the height of the image"
    )
    return Problem(NORMALISED, message)


def _percent(columns: Columns) -> Iterator[Problem]:
    """Coordinates from 0 to 100: all lie in that corner of far larger images, and fill it."""
    ends = _corners(columns.box)[:, 2:]
    if len(ends) < MANY_BOXES or columns.size.min() <= 2 * 100:
        return
    if (ends <= 100 + 1e-6).all() and (ends.max(axis=0) >= 90).all():
        message = (
            "all boxes lie within 100 pixels of the corner of larger images: if the coordinates are percentages, "
            "multiply x by the width and y by the height of the image, and divide by 100"
        )
        yield Problem("percent", message, "warning")


# --- boxes ------------------------------------------------------------------------------------------


def _boxes(columns: Columns) -> Disagreements:
    """Boxes that do not fit their masks."""
    with_both = ~np.isnan(columns.extents.area)
    cut, spanned = _cut(_corners(columns.box), columns.size), _cut(columns.extents.corners, columns.size)
    with_both &= (spanned[:, 2:] > spanned[:, :2]).all(axis=1) & (columns.box[:, 2:] > 0).all(axis=1)
    off = with_both & _apart(cut, spanned)
    rows = np.flatnonzero(off | (with_both & columns.faulty))
    if not len(rows):
        return Disagreements([], [])
    looks = _looks(columns, rows)
    whole, explained = [], set()
    for look in sorted(set(looks) - {""}):
        count, of = looks.count(look), int(np.count_nonzero(with_both))
        if count >= FEW and count >= SHARE * of:
            remedy = f", or have {_REMEDY}" if _kind(look) == BOX else ""
            message = f"{count} of {of} boxes do not fit their masks, and {look}. {_RIGHT}: correct the export{remedy}"
            whole.append(Problem(_kind(look), message))
            explained.add(look)
    each = [
        (row, Problem(_kind(look), f"bbox does not fit the mask{f': {look}' if look else ''}", "warning"))
        for row, look in zip(rows.tolist(), looks, strict=True)
        if look not in explained and off[row] and not columns.faulty[row]
    ]
    return Disagreements(whole, each)


_RIGHT = "COCO's are x, y, width, height in pixels, from the upper left corner"
_REMEDY = "`dsctool data check DIR --fix OUT.json` take the boxes from the masks"


def _kind(look: str) -> str:
    return MASK if "mask" in look and look != _OTHERS else BOX


def boxes_fit(box: Floats, corners: Floats, size: Ints) -> Bools:
    """``(m,)``: which boxes, x, y, width, height, fit what their masks span: ``corners``, x1, y1, x2, y2."""
    fit: Bools = ~_apart(_cut(_corners(box), size), _cut(corners, size))
    return fit


def _apart(boxes: Floats, spanned: Floats) -> Bools:
    apart: Bools = (_iou(boxes, spanned) < SHARED) & (np.abs(boxes - spanned).max(axis=1, initial=0) > SLACK)
    return apart


def _corners_alone(columns: Columns) -> Iterator[Problem]:
    """Boxes without masks that lie in their images only as corners."""
    rows = np.isnan(columns.extents.area) & (columns.size > 0).all(axis=1)
    box, sides = columns.box[rows], _sides(columns.size[rows])
    corners = _corners(box)
    out = (corners > sides + SLACK).any(axis=1)
    proper = (box[:, 2:] > box[:, :2]).all(axis=1) & (box <= sides + SLACK).all(axis=1)
    if len(box) and proper.all() and (count := int(np.count_nonzero(out))) >= max(FEW, SHARE * len(box)):
        message = f"{count} of {len(box)} boxes end outside their images, and all look like x1, y1, x2, y2 (corners)"
        yield Problem("corners", f"{message}. {_RIGHT}: correct the export")


def _looks(columns: Columns, rows: Ints) -> list[str]:
    """What the boxes of ``rows``, or their masks, look like; nothing where they look like nothing known."""
    box, size, spanned = columns.box[rows], columns.size[rows], columns.extents.corners[rows]
    looks = np.full(len(rows), "", dtype=object)
    for name, read in _READINGS.items():
        free = looks == ""
        looks[free & (_iou(_cut(read(box, size), size), _cut(spanned, size)) >= FITS)] = f"look like {name}"
    for name, turned in _MASK_READINGS.items():
        free = looks == ""
        looks[free & (_iou(_corners(box), turned(spanned, size)) >= FITS)] = f"the masks look like {name}"
    for number, row in enumerate(rows[:_LOOKED_AT].tolist()):
        if looks[number] == "":
            looks[number] = _look_of_one(columns, row)
    free = looks == ""
    if np.count_nonzero(free) >= FEW:
        looks[free] = _scaled(box[free], spanned[free])
    return [str(look) for look in looks]


def _look_of_one(columns: Columns, row: int) -> str:
    corners, size = _corners(columns.box[row : row + 1]), columns.size[row]
    others = np.flatnonzero(columns.image == columns.image[row])
    others = others[others != row]
    if len(others) and (_iou(np.repeat(corners, len(others), axis=0), columns.extents.corners[others]) >= 0.9).any():
        return _OTHERS
    if columns.shapes.letters_of[row]:
        height, width = size.tolist()
        mask = coco_mask.decode(columns.shapes.rle(row, (height, width)))
        across = mask.reshape(-1, order="F").reshape(height, width)  # the same runs, row by row
        ys, xs = np.flatnonzero(across.any(axis=1)), np.flatnonzero(across.any(axis=0))
        if len(xs) and _iou(corners, np.asarray([[xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]], dtype=float))[0] >= FITS:
            return "the runs of the masks look as if they went row by row, and COCO's go down the columns"
    return ""


def _scaled(box: Floats, spanned: Floats) -> str:
    """Boxes of another size of the images."""
    with np.errstate(all="ignore"):
        factor = np.median((spanned[:, 2:] - spanned[:, :2]) / box[:, 2:], axis=0)
    if not np.isfinite(factor).all() or (_iou(_corners(box * np.tile(factor, 2)), spanned) < FITS).mean() > 0.2:
        return ""
    return f"look like those of images {1 / factor[0]:.3g} times as wide and {1 / factor[1]:.3g} times as high"


def _corners(box: Floats) -> Floats:
    return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)


def _centred(box: Floats) -> Floats:
    half = box[:, 2:] / 2
    return np.concatenate([box[:, :2] - half, box[:, :2] + half], axis=1)


def _sides(size: Ints) -> Floats:
    return np.tile(size[:, ::-1], 2).astype(np.float64)


def _turned(corners: Floats) -> Floats:
    return corners[:, [1, 0, 3, 2]]


_OTHERS = "fit the masks of other annotations"
_READINGS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "x1, y1, x2, y2 (corners)": lambda box, size: box,
    "centre x, centre y, width, height": lambda box, size: _centred(box),
    "y, x, height, width (or the masks like y, x)": lambda box, size: _turned(_corners(box)),
    "y1, x1, y2, x2 (corners)": lambda box, size: _turned(box),
    "normalised x, y, width, height (from 0 to 1)": lambda box, size: _corners(box) * _sides(size),
    "normalised centres and sizes (from 0 to 1)": lambda box, size: _centred(box) * _sides(size),
    "normalised corners (from 0 to 1)": lambda box, size: box * _sides(size),
}
_MASK_READINGS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "y, x instead of x, y": lambda corners, size: _turned(corners),
    "normalised points (from 0 to 1)": lambda corners, size: corners * _sides(size),
}


def _cut(corners: Floats, size: Ints) -> Floats:
    return np.clip(corners, 0, _sides(size))


def _iou(a: Floats, b: Floats) -> Floats:
    """``(m,)`` of corners ``(m, 4)``; 0 where one has no area."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
        first, second = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (a, b))
        iou: Floats = np.nan_to_num(shared / (first + second - shared))
    return iou


# --- areas ------------------------------------------------------------------------------------------


def _areas(columns: Columns) -> Iterator[tuple[int, Problem]]:
    """Areas that are far from the mask's; outlines tell roughly, and the mask is drawn where they do."""
    given, outlined = columns.area, columns.extents.area
    compared = ~np.isnan(outlined) & ~columns.faulty
    rows = np.flatnonzero(compared & areas_differ(given, outlined))
    if not len(rows):
        return
    heights, widths = columns.size[rows].T
    boxed = columns.box[rows, 2] * columns.box[rows, 3]
    covered = columns.shapes.rles(rows, columns.size[rows]).areas(np.arange(len(rows)))
    for row, value, area, whole, box in zip(
        rows.tolist(), given[rows].tolist(), covered.tolist(), (heights * widths).tolist(), boxed.tolist(), strict=True
    ):
        if area and areas_differ(np.asarray(value), np.asarray(area)) and not np.isclose(value, box, rtol=0.02):
            yield row, Problem("area", f"area {_area_look(value, area, whole)}", "warning")


def areas_differ(given: Floats, covered: Floats) -> Bools:
    """``(m,)``: which areas are far from those of the masks."""
    with np.errstate(invalid="ignore"):
        far: Bools = np.maximum(given, covered) > AREA_RATIO * np.minimum(given, covered)
        off: Bools = (np.abs(given - covered) > AREA_SLACK) | (given <= 0)
    return far & off


def _area_look(value: float, area: float, whole: float) -> str:
    if value <= 0:
        return "is 0, but the mask is not empty: training leaves the annotation out"
    if np.isclose(value, whole, rtol=1e-3):
        return "is that of the whole image, not of the mask"
    if np.isclose(value * whole, area, rtol=0.3):
        return "looks like a share of the image (from 0 to 1), not like pixels"
    if value > area:
        return "is more than twice the mask's"
    return "is less than half of the mask's"
