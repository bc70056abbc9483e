"""Heat maps of the huddle report as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dsctool.evaluation.huddle.rows import has_baseline
from dsctool.evaluation.huddle.schema import HuddleReport
from dsctool.visualize.pages.figures import draw_heat_map
from dsctool.visualize.pages.html import HeatMap
from dsctool.visualize.pages.huddle.maps import difference_maps, image_map, precision_maps


def heat_maps(report: HuddleReport) -> dict[str, Figure]:
    """Figures by file name: AP per cell, the differences, the numbers of images; boxes and masks side by side."""
    figures = {
        "ap.png": _figure(precision_maps(report, ["candidate"])),
        "images.png": _figure([image_map(report)]),
    }
    if has_baseline(report):
        figures["difference.png"] = _figure(difference_maps(report), against=" against the baseline")
    return figures


def _figure(maps: Sequence[HeatMap], *, against: str = "") -> Figure:
    size = (max(1.0 + 0.82 * len(maps[0].columns), 3.0) * len(maps), 1.1 + 0.5 * len(maps[0].rows))
    figure = Figure(figsize=size, layout="constrained")
    for plot, shown in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        draw_heat_map(plot, shown)
        plot.set_title(f"{shown.caption}{against}", fontsize=11)
        plot.set_xlabel("$T_P$: share of huddled instances greater than")
        plot.set_ylabel("$T_O$: overlap greater than")
    return figure
