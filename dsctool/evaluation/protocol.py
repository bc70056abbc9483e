"""What COCO's numbers are counted over: how many detections, and which ranges of areas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

from dsctool.errors import DataError
from dsctool.terms import LARGE_AREA, MEDIUM_AREA

LARGEST_AREA = 1e5**2
"""COCO's areas end here; what is larger, or negative, is ignored."""


class AreaRange(NamedTuple):
    """Areas in square pixels; both ends belong to them."""

    name: str
    low: float
    high: float

    @property
    def bounds(self) -> str:
        """In words."""
        return f"area from {self.low:g}" + (f" to {self.high:g}" if self.high < LARGEST_AREA else "")

    @property
    def key(self) -> str:
        """What follows AP and AR in the names of its numbers: ``s``, ``m`` or ``l``, or ``_`` and its name."""
        return self.name[0] if self in COCO_AREAS else f"_{self.name}"


COCO_AREAS = (
    AreaRange("small", 0.0, MEDIUM_AREA),
    AreaRange("medium", MEDIUM_AREA, LARGE_AREA),
    AreaRange("large", LARGE_AREA, LARGEST_AREA),
)
COCO_MAX_DETS = (1, 10, 100)
MaxDets = tuple[int, ...] | Literal["auto"]
_RESERVED = ("all", "huddled", "lone")


@dataclass(frozen=True)
class Protocol:
    """How AP and AR are counted; COCO's way unless it says otherwise.

    max_dets: detections per image and category, those of highest score: there is an AR for each, and the largest is
    the limit of all other numbers. ``auto``: COCO's, the largest raised to the most instances of one category in one
    image. areas: ranges that have numbers of their own.

    Raises :class:`DataError` for values that mean nothing.
    """

    max_dets: MaxDets = COCO_MAX_DETS
    areas: tuple[AreaRange, ...] = COCO_AREAS

    def __post_init__(self) -> None:
        if self.max_dets != "auto" and (not self.max_dets or min(self.max_dets) < 1):
            raise DataError(f"max_dets is {self.max_dets!r}: give whole numbers from 1, or 'auto'")
        names = [area.name for area in self.areas]
        for area in self.areas:
            if not area.name or area.name in _RESERVED or names.count(area.name) > 1:
                raise DataError(f"areas: the name {area.name!r} is empty, given twice, or one of {_RESERVED}")
            if not area.low <= area.high:  # also NaN
                raise DataError(f"areas: {area.name} reaches from {area.low:g} to {area.high:g}")

    @property
    def limits(self) -> tuple[int, ...]:
        """``max_dets`` ascending, each once; must be resolved."""
        assert self.max_dets != "auto"
        return tuple(sorted(set(self.max_dets)))

    def resolved(self, most_instances: int) -> Self:
        """``auto`` replaced. most_instances: of one category in one image of the ground truth."""
        if self.max_dets != "auto":
            return self
        return replace(self, max_dets=(*COCO_MAX_DETS[:-1], max(COCO_MAX_DETS[-1], most_instances)))


def up_to(limit: int | Literal["auto"]) -> MaxDets:
    """COCO's numbers of detections below a limit, and the limit: ``(1, 10, 500)``."""
    return limit if limit == "auto" else (*(each for each in COCO_MAX_DETS[:-1] if each < limit), limit)


def parse_max_dets(text: str) -> MaxDets:
    """``auto``, ``1,10,500``, or one number, of which :func:`up_to` makes several. Raises :class:`DataError`."""
    if text == "auto":
        return "auto"
    try:
        numbers = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise DataError(f"{text!r}: give a number, numbers with commas between them, or 'auto'") from None
    return numbers if len(numbers) > 1 else up_to(numbers[0])


def parse_areas(text: str) -> tuple[AreaRange, ...]:
    """``small:0:320,large:970:inf``: names with lowest and highest area. Raises :class:`DataError`."""
    return tuple(_parse_area(part) for part in text.split(","))


def _parse_area(text: str) -> AreaRange:
    name, *ends = text.split(":")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise DataError(f"{text!r}: give NAME:LOWEST:HIGHEST in square pixels, such as small:0:320") from None
    return AreaRange(name.strip(), low, LARGEST_AREA if high == math.inf else high)
