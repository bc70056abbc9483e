"""Whether the box, the area and the mask of an annotation agree, and what they look like where they do not.

Nothing is wrong with any of these values alone, so only all annotations of a file together tell: boxes written as
x1, y1, x2, y2, areas of the image, coordinates from 0 to 1. Crowds are left alone: nothing is learnt of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.conventions import MASK_READINGS, READINGS, centred, corners_of, cut_at, iou, sides_of
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
"""So many boxes that are odd in one way are no chance."""
UNLIKELY = -20.0
"""Logarithm of the chance that boxes lie in a corner of their images, if they lay anywhere."""
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
        if not any(problem.kind == MASK for problem in found.whole):  # areas of wrong masks say nothing
            each += _areas(columns)
    each.sort(key=lambda item: item[0])
    return Disagreements(whole, each)


# --- coordinates from 0 to 1 ------------------------------------------------------------------------


def _normalised(columns: Columns) -> Bools:
    """Boxes within a pixel of the corner; where the mask spans more, the box alone is written otherwise."""
    box = columns.box
    with np.errstate(invalid="ignore"):
        within = (box >= 0).all(axis=1) & (box[:, :2] + box[:, 2:] <= 1 + 1e-6).all(axis=1)
        proper = (box[:, 2:] > 0).all(axis=1) & (box[:, 2:] < 1).any(axis=1)
        within &= ~(columns.extents.corners > 1 + 1e-6).any(axis=1)
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
    """Coordinates from 0 to 100: all lie in that corner of larger images, as good as never by chance, and fill it."""
    ends = corners_of(columns.box)[:, 2:]
    if len(ends) < MANY_BOXES or columns.size.min() <= 100:
        return
    chance = np.log(100 / columns.size).sum()
    if (ends <= 100 + 1e-6).all() and (ends.max(axis=0) >= 90).all() and chance < UNLIKELY:
        message = (
            "all boxes lie within 100 pixels of the corner of larger images: if the coordinates are percentages, "
            "multiply x by the width and y by the height of the image, and divide by 100"
        )
        yield Problem("percent", message, "warning")


# --- boxes ------------------------------------------------------------------------------------------


def _boxes(columns: Columns) -> Disagreements:
    """Boxes that do not fit their masks."""
    with_both = ~np.isnan(columns.extents.area)
    inside, spanned = cut_at(corners_of(columns.box), columns.size), cut_at(columns.extents.corners, columns.size)
    with_both &= (spanned[:, 2:] > spanned[:, :2]).all(axis=1) & (columns.box[:, 2:] > 0).all(axis=1)
    off = with_both & _apart(inside, spanned)
    rows = np.flatnonzero(off | (with_both & columns.faulty))
    if not len(rows):
        return Disagreements(list(_from_one(columns, with_both)), [])
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
    return Disagreements(whole or list(_from_one(columns, with_both)), each)


_RIGHT = "COCO's are x, y, width, height in pixels, from the upper left corner"
_REMEDY = "`dsctool data check DIR --fix OUT.json` take the boxes from the masks"


def _kind(look: str) -> str:
    return MASK if "mask" in look and look != _OTHERS else BOX


def boxes_fit(box: Floats, corners: Floats, size: Ints) -> Bools:
    """``(m,)``: which boxes, x, y, width, height, fit what their masks span: ``corners``, x1, y1, x2, y2."""
    fit: Bools = ~_apart(cut_at(corners_of(box), size), cut_at(corners, size))
    return fit


def _apart(boxes: Floats, spanned: Floats) -> Bools:
    apart: Bools = (iou(boxes, spanned) < SHARED) & (np.abs(boxes - spanned).max(axis=1, initial=0) > SLACK)
    return apart


def _from_one(columns: Columns, rows: Bools) -> Iterator[Problem]:
    """Boxes that are the masks' but for one pixel to the right and down: MATLAB and R count from 1."""
    shift = corners_of(columns.box[rows]) - columns.extents.corners[rows]
    count = int(np.count_nonzero((np.abs(shift - 1) < 0.05).all(axis=1)))
    if count >= MANY_BOXES and count >= FITS * len(shift):
        message = (
            f"{count} of {len(shift)} boxes lie one pixel to the right of their masks and below: are they counted "
            "from 1? COCO's upper left corner is 0, 0"
        )
        yield Problem("from one", message, "warning")


def _corners_alone(columns: Columns) -> Iterator[Problem]:
    """Boxes without masks that lie in their images only as corners, or only as centres."""
    rows = np.isnan(columns.extents.area) & (columns.size > 0).all(axis=1)
    box, ends = columns.box[rows], sides_of(columns.size[rows])
    out = (corners_of(box) > ends + SLACK).any(axis=1)
    count, looks = int(np.count_nonzero(out)), ""
    if not len(box) or count < FEW:
        return
    if (box[:, 2:] > box[:, :2]).all() and (box <= ends + SLACK).all() and count >= SHARE * len(box):
        looks = "x1, y1, x2, y2 (corners)"
    elif len(box) >= MANY_BOXES and ((centred(box) >= -SLACK) & (centred(box) <= ends + SLACK)).all():
        looks = "centre x, centre y, width, height"
    if looks:
        message = f"{count} of {len(box)} boxes end outside their images, and all look like {looks}"
        yield Problem("corners", f"{message}. {_RIGHT}: correct the export")


def _looks(columns: Columns, rows: Ints) -> list[str]:
    """What the boxes of ``rows``, or their masks, look like; nothing where they look like nothing known."""
    box, size, spanned = columns.box[rows], columns.size[rows], columns.extents.corners[rows]
    looks = np.full(len(rows), "", dtype=object)
    for name, read in READINGS.items():
        free = looks == ""
        looks[free & (iou(cut_at(read(box, size), size), cut_at(spanned, size)) >= FITS)] = f"look like {name}"
    for name, turned in MASK_READINGS.items():
        free = looks == ""
        looks[free & (iou(corners_of(box), turned(spanned, size)) >= FITS)] = f"the masks look like {name}"
    _look_closely(columns, rows, looks)
    free = looks == ""
    if np.count_nonzero(free) >= FEW:
        looks[free] = _scaled(box[free], spanned[free])
    return [str(look) for look in looks]


def _look_closely(columns: Columns, rows: Ints, looks: NDArray[np.object_]) -> None:
    """At some of those that look like nothing yet: where nearly all of these look alike, the others do too."""
    free = np.flatnonzero(looks == "")
    closely = free[:_LOOKED_AT]
    for number in closely.tolist():
        looks[number] = _look_of_one(columns, int(rows[number]))
    found = Counter(looks[closely].tolist())
    if len(closely) < len(free):
        look, count = found.most_common(1)[0]
        looks[free[_LOOKED_AT:]] = look if count >= FITS * len(closely) else ""


def _look_of_one(columns: Columns, row: int) -> str:
    box, size = corners_of(columns.box[row : row + 1]), columns.size[row]
    others = np.flatnonzero(columns.image == columns.image[row])
    others = others[others != row]
    if len(others) and (iou(np.repeat(box, len(others), axis=0), columns.extents.corners[others]) >= 0.9).any():
        return _OTHERS
    if columns.shapes.letters_of[row]:
        height, width = size.tolist()
        mask = coco_mask.decode(columns.shapes.rle(row, (height, width)))
        across = mask.reshape(-1, order="F").reshape(height, width)  # the same runs, row by row
        for bitmap, look in ((across, _ACROSS), (1 - mask, _INVERTED)):
            ys, xs = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
            if len(xs) and iou(box, np.asarray([[xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]], dtype=float))[0] >= FITS:
                return look
    return ""


_OTHERS = "fit the masks of other annotations"
_ACROSS = "the runs of the masks look as if they went row by row, and COCO's go down the columns"
_INVERTED = "the masks look inverted: they cover what is around the objects"


def _scaled(box: Floats, spanned: Floats) -> str:
    """Boxes of another size of the images."""
    with np.errstate(all="ignore"):
        factor = np.median((spanned[:, 2:] - spanned[:, :2]) / box[:, 2:], axis=0)
    if not np.isfinite(factor).all() or np.abs(factor - 1).max() < 0.05:
        return ""
    if (iou(corners_of(box * np.tile(factor, 2)), spanned) < FITS).mean() > 0.2:
        return ""
    return f"look like those of images {1 / factor[0]:.3g} times as wide and {1 / factor[1]:.3g} times as high"


# --- areas ------------------------------------------------------------------------------------------


def _areas(columns: Columns) -> Iterator[tuple[int, Problem]]:
    """Areas that are far from the mask's; outlines tell roughly, and the mask is drawn where they do. Where there is
    none, they are more than the box's, or nothing."""
    given, outlined = columns.area, columns.extents.area
    whole, boxed = columns.size.prod(axis=1), columns.box[:, 2] * columns.box[:, 3]
    alone = np.isnan(outlined) & ~columns.faulty & (boxed > 0)
    for row in np.flatnonzero(alone & areas_differ(given, boxed) & ((given > boxed) | (given <= 0))).tolist():
        look = _area_look(float(given[row]), float(boxed[row]), int(whole[row]), what="box")
        yield row, Problem("area", f"area {look}", "warning")
    compared = ~np.isnan(outlined) & ~columns.faulty
    rows = np.flatnonzero(compared & areas_differ(given, outlined))
    if not len(rows):
        return
    covered = columns.shapes.rles(rows, columns.size[rows]).areas(np.arange(len(rows)))
    for row, value, area, box in zip(
        rows.tolist(), given[rows].tolist(), covered.tolist(), boxed[rows].tolist(), strict=True
    ):
        if area and areas_differ(np.asarray(value), np.asarray(area)) and not np.isclose(value, box, rtol=0.02):
            yield row, Problem("area", f"area {_area_look(value, area, int(whole[row]), what='mask')}", "warning")


def areas_differ(given: Floats, covered: Floats) -> Bools:
    """``(m,)``: which areas are far from those of the masks."""
    with np.errstate(invalid="ignore"):
        far: Bools = np.maximum(given, covered) > AREA_RATIO * np.minimum(given, covered)
        off: Bools = (np.abs(given - covered) > AREA_SLACK) | (given <= 0)
    return far & off


def _area_look(value: float, area: float, whole: int, *, what: str) -> str:
    """what: it should be the area of."""
    if value <= 0:
        how = "0" if value == 0 else "negative"
        return f"is {how}, but the {what} is not empty: training leaves the annotation out"
    if np.isclose(value, whole, rtol=1e-3):
        return f"is that of the whole image, not of the {what}"
    if np.isclose(value * whole, area, rtol=0.3):
        return "looks like a share of the image (from 0 to 1), not like pixels"
    if value > area:
        return f"is more than twice the {what}'s"
    return f"is less than half of the {what}'s"
