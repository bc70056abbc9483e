"""The analysis of errors as a page."""

from __future__ import annotations

from dsctool.evaluation.error_analysis.rows import (
    best_rows,
    by_kind,
    confusion_totals,
    count_rows,
    curve_lines,
    mistake_rows,
    suppression_rows,
)
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, ErrorReport
from dsctool.evaluation.error_analysis.study import ErrorStudy
from dsctool.evaluation.rows import points
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.errors.maps import confusion_map, cost_maps
from dsctool.visualize.pages.html import render

_MOST_CATEGORIES = 20


def error_page(study: ErrorStudy) -> str:
    """The whole document."""
    report = study.report
    confusion, suppression = report["confusion"], report["suppression"]
    few = len(confusion["categories"]) <= _MOST_CATEGORIES
    values = {
        "study": study,
        "summary": _summary(report),
        "costs": cost_maps(report),
        "kinds": [
            {
                "name": KIND_NAMES[kind],
                "counts": count_rows(errors, report),
                "recalls": errors["curves"]["recalls"],
                "lines": curve_lines(errors),
                "best": best_rows(errors),
            }
            for kind, errors in by_kind(report).items()
        ],
        "confusion": confusion,
        "confused": {
            "kind": KIND_NAMES[confusion["kind"]],
            "totals": confusion_totals(confusion),
            "map": confusion_map(confusion, most=_MOST_CATEGORIES) if few else None,
            "mistakes": mistake_rows(confusion, 15),
        },
        "removed": suppression and {"candidates": suppression["candidates"], "rows": suppression_rows(suppression)},
    }
    return render("errors.html", values)


def _summary(report: ErrorReport) -> list[tuple[str, str]]:
    """The numbers that sum it up, each with what it is."""
    summary = []
    for kind, errors in by_kind(report).items():
        view = errors["views"][0]
        if view["instances"]:
            lost = {name: view["errors"][name]["difference"] or 0.0 for name in ERROR_TYPES}
            worst = max(lost, key=lambda name: lost[name])
            summary.append((points(view["AP50"]), f"{KIND_NAMES[kind]} AP50"))
            summary.append((points(lost[worst]), f"of {KIND_NAMES[kind]} AP50 lost to the costliest: {worst}"))
    return summary
