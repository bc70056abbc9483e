"""Instances measured one by one, as rows of a table: where, how large, what shape, how bright.

Shapes are scikit-image's ``regionprops_table`` (the extra ``measures``), of the mask within its own box: an instance of
a large image costs what it is itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from dsctool.coco_results import Result, reaching
from dsctool.data.records import Category
from dsctool.errors import DsctoolError
from dsctool.rle import cut_out
from dsctool.terms import Size

Cell = str | int | float | None
Row = list[Cell]
_LENGTHS = {
    "perimeter": "perimeter",
    "equivalent_diameter": "equivalent_diameter_area",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
}
_SHAPES = {"area": "area", **_LENGTHS, "eccentricity": "eccentricity", "solidity": "solidity"}
"""What scikit-image calls them."""
_WHERE = ("image_id", "image", "category_id", "class", "score", "x", "y", "width", "height")
_BRIGHTNESS = ("mean_red", "mean_green", "mean_blue")
_CLASS = _WHERE.index("category_id")
COUNTS = ("image_id", "image", "category_id", "class", "count")
"""The columns of the table of counts."""


class PixelSize(NamedTuple):
    """The side of a pixel. unit: letters, which end the names of columns."""

    length: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``0.325um``, ``0.325 µm`` or a number alone. Raises :class:`DsctoolError`."""
        parts = re.fullmatch(r"(\d*\.?\d+(?:e[+-]?\d+)?)\s*([a-zA-Z]*)", re.sub("[\N{MICRO SIGN}\u03bc]", "u", text))
        if parts is None or not 0 < float(parts[1]) < math.inf:
            raise DsctoolError(f"{text!r}: give the side of a pixel above 0 and its unit, such as 0.325um")
        return cls(float(parts[1]), parts[2] or "unit")


@dataclass(frozen=True)
class InstanceTable:
    """What the rows are about. thresholds: the lowest score that has a row, by category id.

    pixel_size: adds columns of that unit behind those in pixels, or None.
    """

    categories: Sequence[Category]
    thresholds: Mapping[int, float]
    pixel_size: PixelSize | None = None

    @property
    def columns(self) -> list[str]:
        """The names of a row's cells. Lengths and areas are in pixels unless a name ends in another unit."""
        return [*_WHERE, *_SHAPES, *self._physical, *_BRIGHTNESS, "touches_border"]

    @property
    def _physical(self) -> list[str]:
        if self.pixel_size is None:
            return []
        unit = self.pixel_size.unit
        return [f"area_{unit}2", *(f"{name}_{unit}" for name in _LENGTHS)]

    def rows(self, results: Sequence[Result], pixels: Tensor, image: str, size: Size | None = None) -> list[Row]:
        """Those of one image, in the order of its results.

        pixels: ``(3, h, w)`` uint8 RGB. image: its name. size: ``(h, w)`` of the image where ``pixels`` may have been
        made smaller. What needs a mask is None without one, and brightness without the pixels of full size.
        """
        size = size or _size(pixels)
        names = {category.id: category.name for category in self.categories}
        return [
            [
                result["image_id"], image, result["category_id"], names[result["category_id"]], result["score"],
                *result["bbox"], *self._measured(result, pixels if _size(pixels) == size else None, size),
            ]
            for result in reaching(results, self.thresholds)
        ]  # fmt: skip

    def _measured(self, result: Result, pixels: Tensor | None, size: Size) -> list[Cell]:
        """The cells behind those that say which one it is, and where."""
        rle = result.get("segmentation")
        cut = None if rle is None else cut_out(rle)
        if cut is None:
            empty: list[Cell] = [None] * (len(self.columns) - len(_WHERE) - 1)
            x, y, wide, high = result["bbox"]
            return [*empty, _touches((x, y, x + wide, y + high), size)]
        mask, top, left = cut
        bottom, right = top + mask.shape[0], left + mask.shape[1]
        found = regionprops()(mask.astype(np.uint8), properties=tuple(_SHAPES.values()))
        shapes = {name: float(found[own][0]) for name, own in _SHAPES.items()}
        values = list(shapes.values())
        if self.pixel_size is not None:
            side = self.pixel_size.length
            values += [shapes["area"] * side**2, *(shapes[name] * side for name in _LENGTHS)]
        if pixels is None:
            values += [math.nan] * len(_BRIGHTNESS)
        else:
            values += pixels[:, top:bottom, left:right].numpy()[:, mask].mean(axis=1).tolist()
        return [*map(_shortened, values), _touches((left, top, right, bottom), size)]

    def counts(self, rows: Iterable[Row], image_id: int, image: str) -> Iterator[Row]:
        """How many of each class there are: a row for every class. rows: those of the image."""
        counted = Counter(row[_CLASS] for row in rows)
        for category in self.categories:
            yield [image_id, image, category.id, category.name, counted[category.id]]


def regionprops() -> Callable[..., Mapping[str, Any]]:
    """scikit-image's ``regionprops_table``. Raises DsctoolError where it is not installed."""
    try:
        from skimage.measure import regionprops_table
    except ImportError as error:
        raise DsctoolError(
            f"--table measures shapes with scikit-image, which cannot be used ({error}): "
            "pip install 'dsctool[measures]', or leave --table out"
        ) from None
    return regionprops_table  # type: ignore[no-any-return, unused-ignore]


def _size(pixels: Tensor) -> Size:
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _touches(box: Sequence[float], size: Size) -> int:
    """Whether a pixel of the box, xyxy, lies at the image's border: 1 or 0."""
    x1, y1, x2, y2 = box
    return int(x1 < 1 or y1 < 1 or x2 > size[1] - 1 or y2 > size[0] - 1)


def _shortened(value: float) -> Cell:
    """Six digits; None for what is not defined."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
