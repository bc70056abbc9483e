"""The panoptic huddle report as texts in tables."""

from __future__ import annotations

from typing import Literal

from dsctool.evaluation.huddle.panoptic.schema import (
    PanopticCell,
    PanopticHuddleReport,
    PanopticMeasured,
    PixelLosses,
)
from dsctool.evaluation.huddle.rows import Side, cell_table
from dsctool.evaluation.rows import Table, points

_COUNTS: tuple[Literal["true", "found", "kept", "dropped", "cut", "gained"], ...] = (
    "true", "found", "kept", "dropped", "cut", "gained",
)  # fmt: skip


def has_baseline(report: PanopticHuddleReport) -> bool:
    """Whether there are differences."""
    return any(cell["baseline"] is not None for cell in report["cells"])


def sides(report: PanopticHuddleReport) -> list[Side]:
    """Of which there are numbers."""
    return ["candidate", "baseline"] if has_baseline(report) else ["candidate"]


def quality(measured: PanopticMeasured, side: Side) -> tuple[float | None, float | None, float | None]:
    """PQ, SQ and RQ; None where there are none."""
    numbers = measured["things"] if side == "candidate" else measured["baseline"]
    if numbers is None or not numbers["n"]:
        return None, None, None
    return numbers["PQ"], numbers["SQ"], numbers["RQ"]


def gain(measured: PanopticMeasured) -> tuple[float | None, float | None, float | None]:
    """PQ, SQ and RQ minus the baseline's; None where there are none."""
    each = measured["difference"]
    return (None, None, None) if each is None else (each["PQ"], each["SQ"], each["RQ"])


def interval(measured: PanopticMeasured) -> tuple[float, float] | None:
    """The bounds of the interval of PQ's difference."""
    each = measured["difference"]
    return None if each is None or each["low"] is None or each["high"] is None else (each["low"], each["high"])


def quality_rows(report: PanopticHuddleReport, side: Side) -> Table:
    """``PQ / SQ / RQ`` of every cell."""
    return cell_table(report["cells"], lambda cell: _text(cell, quality(cell, side)))


def gain_rows(report: PanopticHuddleReport) -> Table:
    """The differences."""
    return cell_table(report["cells"], lambda cell: _text(cell, gain(cell)))


def interval_rows(report: PanopticHuddleReport) -> Table:
    """The intervals of PQ's differences."""

    def text(cell: PanopticCell) -> str:
        return " to ".join(points(bound) for bound in interval(cell) or ()) or "-"

    return cell_table(report["cells"], text)


def image_rows(report: PanopticHuddleReport) -> Table:
    """The numbers of images."""
    return cell_table(report["cells"], lambda cell: str(cell["images"]))


def _text(cell: PanopticCell, values: tuple[float | None, ...]) -> str:
    return " / ".join(points(value) for value in values) if cell["images"] else "-"


def instance_rows(report: PanopticHuddleReport) -> Table:
    """The view of single things: ``PQ / SQ / RQ``, the baseline's, and the difference."""
    both = has_baseline(report)
    body = []
    for view in report["instance_level"]:
        values = [quality(view, side) for side in sides(report)] + ([gain(view)] if both else [])
        texts = (" / ".join(points(value) for value in each) for each in values)
        body.append([f"{view['t_o']:g}", str(view["instances"]), *texts])
    return ["T_O", "things", *sides(report), *(["difference"] if both else [])], body


def loss_rows(losses: PixelLosses) -> Table:
    """What became of true things, by overlap; the last row has all of them."""
    rows = losses["overlaps"]
    body = [[_span(row["above"], row["up_to"]), *(str(row[name]) for name in _COUNTS)] for row in rows]
    return ["overlap", *_COUNTS], [*body, ["all", *(str(sum(row[name] for row in rows)) for name in _COUNTS)]]


def _span(above: float, up_to: float | None) -> str:
    if up_to is None:
        return "any" if above < 0 else f"over {above:g}"
    return f"{up_to:g}" if above < 0 and up_to == 0 else f"{max(above, 0.0):g} to {up_to:g}"


def fused_quality(losses: PixelLosses) -> str:
    """``PQ / SQ / RQ`` of the things that were fused."""
    numbers = losses["things"]
    values = (numbers["PQ"], numbers["SQ"], numbers["RQ"])
    return " / ".join(points(value if numbers["n"] else None) for value in values)
