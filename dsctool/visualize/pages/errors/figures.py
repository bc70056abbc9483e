"""The analysis of errors as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsctool.evaluation.error_analysis.rows import by_kind, curve_lines, view_text
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, Confusion, ErrorReport, Errors, ErrorView
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.errors.maps import confusion_map
from dsctool.visualize.pages.figures import draw_heat_map, quiet

_HUDDLED = ("all", "huddled", "lone")  # drawn together; ranges of areas beside them
_BARS = ("#4a5866", "#1a6fd0", "#7cc7ba", "#d9690f", "#8a5fb0", "#b0a030")
_LINES = ("#1a6fd0", "#d9690f", "#0c8a78")
_MOST_CATEGORIES = 30
_MOST_WITH_TEXT = 16


def error_figures(report: ErrorReport) -> dict[str, Figure]:
    """Figures by file name: what each type costs, the confusion matrix, precision over recall."""
    return {
        "errors.png": _costs(report),
        "confusion.png": _confusion(report["confusion"]),
        "curves.png": _curves(report),
    }


def _costs(report: ErrorReport) -> Figure:
    """A row of plots for each kind; huddled against lone at the left, sizes at the right."""
    kinds = by_kind(report)
    figure = Figure(figsize=(11.0, 3.6 * len(kinds)), layout="constrained")
    plots = figure.subplots(len(kinds), 2, squeeze=False, sharex=True)
    for line, (kind, errors) in zip(plots, kinds.items(), strict=True):
        for plot, together in zip(line, (True, False), strict=True):
            _bars(plot, [view for view in errors["views"] if (view["name"] in _HUDDLED) == together], report)
            plot.set_title(f"{KIND_NAMES[kind]} AP50 that errors cost", fontsize=11)
    for plot in plots[-1]:
        plot.set_xlabel("points of 100")
    reach = max(plot.dataLim.x1 for plot in plots.flat)
    plots[0, 0].set_xlim(0, max(1.0, 1.7 * reach))  # for all of them; leaves room for the legend
    return figure


def _bars(plot: Axes, views: Sequence[ErrorView], report: ErrorReport) -> None:
    height = 0.8 / max(len(views), 1)
    for index, (view, color) in enumerate(zip(views, cycle(_BARS), strict=False)):
        lost = [100 * (view["errors"][name]["difference"] or 0.0) for name in ERROR_TYPES]
        places = np.arange(len(ERROR_TYPES)) + (index - (len(views) - 1) / 2) * height
        precision = f"AP50 {100 * view['AP50']:.1f}" if view["instances"] else "no instances"
        plot.barh(places, lost, height * 0.9, color=color, label=f"{view_text(view, report)}: {precision}")
    plot.set_yticks(range(len(ERROR_TYPES)), ERROR_TYPES)
    plot.invert_yaxis()
    plot.legend(fontsize=9, frameon=False, loc="center right")
    quiet(plot, grid="x")


def _confusion(confusion: Confusion) -> Figure:
    shown, categories = confusion_map(confusion, most=_MOST_CATEGORIES), len(confusion["categories"])
    side = 2.2 + 0.42 * len(shown.rows)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    plot = figure.subplots()
    draw_heat_map(plot, shown, empty="", texts=len(shown.rows) <= _MOST_WITH_TEXT)
    plot.set_xticks(range(len(shown.columns)), shown.columns, rotation=60, ha="right", rotation_mode="anchor")
    plot.set_xlabel("found as")
    plot.set_ylabel("true")
    few = f", the {_MOST_CATEGORIES} commonest of {categories} categories" if categories > _MOST_CATEGORIES else ""
    where = f"{KIND_NAMES[confusion['kind']]} IoU {confusion['iou']:g}, score at least"
    plot.set_title(f"{where} {confusion['score_threshold']:g}{few}", fontsize=11)
    return figure


def _curves(report: ErrorReport) -> Figure:
    kinds = by_kind(report)
    figure = Figure(figsize=(5.2 * len(kinds), 4.2), layout="constrained")
    for plot, (kind, errors) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True):
        _lines(plot, errors)
        plot.set_title(f"{KIND_NAMES[kind]}, mean over categories", fontsize=11)
        plot.set_xlabel("recall")
        plot.set_ylabel("precision")
    return figure


def _lines(plot: Axes, errors: Errors) -> None:
    lines = curve_lines(errors)
    for (label, values), color in zip(lines, _LINES, strict=False):
        plot.plot(errors["curves"]["recalls"], values, color=color, linewidth=1.8, label=label)
    if lines:
        plot.legend(fontsize=9, frameon=False)
    plot.set_xlim(0, 1)
    plot.set_ylim(0, 1.02)
    quiet(plot, grid="both")
