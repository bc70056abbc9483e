"""The curves of several runs over each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsctool.runs.history import History
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.figures import quiet, save_figures

_COLORS = ("#1a6fd0", "#d9690f", "#0c8a78", "#8a5fb0", "#a08c10", "#c2407a", "#4a5866", "#6fae3a")


def save_curves(path: Path, runs: Mapping[str, History]) -> None:
    """Write a PNG: AP, loss and learning rate over steps, a colour for each run, by its name."""
    figure = Figure(figsize=(15.0, 4.6), layout="constrained")
    plots = figure.subplots(1, 3)
    for (name, history), color in zip(runs.items(), cycle(_COLORS), strict=False):
        _precision(plots[0], history, name, color)
        for plot, key in zip(plots[1:], ("loss", "lr"), strict=True):
            lines = [line for line in history.train if key in line]
            plot.plot([line["step"] for line in lines], [line[key] for line in lines], color=color, linewidth=1.5)
    for plot, title in zip(plots, ("AP (0 to 100)", "loss, the sum of all", "learning rate"), strict=True):
        plot.set_title(title, fontsize=11)
        plot.set_xlabel("step")
        plot.set_ylim(bottom=0)
        quiet(plot, grid="both")
    figure.legend(loc="outside lower center", ncols=min(len(runs), 4), frameon=False, fontsize=10)
    save_figures(path.parent, {path.name: figure})


def _precision(plot: Axes, history: History, name: str, color: str) -> None:
    """The curve that stands for the run in the legend, also where it has no points yet."""
    main = history.main or "segm"
    kind = f" ({KIND_NAMES[main]})" if history.evaluations else " (never evaluated)"
    steps = [line["step"] for line in history.evaluations]
    values = [100 * line[f"{main}_AP"] for line in history.evaluations]
    plot.plot(steps, values, color=color, linewidth=1.8, marker="o", markersize=4, label=name + kind)
