"""Segmentations of COCO files: what is wrong with one.

pycocotools crashes on some malformed input and misreads other (four numbers are taken for a box),
so nothing reaches it before :func:`segmentation_problem` has found no fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, cast

import numpy as np

from dsctool.data.records import LARGEST_NUMBER, json_kind
from dsctool.rle import decompress_runs
from dsctool.terms import Size

FLAT = 1e-6
"""Twice the area of a polygon, in square pixels, that is none."""
REACH = 1
"""How far a polygon may stick out, in longer sides of its image: pycocotools walks along every edge, pixel by pixel."""


FEWEST_POINTS = 3
"""Of a polygon."""
NO_PIXELS = "no pixels"
"""Kind of the problem of a segmentation that is well formed, and empty."""


@dataclass(frozen=True)
class Problem:
    """A fault of a value: what it is, and whether training can live with it."""

    kind: str
    message: str
    severity: Literal["error", "warning"] = "error"


def segmentation_problem(segmentation: object, size: Size) -> Problem | None:
    """What keeps a JSON value from being the segmentation of an instance in an image of ``size``."""
    if isinstance(segmentation, list | tuple):
        return _polygons_problem(segmentation, size)
    if isinstance(segmentation, Mapping):
        return _rle_problem(segmentation, size)
    return Problem(
        "segmentation", f"segmentation must be a list of polygons or an RLE object, not {json_kind(segmentation)}"
    )


def _polygons_problem(polygons: Sequence[object], size: Size) -> Problem | None:
    if not polygons:
        return Problem("polygon", "segmentation is empty: no polygon")
    if len(polygons) >= FEWEST_POINTS and all(isinstance(each, list | tuple) and len(each) == 2 for each in polygons):
        message = "segmentation is a list of [x, y] points: COCO's is a list of polygons [x, y, x, y, ...]"
        return Problem("polygon", message)
    stray = sum(map(is_stray, polygons))
    drawn = len(polygons) - stray
    flat = outside = 0
    for number, polygon in enumerate(polygons, start=1):
        if drawn and is_stray(polygon):
            continue
        if not isinstance(polygon, list | tuple):
            return Problem("segmentation", f"polygon {number} must be a list of numbers, not {json_kind(polygon)}")
        problem = _polygon_problem(polygon, number)
        if problem is not None:
            return problem
        numbers = cast("list[float]", polygon)
        if strays(numbers, size):
            return Problem("polygon", f"polygon {number} reaches far out of the image, which is {_named(size)}")
        flat += _is_flat(numbers)
        outside += _is_outside(numbers, size)
    if flat == drawn:
        return Problem(NO_PIXELS, "polygon has no area: all its points lie on one line")
    if outside == drawn:
        return Problem(NO_PIXELS, f"polygon is outside the image, which is {_named(size)}")
    if stray:
        have = "has" if stray == 1 else "have"
        message = f"{stray} of {len(polygons)} polygons {have} fewer than {FEWEST_POINTS} points: dropped"
        return Problem("stray part", message, severity="warning")
    if flat:
        return Problem("polygon", f"{flat} of {len(polygons)} polygons have no area", severity="warning")
    return None


def is_stray(polygon: object) -> bool:
    """Whether a part is what a click too many leaves: one or two points, or none. Beside others it is dropped."""
    pairs = isinstance(polygon, list | tuple) and len(polygon) < 2 * FEWEST_POINTS and len(polygon) % 2 == 0
    return pairs and all(map(_is_number, cast("Sequence[object]", polygon)))


def is_flat(polygon: object) -> bool:
    """Whether a polygon of finite numbers has no area: all its points are one, or lie on one line."""
    return isinstance(polygon, list | tuple) and _polygon_problem(polygon, 0) is None and _is_flat(polygon)


def _is_flat(polygon: Sequence[float]) -> bool:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    points = points - points[0]
    x, y = points[:, 0], points[:, 1]
    if abs(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) > FLAT:  # the last edge ends in the origin
        return False
    # A figure of eight has no signed area, yet covers pixels.
    return bool(np.linalg.matrix_rank(points, tol=1e-6) < 2)


def _polygon_problem(polygon: Sequence[object], number: int) -> Problem | None:
    if not polygon:
        return Problem("polygon", f"polygon {number} is empty")
    if not set(map(type, polygon)) <= {int, float} and not all(map(_is_number, polygon)):
        wrong = next(value for value in polygon if not _is_number(value))
        points = ": a polygon is one list, [x, y, x, y, ...]" if isinstance(wrong, list | tuple | Mapping) else ""
        return Problem("number", f"polygon {number} holds {json_kind(wrong)} where a number belongs{points}")
    if not all(abs(value) <= LARGEST_NUMBER for value in polygon):  # type: ignore[arg-type]
        return Problem("number", f"polygon {number} holds a number that is not finite, or beyond any image")
    if len(polygon) % 2:
        return Problem("polygon", f"polygon {number} has an odd number of coordinates ({len(polygon)})")
    if len(polygon) < 2 * FEWEST_POINTS:
        return Problem("polygon", f"polygon {number} has {len(polygon) // 2} points, fewer than {FEWEST_POINTS}")
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def strays(polygon: Sequence[float], size: Size) -> bool:
    """Whether a polygon reaches so far out of an image of ``size`` that drawing it could take all memory."""
    side = max(size)
    return min(polygon) < -REACH * side or max(polygon) > (1 + REACH) * side


def _is_outside(polygon: Sequence[float], size: Size) -> bool:
    xs, ys = polygon[::2], polygon[1::2]
    return max(xs) <= 0 or max(ys) <= 0 or min(xs) >= size[1] or min(ys) >= size[0]


def _named(size: Size) -> str:
    return f"{size[1]} x {size[0]} (width x height)"


def _rle_problem(rle: Mapping[str, object], size: Size) -> Problem | None:
    for key in ("size", "counts"):
        if key not in rle:
            return Problem("missing key", f"segmentation: missing key '{key}'")
    if not isinstance(rle["size"], list) or rle["size"] != list(size) or not set(map(type, rle["size"])) <= {int}:
        return Problem("rle", f"RLE has size {_shown_size(rle['size'])} (height, width), the image has {list(size)}")
    counts = rle["counts"]
    if isinstance(counts, str | bytes):  # bytes, as pycocotools gives them
        decompressed = decompress_runs(counts)
        if decompressed is None:
            return Problem("rle", "RLE counts are not the compressed text that pycocotools writes")
        runs = decompressed.tolist()
    elif isinstance(counts, list) and set(map(type, counts)) <= {int}:
        runs = counts
    else:
        return Problem("rle", f"RLE counts must be a list of whole numbers or a string, not {_counts_kind(counts)}")
    if any(run < 0 for run in runs):
        return Problem("rle", "RLE counts hold a negative run")
    if sum(runs) != size[0] * size[1]:
        return Problem("rle", f"RLE counts cover {sum(runs)} pixels, the image has {size[0] * size[1]}")
    if not any(runs[1::2]):
        return Problem(NO_PIXELS, "RLE covers no pixel of the instance")
    return None


def _shown_size(size: object) -> str:
    return str(size)[:40] if isinstance(size, list) else json_kind(size)


def _counts_kind(counts: object) -> str:
    return "a list with other values" if isinstance(counts, list) else json_kind(counts)
