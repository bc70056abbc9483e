"""The analysis of errors on the terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from dsctool.cli.tables import print_table, show_limit

if TYPE_CHECKING:
    from dsctool.evaluation.error_analysis.study import ErrorStudy

_MISTAKES = 10


def show_errors(study: ErrorStudy, *, said: Collection[str] = ()) -> None:
    """What each type of error costs, what was taken for what, and what NMS removed."""
    from dsctool.evaluation.error_analysis.rows import (
        by_kind,
        confusion_totals,
        cost_rows,
        mistake_rows,
        suppression_rows,
    )
    from dsctool.terms import KIND_NAMES

    report = study.report
    for kind, errors in by_kind(report).items():
        typer.echo(f"{KIND_NAMES[kind]} AP50, and the points that each type of error costs")
        print_table(*cost_rows(errors, report))
        typer.echo()
    confusion = report["confusion"]
    totals = ", ".join(f"{count} {name}" for name, count in confusion_totals(confusion).items())
    where = f"{KIND_NAMES[confusion['kind']]} IoU {confusion['iou']:g}, score {confusion['score_threshold']:g}"
    typer.echo(f"taken for ({where}): {totals}")
    header, rows = mistake_rows(confusion, _MISTAKES)
    if rows:
        print_table(header, rows)
    if report["suppression"] is not None:
        typer.echo("\ninstances that NMS removed: a candidate matched them, no result does")
        print_table(*suppression_rows(report["suppression"]))
    show_limit(report["max_dets"])
    for note in study.notes:
        if note not in said:
            typer.echo(note)
