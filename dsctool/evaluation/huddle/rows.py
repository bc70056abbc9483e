"""The huddle report's numbers as grids, rows of T_O by columns of T_P, for tables and heat maps alike."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.huddle.schema import Cell, HuddleReport, Measured
from dsctool.structures import Kind

Side = Literal["candidate", "baseline"]

Grid = NDArray[np.float64]
"""``(T_O, T_P)``, NaN where there is nothing."""


def axes(report: HuddleReport) -> tuple[list[float], list[float]]:
    """The values of T_O and of T_P."""
    rows = list(dict.fromkeys(cell["t_o"] for cell in report["cells"]))
    return rows, list(dict.fromkeys(cell["t_p"] for cell in report["cells"]))


def cell_rows(report: HuddleReport) -> list[list[Cell | None]]:
    """Cells by row; None for repetitions: below T_O = 0 every instance is huddled, and one column says it all."""
    rows, columns = axes(report)
    grid = [report["cells"][index * len(columns) : (index + 1) * len(columns)] for index in range(len(rows))]
    return [
        [None if t_o < 0 and index > 0 else cell for index, cell in enumerate(cells)]
        for t_o, cells in zip(rows, grid, strict=True)
    ]


def kinds(report: HuddleReport) -> list[Kind]:
    """Boxes, and masks where the report has them."""
    with_masks = any(cell["segm"] is not None for cell in report["cells"])
    return ["bbox", "segm"] if with_masks else ["bbox"]


def has_baseline(report: HuddleReport) -> bool:
    """Whether there are differences."""
    return any(cell["baseline"] is not None for cell in report["cells"])


def precision(cell: Measured, kind: Kind, side: Side) -> float | None:
    """AP of a cell; None where there is none."""
    stats = cell if side == "candidate" else cell["baseline"]
    numbers = None if stats is None else stats[kind]
    return None if numbers is None or numbers["AP"] == -1 else numbers["AP"]


def difference(cell: Measured, kind: Kind) -> float | None:
    """AP minus the baseline's; None where there is none."""
    differences = cell["difference"]
    each = differences[kind] if differences is not None else None
    return each["AP"] if each is not None else None


def interval(cell: Measured, kind: Kind) -> tuple[float, float] | None:
    """The bounds of the difference's interval."""
    differences = cell["difference"]
    each = differences[kind] if differences is not None else None
    if each is None or each["low"] is None or each["high"] is None:
        return None
    return each["low"], each["high"]


def precision_grid(report: HuddleReport, kind: Kind, side: Side) -> Grid:
    """AP of every cell that is not a repetition."""
    return _grid([[cell and precision(cell, kind, side) for cell in row] for row in cell_rows(report)])


def difference_grid(report: HuddleReport, kind: Kind) -> Grid:
    """Differences of every cell that is not a repetition."""
    return _grid([[cell and difference(cell, kind) for cell in row] for row in cell_rows(report)])


def image_grid(report: HuddleReport) -> Grid:
    """Number of images of every cell that is not a repetition."""
    return _grid([[cell and float(cell["images"]) for cell in row] for row in cell_rows(report)])


def _grid(rows: list[list[float | None]]) -> Grid:
    return np.asarray([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


# --- texts ------------------------------------------------------------------------------------------


def points(value: float | None, *, sign: bool = False) -> str:
    """AP in points of 100, one decimal, as papers print it; ``-`` for none. sign: also a plus, and a true minus."""
    if value is None or np.isnan(value):
        return "-"
    text = f"{100 * value:.1f}"
    if float(text) == 0:
        return "0.0"
    return (text.replace("-", "\N{MINUS SIGN}") if value < 0 else f"+{text}") if sign else text


def paper_rows(report: HuddleReport, *, side: Side | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the published table: ``box / mask``, the difference, or the AP of one side."""
    rows, columns = axes(report)
    shown = kinds(report)
    header = ["T_O \\ T_P", *(f"{value:g}" for value in columns)]
    body = []
    for t_o, cells in zip(rows, cell_rows(report), strict=True):
        texts = [
            "-"
            if cell is None or cell["images"] == 0
            else " / ".join(
                points(difference(cell, kind) if side is None else precision(cell, kind, side)) for kind in shown
            )
            for cell in cells
        ]
        body.append([f"{t_o:g}", *texts])
    return header, body


def interval_rows(report: HuddleReport, kind: Kind) -> list[list[str]]:
    """Rows of the differences' intervals, for the header of :func:`paper_rows`."""
    rows, _ = axes(report)
    body = []
    for t_o, cells in zip(rows, cell_rows(report), strict=True):
        bounds = [None if cell is None else interval(cell, kind) for cell in cells]
        body.append(
            [f"{t_o:g}", *("-" if pair is None else " to ".join(points(each) for each in pair) for pair in bounds)]
        )
    return body


def image_rows(report: HuddleReport) -> list[list[str]]:
    """Rows of the numbers of images, for the header of :func:`paper_rows`."""
    rows, _ = axes(report)
    return [
        [f"{t_o:g}", *("-" if cell is None else str(cell["images"]) for cell in cells)]
        for t_o, cells in zip(rows, cell_rows(report), strict=True)
    ]


def instance_rows(report: HuddleReport) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the view of single instances: ``box / mask`` AP, the baseline's, and the difference."""
    sides: list[Side] = ["candidate", "baseline"] if has_baseline(report) else ["candidate"]
    header = ["T_O", "instances", *sides, *(["difference"] if has_baseline(report) else [])]
    body = []
    for view in report["instance_level"]:
        texts = [[points(precision(view, kind, side)) for kind in kinds(report)] for side in sides]
        if has_baseline(report):
            texts.append([points(difference(view, kind)) for kind in kinds(report)])
        body.append([f"{view['t_o']:g}", str(view["instances"]), *(" / ".join(pair) for pair in texts)])
    return header, body
