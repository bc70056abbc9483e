"""The analysis of errors as sections of a page: each is a piece of HTML that any page with the same style may take."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from dsctool.evaluation.error_analysis.rows import (
    BACKGROUND,
    MISSED,
    best_rows,
    by_kind,
    confusion_totals,
    count_rows,
    mistake_rows,
    suppression_rows,
    view_text,
)
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, Confusion, CurveSet, ErrorReport, Errors, Suppression
from dsctool.evaluation.error_analysis.study import ErrorStudy
from dsctool.evaluation.huddle.rows import points
from dsctool.structures import KIND_NAMES
from dsctool.visualize.pages.html import HeatCell, cards, facts, heat_table, page, plain_table

_MOST_CATEGORIES = 20
_COLORS = ("var(--more)", "var(--less)", "var(--scale)")
_MEANINGS = (
    ("localisation", "right category, IoU with the instance from 0.1 to below 0.5"),
    ("classification", "IoU of 0.5 or more with an instance of another category"),
    ("both", "another category, and IoU below 0.5"),
    ("duplicate", "the instance has a better detection already"),
    ("background", "IoU below 0.1 with every instance"),
    ("missed", "instances that no detection is about"),
    ("elsewhere", "wrong detections about instances that the row is not about"),
)


def error_page(study: ErrorStudy) -> str:
    """The whole document."""
    sections = [header(study), loss_section(study.report), confusion_section(study.report["confusion"])]
    if study.report["suppression"] is not None:
        sections.append(suppression_section(study.report["suppression"]))
    return page("Errors", [*sections, curve_section(study.report)])


def header(study: ErrorStudy) -> str:
    """Title, what was analysed, and the numbers that sum it up."""
    sources = (("Ground truth", study.truth_name), ("Predictions", study.results_name))
    named = " · ".join(f"{role} <code>{escape(Path(name).name)}</code>" for role, name in sources)
    notes = "".join(f'<p class="faint">{escape(note)}.</p>' for note in study.notes)
    summary = []
    for kind, errors in by_kind(study.report).items():
        view = errors["views"][0]
        if view["instances"]:
            lost = {name: view["errors"][name]["difference"] or 0.0 for name in ERROR_TYPES}
            worst = max(lost, key=lambda name: lost[name])
            summary.append((points(view["AP50"]), f"{KIND_NAMES[kind]} AP50"))
            summary.append((points(lost[worst]), f"of {KIND_NAMES[kind]} AP50 lost to the costliest: {worst}"))
    return f"<header><h1>Where AP is lost</h1><p>{named}</p>{notes}{facts(summary)}</header>"


def loss_section(report: ErrorReport) -> str:
    """What each type of error costs, by size and for huddled and lone instances; and how many there are."""
    text = (
        "AP50 that mending one type of error would add, in points of 100. A row looks at some of the instances and "
        "ignores the others. The costs need not add up: mending one type changes what the next is worth."
    )
    kinds = by_kind(report)
    reach = max([1e-9, *(value for errors in kinds.values() for value in _values(errors))])
    tables = [
        _loss_table(errors, report, f"{KIND_NAMES[kind].capitalize()} AP50", reach) for kind, errors in kinds.items()
    ]
    counts = [
        f"<h3>Number of errors, {KIND_NAMES[kind]}, all scores</h3>{plain_table(*count_rows(errors, report))}"
        for kind, errors in kinds.items()
    ]
    meanings = "".join(f"<li><b>{name}</b>: {escape(meaning)}</li>" for name, meaning in _MEANINGS)
    return _section("Types of error", text) + f'<ul class="faint">{meanings}</ul>' + _stack([*tables, *counts])


def _values(errors: Errors) -> list[float]:
    return [loss["difference"] or 0.0 for view in errors["views"] for loss in view["errors"].values()]


def _loss_table(errors: Errors, report: ErrorReport, caption: str, reach: float) -> str:
    rows: list[tuple[str, Sequence[HeatCell | None]]] = []
    for view in errors["views"]:
        cells: list[HeatCell | None] = [
            HeatCell(
                points(loss["difference"]),
                share=(loss["difference"] or 0.0) / reach,
                hue="less",
                title=f"{loss['count']} errors",
            )
            if loss["difference"] is not None
            else None
            for loss in view["errors"].values()
        ]
        first = HeatCell(points(view["AP50"]), title=f"{view['instances']} instances") if view["instances"] else None
        rows.append((view_text(view, report), [first, *cells]))
    return heat_table(caption, "instances", ["AP50", *ERROR_TYPES], rows)


def confusion_section(confusion: Confusion) -> str:
    """The matrix where there are few categories, and the most frequent confusions."""
    totals = ", ".join(f"{count} {name}" for name, count in confusion_totals(confusion).items())
    text = (
        f"At {KIND_NAMES[confusion['kind']]} IoU {confusion['iou']:g}, of results that score at least "
        f"{confusion['score_threshold']:g}: {totals}. A result of the right category comes first, as for AP."
    )
    parts = []
    if len(confusion["categories"]) <= _MOST_CATEGORIES:
        parts.append(_matrix(confusion))
    head, rows = mistake_rows(confusion, 15)
    if rows:
        parts.append(f"<h3>Most frequent confusions</h3>{plain_table(head, rows)}")
    return _section("What was taken for what", text) + _stack(parts)


def _matrix(confusion: Confusion) -> str:
    names = [each["name"] for each in confusion["categories"]]
    rows: list[tuple[str, Sequence[HeatCell | None]]] = []
    for index, (name, counts) in enumerate(zip([*names, BACKGROUND], confusion["matrix"], strict=True)):
        total = max(sum(counts), 1)
        cells = [
            HeatCell(str(count), share=count / total, hue="scale" if index == column else "less") if count else None
            for column, count in enumerate(counts)
        ]
        rows.append((name, cells))
    return heat_table("Instances by what they were found as", "true", [*names, MISSED], rows)


def suppression_section(suppression: Suppression) -> str:
    """What NMS removed."""
    text = (
        f"Instances that one of {suppression['candidates']} candidates before NMS matched and no result does: boxes, "
        "right category, IoU 0.5."
    )
    return _section("What NMS removed", text) + _stack([plain_table(*suppression_rows(suppression))])


def curve_section(report: ErrorReport) -> str:
    """Precision over recall, and the best score thresholds."""
    text = "Mean over the categories. Precision at a recall is the best at this recall or a higher one, as for AP."
    charts = [
        f"<h3>{KIND_NAMES[kind].capitalize()}</h3>{curve_chart(errors['curves'])}"
        for kind, errors in by_kind(report).items()
    ]
    best = [
        f"<h3>Score threshold of the best F1 at IoU 0.5, {KIND_NAMES[kind]}</h3>{plain_table(*best_rows(errors))}"
        for kind, errors in by_kind(report).items()
    ]
    return _section("Precision over recall", text) + cards(charts) + cards(best)


def curve_chart(curves: CurveSet) -> str:
    """Lines in the page's colours, a label for each."""
    mean = curves["mean"] or {}
    lines, labels = [], []
    for (name, values), color in zip(mean.items(), _COLORS, strict=False):
        places = " ".join(
            f"{400 * recall:.1f},{240 - 240 * value:.1f}"
            for recall, value in zip(curves["recalls"], values, strict=True)
        )
        lines.append(f'<polyline points="{places}" style="fill:none;stroke:{color};stroke-width:2"/>')
        labels.append(f'<span style="color:{color}">IoU {name}: AP {points(sum(values) / len(values))}</span>')
    grid = "".join(f'<path d="M0 {60 * step}H400M{100 * step} 0V240" style="stroke:var(--line)"/>' for step in range(5))
    return (
        '<svg viewBox="-2 -2 404 244" role="img" aria-label="Precision from 0 to 1 over recall from 0 to 1" '
        f'style="display:block;width:100%">{grid}{"".join(lines)}</svg>'
        f'<p class="faint">{" · ".join(labels)}</p>'
    )


def _section(title: str, text: str) -> str:
    return f'<h2>{escape(title)}</h2><p class="faint">{escape(text)}</p>'


def _stack(parts: Sequence[str]) -> str:
    """Wide pieces below each other."""
    return "".join(cards([part]) for part in parts)
