"""Plots of counts against their truth, and of quality over the score threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsctool.evaluation.counts import CountStudy
from dsctool.evaluation.operating_point import IOU, THRESHOLDS, ClassPoint, OperatingStudy
from dsctool.evaluation.tables import Ints
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.figures import quiet, save_figures

_COLORS = ("#1a6fd0", "#d9690f", "#0c8a78", "#8a5fb0", "#a08c10", "#c2407a", "#4a5866", "#6fae3a")
"""Of the classes with most instances; there is room for no more names."""
_FAINT, _INK = "#c3ccd4", "#101418"


def save_counts(path: Path, study: CountStudy) -> None:
    """Write a PNG: found over true counts, of all classes together and of each; above the line too many are found.

    A dot is as large as there are images at its place.
    """
    figure = Figure(figsize=(12.4, 6.0), layout="constrained")
    together, by_class = figure.subplots(1, 2)
    _draw_counts(together, study.true.sum(axis=1), study.found.sum(axis=1), _COLORS[0], None)
    together.set_title("instances an image, all classes", fontsize=11)
    order = np.argsort(-study.true.sum(axis=0), kind="stable").tolist()
    for place, column in reversed(list(enumerate(order))):
        named = place < len(_COLORS)
        label = study.classes[column].name if named else None
        color = _COLORS[place] if named else _FAINT
        aside = (place - len(_COLORS) / 2) / 40 if named else 0.0
        _draw_counts(by_class, study.true[:, column], study.found[:, column], color, label, aside)
    by_class.set_title("instances an image, by class", fontsize=11)
    for plot in (together, by_class):
        end = 1.05 * max(plot.get_xlim()[1], plot.get_ylim()[1], 1)
        low = -0.02 * end - 0.3
        plot.plot([0, end], [0, end], color=_INK, linewidth=1, alpha=0.45, zorder=1)
        plot.set_xlim(low, end)
        plot.set_ylim(low, end)
        plot.set_aspect("equal")
        plot.set_xlabel("true")
        plot.set_ylabel("found")
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.yaxis.set_major_locator(MaxNLocator(integer=True))
        quiet(plot, grid="both")
    handles, labels = by_class.get_legend_handles_labels()
    if labels:
        legend = by_class.legend(handles[::-1], labels[::-1], loc="upper left", frameon=False, fontsize=9)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([40])
    save_figures(path.parent, {path.name: figure})


def _draw_counts(plot: Axes, true: Ints, found: Ints, color: str, label: str | None, aside: float = 0.0) -> None:
    """aside: how far the dots lie to the right of their places, so that those of several classes are seen."""
    pairs, images = np.unique(np.stack([true, found], axis=1), axis=0, return_counts=True)
    sizes = np.minimum(16 * images, 900)
    plot.scatter(
        pairs[:, 0] + aside, pairs[:, 1], s=sizes, color=color, alpha=0.6, edgecolor="white", linewidth=0.6,
        label=label, zorder=2,
    )  # fmt: skip


def save_operating_point(path: Path, study: OperatingStudy) -> None:
    """Write a PNG over the score threshold: precision, recall and F1 of all classes, F1 of each, error of counts."""
    figure = Figure(figsize=(15.6, 4.8), layout="constrained")
    whole, classes, errors = figure.subplots(1, 3)
    curve = study.overall.curve
    for values, name, color in zip((curve.precision, curve.recall, curve.f1), _SHARES, _COLORS, strict=False):
        whole.plot(THRESHOLDS, values, color=color, linewidth=1.8, label=name)
    whole.set_title(f"all classes, {KIND_NAMES[study.kind]} IoU {IOU:g}", fontsize=11)
    if study.overall.at is not None and study.overall.at.threshold is not None:
        whole.axvline(study.overall.at.threshold, color=_INK, linewidth=1, alpha=0.45)
    errors.plot(THRESHOLDS, curve.count_error, color=_INK, linewidth=1.8, label="all")
    shown = sorted((each for each in study.classes if each.instances), key=lambda each: -each.instances)
    for point, color in zip(shown, _COLORS, strict=False):
        _draw_class(classes, point, color)
        errors.plot(THRESHOLDS, point.curve.count_error, color=color, linewidth=1.4, label=point.name)
    classes.set_title("F1 by class; dots: the thresholds chosen", fontsize=11)
    errors.set_title("mean absolute error of counts per image", fontsize=11)
    for plot in (whole, classes, errors):
        plot.set_xlim(-0.01, 1.01)
        plot.set_ylim(-0.01, 1.02)
        plot.set_xlabel("score threshold")
        quiet(plot, grid="both")
        if plot is errors:  # what finds nothing is as far off as there are instances; thousands of weak results further
            plot.set_ylim(0, max(1.4 * float(curve.count_error[-1]), 1))
        if plot.get_legend_handles_labels()[1]:
            plot.legend(frameon=False, fontsize=9)
    save_figures(path.parent, {path.name: figure})


_SHARES = ("precision", "recall", "F1")


def _draw_class(plot: Axes, point: ClassPoint, color: str) -> None:
    plot.plot(THRESHOLDS, point.curve.f1, color=color, linewidth=1.4, label=point.name)
    if point.own and point.at is not None and point.at.threshold is not None and point.at.f1 is not None:
        plot.plot([point.at.threshold], [point.at.f1], color=color, marker="o", markersize=6)
