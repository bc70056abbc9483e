"""``dsctool data diff``: what changed between two annotations of the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import JsonFile
from dsctool.cli.output import beside, prepare_file, write_json
from dsctool.cli.tables import print_table
from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.data.layout import SplitFiles
    from dsctool.evaluation.annotation_changes import Changes


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="Root of a data set, or an annotation file.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="What became of it.")],
    unchanged: Annotated[
        float, typer.Option("--unchanged", min=0.5, max=1, metavar="IOU", help="From this IoU on, nothing has moved.")
    ] = 0.95,
    json_file: JsonFile = None,
) -> None:
    """Say what changed from A to B, instance by instance: added, removed, moved, relabelled.

    Images go by file name, classes by name. Instances of an image are paired one to one by IoU of their masks (of boxes
    where there are no masks), from 0.5 on: a pair of another class is relabelled, one below --unchanged moved.
    What has no partner was added or removed. --json has every change with image, ids, classes and IoU.

    Examples:

        dsctool data diff found corrected

        dsctool data diff a.json b.json --json changes.json
    """
    from dsctool.data.split_sources import split_name, splits_of
    from dsctool.evaluation.annotation_changes import KINDS, compare_annotations
    from dsctool.evaluation.sources import load_ground_truth

    prepare_file(json_file)
    pairs = _paired(splits_of(before), splits_of(after), before, after)
    content = {}
    with beside(json_file):
        for name, (ours, theirs) in pairs.items():
            truths = load_ground_truth(ours.annotations), load_ground_truth(theirs.annotations)
            for note in (note for truth in truths for note in truth.notes):
                typer.echo(note, err=True)
            changes = compare_annotations(*truths, unchanged=unchanged)
            content[split_name(ours)] = _plain(changes)
            if name:
                typer.echo(f"{name}:")
            counts = changes.counts()
            classes = sorted({name for name, _ in counts})
            rows = [[each, *(str(counts.get((each, kind), 0)) for kind in KINDS)] for each in classes]
            totals = [sum(counts.get((each, kind), 0) for each in classes) for kind in KINDS]
            print_table(["class", *KINDS], [*rows, ["all", *map(str, totals)]])
            _describe(changes)
    if json_file is not None:
        write_json(json_file, content if len(pairs) > 1 else next(iter(content.values())), indent=2)


def _paired(
    ours: list[SplitFiles], theirs: list[SplitFiles], before: Path, after: Path
) -> dict[str, tuple[SplitFiles, SplitFiles]]:
    """Splits of one name; where each side has one only, these."""
    from dsctool.data.split_sources import split_name

    if len(ours) == len(theirs) == 1:
        return {"": (ours[0], theirs[0])}
    others = {split_name(files): files for files in theirs}
    own = {split_name(files): files for files in ours}
    if set(own) != set(others):
        raise DataError(
            f"{after}: its splits are {', '.join(others)}, those of {before} are {', '.join(own)}; "
            "name the two annotation files to compare"
        )
    return {name: (files, others[name]) for name, files in own.items()}


def _describe(changes: Changes) -> None:
    typer.echo(f"{changes.unchanged} instances are unchanged, in {changes.images} images that both have")
    for names, text in (
        (changes.images_added, "images only in the second"),
        (changes.images_removed, "images only in the first"),
        (changes.classes_added, "classes only in the second"),
        (changes.classes_removed, "classes only in the first"),
    ):
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            typer.echo(f"{len(names)} {text}: {shown}")


def _plain(changes: Changes) -> dict[str, object]:
    return {
        "images": {
            "common": changes.images,
            "added": changes.images_added,
            "removed": changes.images_removed,
        },
        "classes": {"added": changes.classes_added, "removed": changes.classes_removed},
        "unchanged": changes.unchanged,
        "changes": list(changes.changes),
    }
