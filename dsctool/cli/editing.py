"""``predict --for-editing``: results as annotations to correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.output import prepare_folder
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.records import Category
    from dsctool.engine.work_file import WorkFile

ForEditing = Annotated[
    Path | None,
    typer.Option(
        "--for-editing",
        metavar="DIR",
        help="Also write what scores at least the threshold as a data set of polygons to correct in an editor.",
    ),
]


def prepare_editing(folder: Path | None, results: Path, *, overwrite: bool, resume: bool) -> None:
    """Find now what is in the way of it. results: the folder of the run's results."""
    from dsctool.engine.editing import refuse_edited

    if folder is not None:
        if folder.resolve() == results.resolve():
            raise DsctoolError(f"{folder}: is the folder of the results; name another one for editing")
        refuse_edited(folder, overwrite=overwrite, resume=resume)
        prepare_folder(folder)


def write_editing(
    folder: Path | None, work: WorkFile, categories: Sequence[Category], thresholds: Mapping[int, float]
) -> None:
    """Write it, where it is wanted, and say where it is."""
    from dsctool.engine.editing import annotations_of, write_for_editing

    if folder is not None:
        count = write_for_editing(folder, work.entries, categories, thresholds)
        typer.echo(f"{annotations_of(folder)}: {count} instances to edit, in {len(work)} images")
