"""``dsctool data merge``: several data sets, or annotation files, as one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.output import counting, prepare_folder
from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.data.merging import Merged
    from dsctool.terms import Progress


class SharedImages(StrEnum):
    """What becomes of annotations that differ."""

    REFUSE = "refuse"
    KEEP = "keep"
    FIRST = "first"
    LAST = "last"


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="Roots of data sets, or annotation files; two or more.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR|FILE.json", help="A new data set, or annotations alone.")
    ],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Put everything into one split of this name.")
    ] = None,
    shared: Annotated[
        SharedImages,
        typer.Option("--shared", help="Images that several have, annotated in different ways: which annotations stay."),
    ] = SharedImages.REFUSE,
) -> None:
    """Merge data sets: classes by name, images of the same name and content once, ids from 1.

    Splits of one name are merged; --split puts all into one. Images are linked into DIR, or else copied; one that has
    the name of another gets a new name. FILE.json has the annotations alone: names stay as they are.
    Annotations of an image that several have are kept once where they are equal; where they differ, --shared says what
    to do: refuse, keep all (equal ones once), or take those of the first or the last that has any.
    Stuff maps and panoptic truth are not merged.

    Examples:

        dsctool data merge scenes corrected --split train --output more

        dsctool data merge a.json b.json --output both.json --shared last
    """
    from dsctool.data.merging import merge as merged_sources
    from dsctool.data.merging import open_source, refuse_leaks
    from dsctool.data.split_sources import split_name, splits_of
    from dsctool.files import whole_file

    if len(sources) < 2:
        raise typer.BadParameter("give two or more data sets", param_hint="A B...")
    alone = output.suffix.lower() == ".json"
    if alone and split is not None:
        raise typer.BadParameter("is for data sets: annotations alone have no splits", param_hint="--split")
    prepare_folder(output.parent)
    if output.exists() and (alone or not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: exists already; name a new {'file' if alone else 'folder'}")
    opened = [open_source(files) for source in sources for files in splits_of(source)]
    names = [split or ("" if alone else split_name(source.files)) for source in opened]
    parts = {
        name: merged_sources(
            [source for source, own in zip(opened, names, strict=True) if own == name],
            shared=shared.value,
            rename=not alone,
        )
        for name in dict.fromkeys(names)
    }
    refuse_leaks(parts)
    if alone:
        with whole_file(output) as file:
            parts[""].write(file)
    else:
        with counting() as progress:
            _write(output, parts, progress)
    for name, part in parts.items():
        where = f"{output}{f' {name}' if name else ''}"
        twice = f", {part.doubled} of which several had" if part.doubled else ""
        renamed = f", {part.renamed} under a new name" if part.renamed else ""
        counts = f"{len(part.images)} images{twice}{renamed}, {part.num_annotations} annotations"
        typer.echo(f"{where}: {counts}, {len(part.categories)} classes")


def _write(output: Path, parts: Mapping[str, Merged], progress: Progress) -> None:
    """The data set, whole or not at all."""
    from dsctool.files import keep_as

    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        prepare_folder(partial / "annotations")
        for name, part in parts.items():
            for number, image in enumerate(part.images, start=1):
                if not image.path.is_file():
                    source = image.origin[0].files.annotations
                    raise DataError(f"{image.path}: no such file, of {source}; --output FILE.json does without images")
                target = partial / name / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                keep_as(image.path.resolve(), target)
                progress(f"images of {name}", number, len(part.images))
            with (partial / "annotations" / f"instances_{name}.json").open("wb") as file:
                part.write(file)
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
