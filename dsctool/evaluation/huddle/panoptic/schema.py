"""The panoptic huddle report as data: what ``huddle.json`` holds."""

from __future__ import annotations

from typing import TypedDict

from dsctool.evaluation.huddle.schema import Subset
from dsctool.terms import FusionRule, PixelRule


class PanopticNumbers(TypedDict):
    """Means over the ``n`` categories of things that have something to measure, 0 to 1; -1 where ``n`` is 0."""

    PQ: float
    SQ: float
    RQ: float
    n: int


class PanopticDifference(TypedDict):
    """Numbers minus the baseline's, and the bounds of the 95 % interval of PQ.

    Numbers are None where one of the two is -1; the bounds are None without a bootstrap too.
    """

    PQ: float | None
    SQ: float | None
    RQ: float | None
    low: float | None
    high: float | None


class PanopticMeasured(TypedDict):
    """The things of a subset, of the baseline's results, and the difference of the two."""

    things: PanopticNumbers | None
    baseline: PanopticNumbers | None
    difference: PanopticDifference | None


class PanopticCell(PanopticMeasured, Subset):
    """The quality of a subset. Without images no numbers."""


class PanopticInstanceView(PanopticMeasured):
    """The things that are huddled at T_O, all others ignored. Without instances no numbers."""

    t_o: float
    instances: int


class OverlapLosses(TypedDict):
    """True things whose largest overlap is greater than ``above`` and not greater than ``up_to`` (None: no bound).

    true: all of them. found: those that an instance matches; of these kept, dropped and cut. gained: the others that a
    segment matches, because fusion cut an instance to their shape.
    """

    above: float
    up_to: float | None
    true: int
    found: int
    kept: int
    dropped: int
    cut: int
    gained: int


class PixelLosses(TypedDict):
    """What a pixel rule made of the instances. things: of the fused result, in all images."""

    pixel: PixelRule
    things: PanopticNumbers
    overlaps: list[OverlapLosses]


class FusionReport(TypedDict):
    """How much the fusion loses, for each pixel rule that can be measured. Settings: :class:`FusionSettings`."""

    rule: FusionRule
    min_score: float
    overlap: float
    losses: list[PixelLosses]


class PanopticHuddleReport(TypedDict):
    """The whole report.

    cells: row by row, T_O from row to row. bootstrap: samples behind each interval, or 0. fusion: None where no
    instances were given.
    """

    same_class: bool
    bootstrap: int
    seed: int
    cells: list[PanopticCell]
    instance_level: list[PanopticInstanceView]
    fusion: FusionReport | None
