"""The huddle report on the terminal, as the paper prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.evaluation.huddle.study import HuddleStudy


def show_huddles(study: HuddleStudy) -> None:
    """AP, box / mask, of every cell, or the difference from the baseline; then how many images that is."""
    from dsctool.evaluation.huddle import rows as grid
    from dsctool.structures import KIND_NAMES

    report = study.report
    names = " / ".join(KIND_NAMES[kind] for kind in grid.kinds(report))
    header, rows = grid.paper_rows(report, side="candidate")
    typer.echo(f"{names} AP of images whose share of instances that overlap by more than T_O is greater than T_P")
    print_table(header, rows)
    if grid.has_baseline(report):
        header, rows = grid.paper_rows(report)
        typer.echo(f"\n{names} AP minus the baseline's")
        print_table(header, rows)
        for kind in grid.kinds(report) if report["bootstrap"] else []:
            typer.echo(f"\n95 % interval, {KIND_NAMES[kind]}")
            print_table(header, grid.interval_rows(report, kind))
    typer.echo("\nimages")
    print_table(header, grid.image_rows(report))
    typer.echo(f"\n{names} AP of huddled instances by themselves, the others ignored")
    print_table(*grid.instance_rows(report))
    for note in study.notes:
        typer.echo(note)
