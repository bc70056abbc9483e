"""The analysis of errors as texts in tables, for the terminal and the page alike."""

from __future__ import annotations

from typing import NamedTuple

from dsctool.evaluation.error_analysis.schema import (
    ERROR_TYPES,
    Confusion,
    ErrorReport,
    Errors,
    ErrorView,
    SuppressionReport,
)
from dsctool.evaluation.rows import Table, points
from dsctool.terms import KINDS, Kind

BACKGROUND, MISSED = "(background)", "(missed)"
"""What stands in for a category where there is no instance, or no detection."""


def by_kind(report: ErrorReport) -> dict[Kind, Errors]:
    """Of boxes, and of masks where the report has them."""
    found = {kind: report["bbox"] if kind == "bbox" else report["segm"] for kind in KINDS}
    return {kind: errors for kind, errors in found.items() if errors is not None}


def view_text(view: ErrorView, report: ErrorReport) -> str:
    """What a view is called: its name, and for the huddled and the lone what that means."""
    sign = {"huddled": ">", "lone": "≤"}.get(view["name"])
    return view["name"] if sign is None else f"{view['name']} (overlap {sign} {report['t_o']:g})"


def cost_rows(errors: Errors, report: ErrorReport) -> Table:
    """Header and rows: AP50 of every view, and the points of 100 that each type of error costs."""
    header = ["instances", "number", "AP50", *ERROR_TYPES, "all wrong", "all not found"]
    rows = []
    for view in errors["views"]:
        lost = [points(view["errors"][name]["difference"]) for name in ERROR_TYPES]
        sides = [points(view["false_positives"]), points(view["false_negatives"])]
        precision = points(view["AP50"] if view["instances"] else None)
        rows.append([view_text(view, report), str(view["instances"]), precision, *lost, *sides])
    return header, rows


def count_rows(errors: Errors, report: ErrorReport) -> Table:
    """Header and rows: how many errors of each type there are, of all scores."""
    header = ["instances", *ERROR_TYPES]
    rows = [
        [view_text(view, report), *(str(view["errors"][name]["count"]) for name in ERROR_TYPES)]
        for view in errors["views"]
    ]
    return header, rows


class Mistake(NamedTuple):
    """Instances of a category that were taken for another one; or background taken for it, or missed."""

    true: str
    found: str
    number: int
    total: int


def mistakes(confusion: Confusion) -> list[Mistake]:
    """The most frequent first. total: of the true category's row."""
    names = [each["name"] for each in confusion["categories"]]
    rows, columns = [*names, BACKGROUND], [*names, MISSED]
    found = [
        Mistake(rows[row], columns[column], count, sum(counts))
        for row, counts in enumerate(confusion["matrix"])
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(found, key=lambda each: -each.number)


def mistake_rows(confusion: Confusion, limit: int) -> Table:
    """Header and rows: the most frequent confusions of categories, without background and missed ones."""
    shown = [each for each in mistakes(confusion) if each.true != BACKGROUND and each.found != MISSED][:limit]
    return ["true", "found as", "instances", "of"], [
        [each.true, each.found, str(each.number), str(each.total)] for each in shown
    ]


def confusion_totals(confusion: Confusion) -> dict[str, int]:
    """How many are right, taken for another category, missed, and invented."""
    matrix = confusion["matrix"]
    right = sum(matrix[index][index] for index in range(len(matrix)))
    missed, invented = sum(row[-1] for row in matrix), sum(matrix[-1])
    total = sum(sum(row) for row in matrix)
    return {
        "right": right,
        "another category": total - right - missed - invented,
        "missed": missed,
        "on background": invented,
    }


def suppression_rows(suppression: SuppressionReport) -> Table:
    """Header and rows: instances that candidates, and then detections, matched."""
    header = ["instances", "number", "among candidates", "among results", "removed"]
    rows = [
        [view["name"], *(str(view[key]) for key in ("instances", "before", "after", "removed"))]
        for view in suppression["views"]
    ]
    return header, rows


def best_rows(errors: Errors) -> Table:
    """Header and rows: by category the score threshold of the best F1 at IoU 0.5."""
    rows = [
        [
            each["name"],
            str(each["instances"]),
            *(f"{each['best'][name]:.2f}" for name in ("score", "precision", "recall", "f1")),
        ]
        for each in errors["curves"]["categories"]
        if each["best"] is not None
    ]
    return ["category", "instances", "score", "precision", "recall", "F1"], rows


def curve_lines(errors: Errors) -> list[tuple[str, list[float]]]:
    """What each curve of precision over recall is called, with its AP, and its values."""
    mean = errors["curves"]["mean"] or {}
    return [(f"IoU {name}: AP {points(sum(values) / len(values))}", values) for name, values in mean.items()]
