"""The explorer: pictures with outlines of what was found in them, and a threshold to move.

Pictures go into the page one by one, each as JSON of its own, which the page reads when it shows it. What counts and
filters need of all of them comes at the end, in lists of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.coco_results import Rle as ResultRle
from dsctool.data.outlines import Ring, outline, simplified
from dsctool.evaluation.error_analysis.schema import ErrorType
from dsctool.files import whole_file
from dsctool.rle import Rle
from dsctool.terms import Size
from dsctool.visualize.colors import class_colors
from dsctool.visualize.pages.html import jpeg, render

LONGEST = 1000
"""Pixels of a picture's longer side in the page."""
ERRORS: tuple[ErrorType, ...] = ("classification", "localisation", "both", "duplicate", "background")
"""What can be wrong with a detection; see :mod:`dsctool.evaluation.error_analysis.types`."""
LOWEST = 0.05
"""Score from which on results are in the page: what scores less is hardly ever looked at, and is the most."""
STRIP = 120
"""Pixels of a picture's longer side where all pictures are listed."""
AnyRle = Rle | ResultRle
_DATA = "<!-- pictures -->"


@dataclass(frozen=True)
class Thing:
    """An instance. label: index of its class. score: None of the ground truth. box: x, y, width, height in pixels.

    mask: in the whole picture, None where there is a box alone. error: what is wrong with something that was found, of
    :data:`ERRORS`, or None. finder: of ground truth, the place in its picture of what was found for it, or None.
    """

    label: int
    score: float | None
    box: tuple[float, float, float, float]
    mask: AnyRle | None
    error: ErrorType | None = None
    finder: int | None = None

    @property
    def area(self) -> int:
        """Pixels of the mask, or else of the box."""
        return round(self.box[2] * self.box[3]) if self.mask is None else int(coco_mask.area(self.mask))


class Shown(TypedDict):
    """A picture as the page has it. picture, small: JPEG as addresses. side: pixels of the longer side of the first."""

    picture: str
    small: str
    side: int


def shown_as(image: Image.Image) -> Shown:
    """A picture made as small as the page has it."""
    large = image.convert("RGB")
    large.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    small = large.copy()
    small.thumbnail((STRIP, STRIP), Image.Resampling.LANCZOS)
    return {"picture": jpeg(large), "small": jpeg(small), "side": max(large.size)}


@dataclass(frozen=True)
class Looked:
    """A picture of ``size`` (h, w) and what is in it. truth: None where nobody says."""

    name: str
    size: Size
    shown: Shown
    found: Sequence[Thing]
    truth: Sequence[Thing] | None = None


class _Row(TypedDict):
    """What counts need of a picture: labels, scores in hundredths of a per cent, areas and errors of what was found.

    errors: places in :data:`ERRORS`, -1 of what is right; none at all without ground truth. finders: for every instance
    of the ground truth the place of what was found for it, or -1.
    """

    labels: list[int]
    scores: list[int]
    areas: list[int]
    errors: list[int]
    finders: list[int]


def write_explorer(
    path: Path,
    pictures: Iterable[Looked],
    classes: Sequence[str],
    *,
    thresholds: Mapping[int, float],
    title: str,
) -> int:
    """Write the page, whole or not at all; how many pictures it has.

    Memory does not grow with their number, but for some numbers of each instance.

    classes: names by label. thresholds: by label, where the slider starts; one for all, or each its own, which it then
    says.
    """
    head, tail = render("explorer.html", {"title": title, "data": _DATA}).split(_DATA)
    rows: list[_Row] = []
    truth = False
    with whole_file(path) as file:
        file.write(head.encode())
        for picture in pictures:
            truth |= picture.truth is not None
            rows.append(_row(picture))
            file.write(_script(_picture(picture), 'class="picture"'))
        starts = sorted(set(thresholds.values()))
        about = {
            "classes": [
                {"name": name, "color": f"rgb({','.join(map(str, color))})"}
                for name, color in zip(classes, class_colors(classes).values(), strict=True)
            ],
            "rows": rows,
            "truth": truth,
            "errors": ERRORS if truth else [],
            "lowest": LOWEST,
            "start": starts[0] if starts else 0.0,
            "own": [thresholds[label] for label in range(len(classes))] if len(starts) > 1 else None,
        }
        file.write(_script(about, 'id="about"'))
        file.write(tail.encode())
    return len(rows)


def outline_path(thing: Thing, *, tolerance: float) -> str:
    """The outline as the ``d`` of an SVG path in the picture's pixels, to be filled by parity.

    tolerance: how far it may run beside the border of the mask, in pixels.
    """
    x, y, width, height = thing.box
    if thing.mask is None:
        return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"
    left, top, columns, rows = (int(side) for side in coco_mask.toBbox(thing.mask))
    bitmap = coco_mask.decode(thing.mask)[top : top + rows, left : left + columns]
    rings = (ring for part in outline(bitmap) for ring in (part.outer, *part.holes))
    return "".join(_ring(simplified(ring, tolerance) + np.array([left, top])) for ring in rings)


def _ring(ring: Ring) -> str:
    points = [f"{x:g} {y:g}" for x, y in np.round(ring, 1).tolist()]
    return f"M{'L'.join(points)}z"


def _row(picture: Looked) -> _Row:
    found = picture.found
    return {
        "labels": [thing.label for thing in found],
        "scores": [round(10_000 * (thing.score or 0.0)) for thing in found],
        "areas": [thing.area for thing in found],
        "errors": []
        if picture.truth is None
        else [-1 if thing.error is None else ERRORS.index(thing.error) for thing in found],
        "finders": [-1 if thing.finder is None else thing.finder for thing in picture.truth or ()],
    }


def _picture(picture: Looked) -> dict[str, Any]:
    height, width = picture.size
    tolerance = max(width, height) / picture.shown["side"] / 2  # half a pixel of what is shown
    content: dict[str, Any] = {
        "name": picture.name,
        "size": [width, height],
        "picture": picture.shown["picture"],
        "small": picture.shown["small"],
        "found": [outline_path(thing, tolerance=tolerance) for thing in picture.found],
    }
    if picture.truth is not None:
        content["truth"] = [[thing.label, outline_path(thing, tolerance=tolerance)] for thing in picture.truth]
    return content


def _script(value: object, attribute: str) -> bytes:
    """JSON as an element of the page, whatever texts are in it."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" {attribute}>{text}</script>\n'.encode()
