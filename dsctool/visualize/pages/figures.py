"""What the pictures beside the pages share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from dsctool.cores import on_all_cores
from dsctool.files import whole_file
from dsctool.visualize.pages.html import HeatMap, Hue

_COLORS: dict[Hue, tuple[str, str, str]] = {
    "more": ("#f7f7f7", "#7db2ea", "#0d58ad"),
    "less": ("#f7f7f7", "#f0a468", "#b84e00"),
    "scale": ("#f7f7f7", "#7cc7ba", "#0b6a5d"),
}
_SHADES = {hue: LinearSegmentedColormap.from_list(hue, colors) for hue, colors in _COLORS.items()}


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> None:
    """Write figures as PNG by their file names, each whole or not at all."""
    named = list(figures.items())

    def save(part: slice) -> None:
        for name, figure in named[part]:
            FigureCanvasAgg(figure)
            with whole_file(folder / name) as file:
                figure.savefig(file, format="png", dpi=150)

    on_all_cores(save, len(named), worth=1)


def draw_heat_map(plot: Axes, shown: HeatMap, *, empty: str = "–", texts: bool = True) -> None:  # noqa: RUF001
    """A heat map as on the page, without its caption. empty: what stands in an empty place."""
    colors = np.full((len(shown.rows), len(shown.columns), 3), _SHADES["scale"](0.0)[:3])
    for row, (_, cells) in enumerate(shown.rows):
        for column, cell in enumerate(cells):
            if cell is not None:
                colors[row, column] = _SHADES[cell.hue](cell.share)[:3]
            if texts:
                bright = float(colors[row, column] @ (0.3, 0.59, 0.11)) > 0.5
                color, text = "#101418" if bright else "#ffffff", empty if cell is None else cell.text
                plot.text(column, row, text, ha="center", va="center", fontsize=10, color=color)
    plot.imshow(colors, aspect="auto")
    plot.set_xticks(range(len(shown.columns)), shown.columns)
    plot.set_yticks(range(len(shown.rows)), [name for name, _ in shown.rows])
    plot.set_xticks(np.arange(-0.5, len(shown.columns)), minor=True)
    plot.set_yticks(np.arange(-0.5, len(shown.rows)), minor=True)
    plot.grid(which="minor", color="#ffffff", linewidth=2)
    quiet(plot)


def quiet(plot: Axes, *, grid: Literal["x", "both"] | None = None) -> None:
    """Without frame and ticks; with faint lines behind what is drawn where ``grid`` says so."""
    plot.tick_params(which="both", length=0)
    for side in plot.spines.values():
        side.set_visible(False)
    if grid is not None:
        plot.grid(axis=grid, color="#dde3e8", linewidth=0.8)
        plot.set_axisbelow(True)
