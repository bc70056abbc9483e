"""Tables: drawn by Rich on a terminal, aligned plain lines that are never wrapped or cut elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """``rows`` under ``header`` on standard output; the last column takes what room is left."""
    if sys.stdout.isatty():
        _print_rich(header, rows)
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_limit(max_dets: int) -> None:
    """How many detections count, where they are not COCO's 100."""
    if max_dets != 100:
        typer.echo(f"detections that count per image and class: {max_dets}; COCO counts 100")


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(header):
        table.add_column(title, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
