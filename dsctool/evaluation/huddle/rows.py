"""The huddle report cell by cell, rows of T_O by columns of T_P, and as texts in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from dsctool.evaluation.huddle.schema import Cell, HuddleReport, Measured, Subset
from dsctool.evaluation.rows import Table, points
from dsctool.terms import Kind

Side = Literal["candidate", "baseline"]
_Cell = TypeVar("_Cell", bound=Subset)


def columns(cells: Sequence[Subset]) -> list[float]:
    """The values of T_P."""
    return list(dict.fromkeys(cell["t_p"] for cell in cells))


def cell_rows(cells: Sequence[_Cell]) -> dict[float, list[_Cell | None]]:
    """Cells by T_O; None for repetitions: below T_O = 0 every instance is huddled, and one column says it all."""
    rows: dict[float, list[_Cell | None]] = {}
    for cell in cells:
        row = rows.setdefault(cell["t_o"], [])
        row.append(None if cell["t_o"] < 0 and row else cell)
    return rows


def kinds(report: HuddleReport) -> list[Kind]:
    """Boxes, and masks where the report has them."""
    with_masks = any(cell["segm"] is not None for cell in report["cells"])
    return ["bbox", "segm"] if with_masks else ["bbox"]


def has_baseline(report: HuddleReport) -> bool:
    """Whether there are differences."""
    return any(cell["baseline"] is not None for cell in report["cells"])


def sides(report: HuddleReport) -> list[Side]:
    """Of which there are numbers."""
    return ["candidate", "baseline"] if has_baseline(report) else ["candidate"]


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


def paper_rows(report: HuddleReport, *, side: Side | None = None) -> Table:
    """The published table: ``box / mask``, the difference, or the AP of one side."""

    def text(cell: Cell) -> str:
        if not cell["images"]:
            return "-"
        values = (difference(cell, kind) if side is None else precision(cell, kind, side) for kind in kinds(report))
        return " / ".join(points(value) for value in values)

    return cell_table(report["cells"], text)


def interval_rows(report: HuddleReport, kind: Kind) -> Table:
    """The differences' intervals."""

    def text(cell: Cell) -> str:
        return " to ".join(points(bound) for bound in interval(cell, kind) or ()) or "-"

    return cell_table(report["cells"], text)


def image_rows(report: HuddleReport) -> Table:
    """The numbers of images."""
    return cell_table(report["cells"], lambda cell: str(cell["images"]))


def cell_table(cells: Sequence[_Cell], text: Callable[[_Cell], str]) -> Table:
    """T_O by T_P, with a text for each cell."""
    body = [
        [f"{t_o:g}", *("-" if cell is None else text(cell) for cell in row)] for t_o, row in cell_rows(cells).items()
    ]
    return ["T_O \\ T_P", *(f"{value:g}" for value in columns(cells))], body


def instance_rows(report: HuddleReport) -> Table:
    """The view of single instances: ``box / mask`` AP, the baseline's, and the difference."""
    header = ["T_O", "instances", *sides(report), *(["difference"] if has_baseline(report) else [])]
    body = []
    for view in report["instance_level"]:
        texts = [[points(precision(view, kind, side)) for kind in kinds(report)] for side in sides(report)]
        if has_baseline(report):
            texts.append([points(difference(view, kind)) for kind in kinds(report)])
        body.append([f"{view['t_o']:g}", str(view["instances"]), *(" / ".join(pair) for pair in texts)])
    return header, body
