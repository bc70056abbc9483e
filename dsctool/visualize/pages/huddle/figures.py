"""Heat maps of the huddle report as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from dsctool.evaluation.huddle.rows import (
    Grid,
    axes,
    difference_grid,
    has_baseline,
    image_grid,
    kinds,
    points,
    precision_grid,
)
from dsctool.evaluation.huddle.schema import HuddleReport
from dsctool.files import whole_file
from dsctool.structures import KIND_NAMES


def _colors(name: str, *colors: str) -> Colormap:
    """From the lowest value to the highest; white where there is none."""
    return LinearSegmentedColormap.from_list(name, colors).with_extremes(bad="#ffffff")


_DIVERGING = _colors("difference", "#b84e00", "#f0a468", "#f7f7f7", "#7db2ea", "#0d58ad")
_RISING = _colors("precision", "#f7f7f7", "#7cc7ba", "#0b6a5d")
_COUNTS = _colors("images", "#f7f7f7", "#a9b4c2", "#4a5866")


def heat_maps(report: HuddleReport) -> dict[str, Figure]:
    """Figures by file name: AP per cell, the differences, the numbers of images; boxes and masks side by side."""
    shown = kinds(report)
    figures = {
        "ap.png": _figure(
            report,
            {f"{KIND_NAMES[kind]} AP": precision_grid(report, kind, "candidate") for kind in shown},
            _RISING,
            points,
        ),
        "images.png": _figure(report, {"images": image_grid(report)}, _COUNTS, lambda value: f"{value:.0f}"),
    }
    if has_baseline(report):
        grids = {f"{KIND_NAMES[kind]} AP against the baseline": difference_grid(report, kind) for kind in shown}
        figures["difference.png"] = _figure(
            report, grids, _DIVERGING, lambda value: points(value, sign=True), centred=True
        )
    return figures


def save_figure(target: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(target) as file:
        figure.savefig(file, format="png", dpi=150)


def _figure(
    report: HuddleReport,
    grids: dict[str, Grid],
    colors: Colormap,
    text: Callable[[float], str],
    *,
    centred: bool = False,
) -> Figure:
    """Heat maps side by side with one scale, around zero where ``centred``."""
    rows, columns = axes(report)
    size = (max(1.0 + 0.82 * len(columns), 3.0) * len(grids), 1.1 + 0.5 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    scale = _scale(list(grids.values()), centred)
    plots = figure.subplots(1, len(grids), squeeze=False)[0]
    for plot, (title, grid) in zip(plots, grids.items(), strict=True):
        _draw(plot, grid, colors(scale(np.ma.masked_invalid(grid))), [text(value) for value in grid.flat])
        plot.set_title(title, fontsize=11)
        plot.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        plot.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        plot.set_xlabel("$T_P$: share of huddled instances greater than")
        plot.set_ylabel("$T_O$: overlap greater than")
    return figure


def _scale(grids: Sequence[Grid], centred: bool) -> Normalize:
    values = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    if centred:
        reach = max(float(np.abs(values).max(initial=0.0)), 1e-9)
        return Normalize(-reach, reach)
    return Normalize(0.0, max(float(values.max(initial=0.0)), 1e-9))


def _draw(plot: Axes, grid: Grid, colors: Grid, texts: Sequence[str]) -> None:
    plot.imshow(colors, aspect="auto")
    for index, (value, text) in enumerate(zip(grid.flat, texts, strict=True)):
        row, column = divmod(index, grid.shape[1])
        bright = float(np.dot(colors[row, column, :3], (0.3, 0.59, 0.11))) > 0.5
        shown = text if np.isfinite(value) else "–"  # noqa: RUF001
        plot.text(column, row, shown, ha="center", va="center", fontsize=10, color="#101418" if bright else "#ffffff")
    plot.set_xticks(np.arange(-0.5, grid.shape[1]), minor=True)
    plot.set_yticks(np.arange(-0.5, grid.shape[0]), minor=True)
    plot.grid(which="minor", color="#ffffff", linewidth=2)
    plot.tick_params(which="both", length=0)
    for side in plot.spines.values():
        side.set_visible(False)
