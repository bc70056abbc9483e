"""The analysis of errors as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from dsctool.evaluation.error_analysis.rows import BACKGROUND, MISSED, by_kind, view_text
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, Confusion, ErrorReport, Errors, ErrorView, ViewName
from dsctool.structures import KIND_NAMES

_GROUPS: tuple[tuple[ViewName, ...], ...] = (("all", "huddled", "lone"), ("small", "medium", "large"))
_BARS = ("#4a5866", "#1a6fd0", "#7cc7ba")
_LINES = ("#1a6fd0", "#d9690f", "#0c8a78")
_SHADES = LinearSegmentedColormap.from_list("share", ("#f7f7f7", "#7cc7ba", "#0b6a5d"))
_MOST_CATEGORIES = 30
_MOST_WITH_TEXT = 16


def error_figures(report: ErrorReport) -> dict[str, Figure]:
    """Figures by file name: what each type costs, the confusion matrix, precision over recall."""
    return {
        "errors.png": _losses(report),
        "confusion.png": _confusion(report["confusion"]),
        "curves.png": _curves(report),
    }


def _losses(report: ErrorReport) -> Figure:
    """A row of plots for each kind; huddled against lone at the left, sizes at the right."""
    kinds = by_kind(report)
    figure = Figure(figsize=(11.0, 3.6 * len(kinds)), layout="constrained")
    plots = figure.subplots(len(kinds), len(_GROUPS), squeeze=False, sharex=True)
    for line, (kind, errors) in zip(plots, kinds.items(), strict=True):
        views = {view["name"]: view for view in errors["views"]}
        for plot, names in zip(line, _GROUPS, strict=True):
            _bars(plot, [views[name] for name in names], report)
            plot.set_title(f"{KIND_NAMES[kind]} AP50 that errors cost", fontsize=11)
    for plot in plots[-1]:
        plot.set_xlabel("points of 100")
    reach = max(plot.dataLim.x1 for plot in plots.flat)
    plots[0, 0].set_xlim(0, max(1.0, 1.7 * reach))  # for all of them; leaves room for the legend
    return figure


def _bars(plot: Axes, views: Sequence[ErrorView], report: ErrorReport) -> None:
    height = 0.8 / len(views)
    for index, (view, color) in enumerate(zip(views, _BARS, strict=True)):
        lost = [100 * (view["errors"][name]["difference"] or 0.0) for name in ERROR_TYPES]
        places = np.arange(len(ERROR_TYPES)) + (index - (len(views) - 1) / 2) * height
        precision = f"AP50 {100 * view['AP50']:.1f}" if view["instances"] else "no instances"
        plot.barh(places, lost, height * 0.9, color=color, label=f"{view_text(view, report)}: {precision}")
    plot.set_yticks(range(len(ERROR_TYPES)), ERROR_TYPES)
    plot.invert_yaxis()
    plot.legend(fontsize=9, frameon=False, loc="center right")
    _quiet(plot, grid="x")


def _confusion(confusion: Confusion) -> Figure:
    """Rows as shares; of many categories those with most instances and detections."""
    matrix = np.asarray(confusion["matrix"], dtype=np.float64)
    last = len(matrix) - 1
    weight = matrix[:last].sum(axis=1) + matrix[:, :last].sum(axis=0)
    shown = np.sort(np.argsort(-weight, kind="stable")[:_MOST_CATEGORIES])
    names = [confusion["categories"][index]["name"] for index in shown]
    part = matrix[np.ix_([*shown, last], [*shown, last])]
    shares = part / np.maximum(matrix[[*shown, last]].sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * len(part)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    plot = figure.subplots()
    plot.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    plot.set_xticks(range(len(part)), [*names, MISSED], rotation=60, ha="right", rotation_mode="anchor")
    plot.set_yticks(range(len(part)), [*names, BACKGROUND])
    plot.set_xlabel("found as")
    plot.set_ylabel("true")
    few = f", the {len(shown)} commonest of {last} categories" if len(shown) < last else ""
    where = f"{KIND_NAMES[confusion['kind']]} IoU {confusion['iou']:g}, score at least"
    plot.set_title(f"{where} {confusion['score_threshold']:g}{few}", fontsize=11)
    if len(part) <= _MOST_WITH_TEXT:
        for row, column in np.argwhere(part > 0):
            color = "#ffffff" if shares[row, column] > 0.6 else "#101418"
            plot.text(column, row, f"{part[row, column]:.0f}", ha="center", va="center", fontsize=9, color=color)
    _quiet(plot)
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
    curves = errors["curves"]
    for (name, values), color in zip((curves["mean"] or {}).items(), _LINES, strict=False):
        label = f"IoU {name}: AP {100 * float(np.mean(values)):.1f}"
        plot.plot(curves["recalls"], values, color=color, linewidth=1.8, label=label)
    if curves["mean"] is not None:
        plot.legend(fontsize=9, frameon=False)
    plot.set_xlim(0, 1)
    plot.set_ylim(0, 1.02)
    _quiet(plot, grid="both")


def _quiet(plot: Axes, *, grid: Literal["x", "both"] | None = None) -> None:
    plot.tick_params(which="both", length=0)
    for side in plot.spines.values():
        side.set_visible(False)
    if grid is not None:
        plot.grid(axis=grid, color="#dde3e8", linewidth=0.8)
        plot.set_axisbelow(True)
