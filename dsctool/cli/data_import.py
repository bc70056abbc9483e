"""``dsctool data import`` and ``export``: data sets of other tools and layouts, in and out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dsctool.cli.output import counting


class ImportKind(StrEnum):
    """What can be imported."""

    LABEL_IMAGES = "label-images"
    BINARY_MASKS = "binary-masks"
    LABELME = "labelme"
    CVAT = "cvat"
    VIA = "via"
    LABEL_STUDIO = "label-studio"
    VOC = "voc"
    YOLO = "yolo"
    COCO = "coco"
    LIVECELL = "livecell"
    DARWIN = "darwin"


class ExportKind(StrEnum):
    """What can be written."""

    COCO = "coco"
    LABEL_IMAGES = "label-images"
    YOLO = "yolo"


Link = Annotated[bool, typer.Option("--link", help="Give pictures a second name (hard link) instead of copying them.")]
NewFolder = Annotated[Path, typer.Option("--output", metavar="NEW", help="A new folder.")]


def import_(
    kind: Annotated[ImportKind, typer.Argument(metavar="KIND", help="What it is: " + ", ".join(ImportKind) + ".")],
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Its folder, or the one file with annotations in it.")
    ],
    output: NewFolder,
    val: Annotated[
        float | None,
        typer.Option(
            "--val", min=0, max=0.9, help="Share held out for validation.  [default: the source's own, else 0.2]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed holds out the same pictures.")] = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="folder|REGEX",
            help="Keep pictures of a folder, or with the same match (its first group) in their path, on one side: "
            "plates, fields, videos.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of pictures, in SOURCE.")
    ] = None,
    masks: Annotated[Path | None, typer.Option("--masks", metavar="DIR", help="Folder of masks, in SOURCE.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes", metavar="FILE.csv", help="Classes of label images: columns value, class and, maybe, image."
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class-name", metavar="NAME", help="Class of all instances.")
    ] = None,
    class_key: Annotated[
        str | None, typer.Option("--class-key", metavar="NAME", help="Attribute that has the class (via).")
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Objects with a box alone become rectangles.")] = False,
    separate: Annotated[
        bool, typer.Option("--separate", help="Parts of a label that don't touch become instances (label-images).")
    ] = False,
    link: Link = False,
) -> None:
    """Make a data set of masks or of another tool's annotations.

    Masks stay exact and polygons stay polygons; instances in parts and with holes stay one. What is written is checked
    as by data check; it appears whole or not at all.

    Example:

        dsctool data import label-images PennFudanPed --output pedestrians --class-name person
    """
    from dsctool.data.importing.importer import import_set
    from dsctool.data.importing.record import Options

    options = Options(images, masks, classes, class_name, class_key, boxes, separate)
    with counting() as progress:
        done = import_set(
            kind.value, source, output, options, share=val, seed=seed, group_by=group_by, link=link, progress=progress
        )
    for note in done.notes:
        typer.echo(note, err=True)
    parts = ", ".join(
        f"{part} {count} images with {done.instances[part]} instances" for part, count in done.images.items()
    )
    typer.echo(f"{output}: {parts}; classes: {_shortened(done.classes)}")


def export(
    kind: Annotated[ExportKind, typer.Argument(metavar="KIND", help="As what: " + ", ".join(ExportKind) + ".")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A data set of the standard layout.")],
    output: NewFolder,
    simplify: Annotated[
        float,
        typer.Option(
            "--simplify",
            min=0,
            max=10,
            metavar="PIXELS",
            help="Leave out points of masks' borders that lie no farther from the line; borders move by a pixel at "
            "most. 0: keep all.",
        ),
    ] = 0.75,
    label_studio: Annotated[
        bool,
        typer.Option(
            "--label-studio",
            help="COCO as Label Studio's converter takes it: one polygon for each instance, its parts joined by seams; "
            "no boxes, no crowds.",
        ),
    ] = False,
    link: Link = False,
) -> None:
    """Write a data set as another kind: COCO with polygons, for CVAT and Label Studio; label images; YOLO segmentation.

    Example:

        dsctool data export coco shapes --output for-editing
    """  # fmt: skip
    from dsctool.data.exporting.sets import Options, export_set

    with counting() as progress:
        done = export_set(kind.value, root, output, Options(simplify, label_studio, link), progress)
    for note in done.notes:
        typer.echo(note, err=True)
    typer.echo(f"{output}: {done.images} images with {done.instances} instances")


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
