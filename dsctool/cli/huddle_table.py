"""The huddle report on the terminal, as the paper prints it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from dsctool.cli.tables import print_table, show_limit

if TYPE_CHECKING:
    from dsctool.evaluation.huddle.study import HuddleStudy


def show_huddles(study: HuddleStudy, *, said: Collection[str] = ()) -> None:
    """AP, box / mask, of every cell, or the difference from the baseline; then how many images that is.

    said: notes that need not be repeated.
    """
    from dsctool.evaluation.huddle.rows import (
        has_baseline,
        image_rows,
        instance_rows,
        interval_rows,
        kinds,
        paper_rows,
    )
    from dsctool.terms import KIND_NAMES

    report = study.report
    names = " / ".join(KIND_NAMES[kind] for kind in kinds(report))
    typer.echo(f"{names} AP of images whose share of instances that overlap by more than T_O is greater than T_P")
    print_table(*paper_rows(report, side="candidate"))
    if has_baseline(report):
        typer.echo(f"\n{names} AP minus the baseline's")
        print_table(*paper_rows(report))
        for kind in kinds(report) if report["bootstrap"] else []:
            typer.echo(f"\n95 % interval, {KIND_NAMES[kind]}")
            print_table(*interval_rows(report, kind))
    typer.echo("\nimages")
    print_table(*image_rows(report))
    typer.echo(f"\n{names} AP of huddled instances by themselves, the others ignored")
    print_table(*instance_rows(report))
    show_limit(report["max_dets"])
    for note in study.notes:
        if note not in said:
            typer.echo(note)
