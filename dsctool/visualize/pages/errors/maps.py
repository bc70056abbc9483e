"""What errors cost and what was taken for what, as heat maps."""

from __future__ import annotations

import numpy as np

from dsctool.evaluation.error_analysis.rows import BACKGROUND, MISSED, by_kind, view_text
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, Confusion, Cost, ErrorReport, ErrorView
from dsctool.evaluation.rows import points
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.html import HeatCell, HeatMap, scaled


def cost_maps(report: ErrorReport) -> list[HeatMap]:
    """AP50 of every view, and what each type costs, of boxes and of masks."""
    return scaled(
        [
            HeatMap(
                caption=f"{KIND_NAMES[kind].capitalize()} AP50",
                corner="instances",
                columns=["AP50", *ERROR_TYPES],
                rows=[
                    (view_text(view, report), [_whole(view), *(_cost(cost) for cost in view["errors"].values())])
                    for view in errors["views"]
                ],
            )
            for kind, errors in by_kind(report).items()
        ]
    )


def _whole(view: ErrorView) -> HeatCell | None:
    return HeatCell(points(view["AP50"]), title=f"{view['instances']} instances") if view["instances"] else None


def _cost(cost: Cost) -> HeatCell | None:
    if cost["difference"] is None:
        return None
    return HeatCell(points(cost["difference"]), share=cost["difference"], hue="less", title=f"{cost['count']} errors")


def confusion_map(confusion: Confusion, *, most: int) -> HeatMap:
    """Shares of each row; of more than ``most`` categories those with most instances and detections."""
    matrix = np.asarray(confusion["matrix"], dtype=np.int64)
    last = len(matrix) - 1
    weight = matrix[:last].sum(axis=1) + matrix[:, :last].sum(axis=0)
    shown = [*np.sort(np.argsort(-weight, kind="stable")[:most]).tolist(), last]
    names = [each["name"] for each in confusion["categories"]]
    totals = np.maximum(matrix.sum(axis=1), 1)
    rows = [
        (
            [*names, BACKGROUND][row],
            [
                HeatCell(
                    str(matrix[row, column]),
                    share=float(matrix[row, column] / totals[row]),
                    hue="scale" if row == column else "less",
                )
                if matrix[row, column]
                else None
                for column in shown
            ],
        )
        for row in shown
    ]
    return HeatMap("Instances by what they were found as", "true", [[*names, MISSED][column] for column in shown], rows)
