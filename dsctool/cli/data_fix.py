"""``dsctool data check --fix``: mended copies of annotation files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.output import keep_apart, prepare_file
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.faults import Fault
    from dsctool.data.layout import SplitFiles

    Split = tuple[SplitFiles, bool]
    """With whether it is trained on."""


def mended_paths(output: Path, splits: list[SplitFiles], *, overwrite: bool) -> list[Path]:
    """What the mended copies are called; nothing is written over unless that is asked for.

    Raises:
        DsctoolError: a file is there already, or is one of those that are read.
    """
    if output.suffix.lower() != ".json":
        paths = [output / files.annotations.name for files in splits]
    elif len(splits) == 1:
        paths = [output]
    else:
        paths = [output.with_name(f"{output.stem}_{files.images.name}{output.suffix}") for files in splits]
    keep_apart(paths, [files.annotations for files in splits])
    for path in paths:
        prepare_file(path)
        if path.exists() and not overwrite:
            raise DsctoolError(f"{path}: is there already; name another file, or replace it with --overwrite")
    return paths


def write_mended(splits: list[Split], paths: list[Path]) -> tuple[list[Split], list[Fault]]:
    """Write the mended copies, each whole or not at all, once all are made; the splits with them, and what was done."""
    from dsctool.data.mending import mend
    from dsctool.files import write_text

    mended = [mend(files) for files, _ in splits]
    for each, path in zip(mended, paths, strict=True):
        write_text(path, json.dumps(each.content))
    copies = [(replace(files, annotations=path), learnt) for (files, learnt), path in zip(splits, paths, strict=True)]
    return copies, [change for each in mended for change in each.changes]


def tell_use(copies: list[Split]) -> None:
    """How to train with the copies."""
    for files, learnt in copies:
        role = "train" if learnt else "val"
        words = f"data.{role}.annotations={files.annotations.absolute()} data.{role}.images={files.images.absolute()}"
        typer.echo(f"{files.annotations}: written; to use it: {words}", err=True)
