"""The cells of a huddle report as heat maps, for the page and for pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from dsctool.evaluation.huddle.rows import Side, cell_rows, columns, difference, interval, kinds, precision
from dsctool.evaluation.huddle.schema import Cell, HuddleReport
from dsctool.evaluation.rows import points
from dsctool.terms import KIND_NAMES, Kind
from dsctool.visualize.pages.html import HeatCell, HeatMap, scaled


def difference_maps(report: HuddleReport) -> list[HeatMap]:
    """Candidate minus baseline, of boxes and of masks, with the intervals."""

    def show(kind: Kind, cell: Cell) -> HeatCell:
        value = difference(cell, kind)
        bounds = interval(cell, kind)
        return HeatCell(
            text=points(value, sign=True),
            share=abs(value or 0.0),
            hue="less" if (value or 0.0) < 0 else "more",
            small="" if bounds is None else "…".join(points(bound, sign=True) for bound in bounds),
            title=_size_of(cell),
        )

    return scaled([_map(report, _name(kind), partial(show, kind)) for kind in kinds(report)])


def precision_maps(report: HuddleReport, sides: Sequence[Side]) -> list[HeatMap]:
    """AP of each side, of boxes and of masks."""

    def show(kind: Kind, side: Side, cell: Cell) -> HeatCell:
        value = precision(cell, kind, side)
        return HeatCell(points(value), share=value or 0.0, title=_size_of(cell))

    return scaled(
        [_map(report, f"{_name(kind)}, {side}", partial(show, kind, side)) for side in sides for kind in kinds(report)]
    )


def image_map(report: HuddleReport) -> HeatMap:
    """The number of images of every cell."""

    def show(cell: Cell) -> HeatCell:
        return HeatCell(str(cell["images"]), share=cell["images"], title=_size_of(cell))

    return scaled([_map(report, "Images per cell", show, keep_empty=True)])[0]


def _map(report: HuddleReport, caption: str, show: Callable[[Cell], HeatCell], *, keep_empty: bool = False) -> HeatMap:
    body = [
        (f"{t_o:g}", [show(cell) if cell is not None and (cell["images"] or keep_empty) else None for cell in cells])
        for t_o, cells in cell_rows(report["cells"]).items()
    ]
    return HeatMap(caption, "T_O ╲ T_P", [f"{value:g}" for value in columns(report["cells"])], body)


def _name(kind: Kind) -> str:
    return f"{KIND_NAMES[kind].capitalize()} AP"


def _size_of(cell: Cell) -> str:
    return f"{cell['images']} images, {cell['instances']} instances"
