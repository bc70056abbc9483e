"""The huddle report as data: what ``huddle.json`` holds."""

from __future__ import annotations

from typing import TypedDict

from dsctool.evaluation.coco import Numbers
from dsctool.evaluation.overlaps import Overlap

NUMBERS = ("AP", "AP50", "AP75")
"""What is given of every subset, for boxes and masks: from 0 to 1, or -1 where there is nothing to measure."""


class PrecisionDifference(TypedDict):
    """AP minus the baseline's AP, and the bounds of its 95 % interval.

    AP is None where one of the two is -1; the bounds are None without a bootstrap too.
    """

    AP: float | None
    low: float | None
    high: float | None


class HuddleStats(TypedDict):
    """``NUMBERS`` of boxes and of masks; no masks, no numbers."""

    bbox: Numbers
    segm: Numbers | None


class PrecisionDifferences(TypedDict):
    """Of boxes and of masks; None for masks where one of the results has none."""

    bbox: PrecisionDifference
    segm: PrecisionDifference | None


class Measured(TypedDict):
    """AP of a subset, of the baseline's results, and the difference of the two."""

    bbox: Numbers | None
    segm: Numbers | None
    baseline: HuddleStats | None
    difference: PrecisionDifferences | None


class Subset(TypedDict):
    """The images of the subset (T_O, T_P), and their instances that are no crowds."""

    t_o: float
    t_p: float
    images: int
    instances: int


class Cell(Measured, Subset):
    """AP of a subset. Without images no numbers."""


class InstanceView(Measured):
    """The instances that are huddled at T_O, all others ignored. Without instances no numbers."""

    t_o: float
    instances: int


class HuddleReport(TypedDict):
    """The whole report.

    cells: row by row, T_O from row to row. max_dets: detections that count per image and category. bootstrap: samples
    behind each interval, or 0.
    """

    overlap: Overlap
    same_class: bool
    max_dets: int
    bootstrap: int
    seed: int
    cells: list[Cell]
    instance_level: list[InstanceView]
