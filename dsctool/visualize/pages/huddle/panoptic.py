"""The panoptic huddle report as a page."""

from __future__ import annotations

from collections.abc import Callable

from dsctool.evaluation.huddle.panoptic.rows import (
    fused_quality,
    gain,
    has_baseline,
    instance_rows,
    interval,
    loss_rows,
    quality,
    sides,
)
from dsctool.evaluation.huddle.panoptic.schema import PanopticCell, PanopticHuddleReport
from dsctool.evaluation.huddle.panoptic.study import PanopticHuddleStudy
from dsctool.evaluation.huddle.rows import Side, cell_rows, columns
from dsctool.evaluation.rows import points
from dsctool.visualize.pages.html import HeatCell, HeatMap, render, scaled


def panoptic_page(study: PanopticHuddleStudy) -> str:
    """The whole document."""
    report = study.report
    fusion = report["fusion"]
    values = {
        "study": study,
        "report": report,
        "differences": scaled([_map(report, "PQ", _gained)]) if has_baseline(report) else [],
        "qualities": scaled([_map(report, f"PQ, {side}", _measured(side)) for side in sides(report)]),
        "instances": instance_rows(report),
        "images": scaled([_map(report, "Images per cell", _images)])[0],
        "losses": [(each, fused_quality(each), loss_rows(each)) for each in fusion["losses"]] if fusion else [],
    }
    return render("panoptic_huddle.html", values)


def _gained(cell: PanopticCell) -> HeatCell:
    value, *others = gain(cell)
    bounds = interval(cell)
    return HeatCell(
        text=points(value, sign=True),
        share=abs(value or 0.0),
        hue="less" if (value or 0.0) < 0 else "more",
        small=_signed(others) if bounds is None else "…".join(points(bound, sign=True) for bound in bounds),
        title=_size_of(cell),
    )


def _signed(values: list[float | None]) -> str:
    return " / ".join(points(value, sign=True) for value in values)


def _measured(side: Side) -> Callable[[PanopticCell], HeatCell]:
    def show(cell: PanopticCell) -> HeatCell:
        value, *others = quality(cell, side)
        small = " / ".join(points(each) for each in others)
        return HeatCell(points(value), share=value or 0.0, small=small, title=_size_of(cell))

    return show


def _images(cell: PanopticCell) -> HeatCell:
    return HeatCell(str(cell["images"]), share=cell["images"], title=_size_of(cell))


def _map(report: PanopticHuddleReport, caption: str, show: Callable[[PanopticCell], HeatCell]) -> HeatMap:
    body = [
        (f"{t_o:g}", [show(cell) if cell is not None and cell["images"] else None for cell in cells])
        for t_o, cells in cell_rows(report["cells"]).items()
    ]
    return HeatMap(caption, "T_O ╲ T_P", [f"{value:g}" for value in columns(report["cells"])], body)


def _size_of(cell: PanopticCell) -> str:
    return f"{cell['images']} images, {cell['instances']} things"
