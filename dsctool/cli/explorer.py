"""``--page``: results to look through in a browser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsctool.cli.output import counting

if TYPE_CHECKING:
    from torch import Tensor

    from dsctool.coco_results import Result
    from dsctool.data.layout import SplitFiles
    from dsctool.data.records import Category
    from dsctool.engine.work_file import ImageEntry, WorkFile
    from dsctool.terms import Size
    from dsctool.visualize.pages.explorer.page import AnyRle, Looked, Shown, Thing

EXPLORER = "explorer.html"
PageInFolder = Annotated[
    bool, typer.Option("--page", help=f"Also write DIR/{EXPLORER}: outlines, and a score threshold to move.")
]
PageFile = Annotated[
    Path | None,
    typer.Option(
        "--page", metavar="FILE", help="Also write a page to look at results and truth in, with a threshold to move."
    ),
]


def write_found_page(
    path: Path, work: WorkFile, categories: Sequence[Category], thresholds: Mapping[int, float]
) -> None:
    """Write the page of a run of ``dsctool predict`` whose images have been :func:`kept_shown`.

    thresholds: by category id.
    """
    entries = ((entry["image"], entry["shown"], entry["results"]) for entry in work.entries())
    _write(path, entries, categories, len(work), thresholds)


def kept_shown(pixels: Tensor) -> Shown:
    """What is shown of a picture, ``(3, h, w)`` uint8, as the page has it."""
    from PIL import Image

    from dsctool.visualize.pages.explorer.page import shown_as

    return shown_as(Image.fromarray(pixels.permute(1, 2, 0).numpy()))


def write_split_page(path: Path, split: SplitFiles, results: Sequence[Result], *, score: float) -> None:
    """Write the page of results on a split, beside its annotations. score: where its threshold starts."""
    from dsctool.data.images import shown_image
    from dsctool.data.records import Category, read_annotation_file

    content = read_annotation_file(split.annotations)
    categories = [Category(entry["id"], entry["name"]) for entry in content.categories]
    found, truth = defaultdict[int, list[Any]](list), defaultdict[int, list[Any]](list)
    for result in results:
        found[result["image_id"]].append(result)
    for annotation in content.annotations:
        if not annotation.get("iscrowd"):
            truth[annotation["image_id"]].append(annotation)
    entries = (
        (image, kept_shown(shown_image(split.images / image["file_name"])), found[image["id"]])
        for image in content.images
    )
    thresholds = dict.fromkeys((category.id for category in categories), score)
    _write(path, entries, categories, len(content.images), thresholds, truth=truth)


def _write(
    path: Path, entries: Iterable[tuple[Any, Any, Sequence[Result]]], categories: Sequence[Category],
    count: int, thresholds: Mapping[int, float], *, truth: Mapping[int, Sequence[Any]] | None = None,
) -> None:  # fmt: skip
    from dsctool.visualize.pages.explorer.page import write_explorer

    labels = {category.id: label for label, category in enumerate(categories)}
    with counting() as progress:

        def pictures() -> Iterator[Looked]:
            for number, (image, shown, results) in enumerate(entries, start=1):
                own = None if truth is None else truth.get(image["id"], ())
                yield _looked(image, shown, results, own, labels)
                progress("page", number, count)

        written = write_explorer(
            path,
            pictures(),
            [category.name for category in categories],
            thresholds={label: thresholds.get(category, 0.0) for category, label in labels.items()},
            title=f"What was found in {count} picture{'s' * (count != 1)}",
        )
    typer.echo(f"{path}: {written} pictures to look through in a browser")


def _looked(
    image: ImageEntry, shown: Shown, results: Sequence[Result], truth: Sequence[Any] | None, labels: Mapping[int, int]
) -> Looked:
    from dsctool.visualize.pages.explorer.page import LOWEST, Looked

    size = (image["height"], image["width"])
    things = [
        _thing(labels[result["category_id"]], result["score"], result["bbox"], result.get("segmentation"))
        for result in results
        if result["score"] >= LOWEST
    ]
    known = None if truth is None else [_annotated(each, labels, size) for each in truth]
    return Looked(image["file_name"], size, shown, things, known)


def _annotated(annotation: Mapping[str, Any], labels: Mapping[int, int], size: Size) -> Thing:
    from dsctool.data.shapes import drawing_of, drawn
    from dsctool.rle import Rle

    polygons, text = drawing_of(annotation.get("segmentation"), size)
    mask = Rle(size=list(size), counts=text) if text else None
    mask = drawn(polygons, size) if polygons else mask
    return _thing(labels[annotation["category_id"]], None, annotation["bbox"], mask)


def _thing(label: int, score: float | None, box: Sequence[float], mask: AnyRle | None) -> Thing:
    from dsctool.visualize.pages.explorer.page import Thing

    x, y, width, height = box
    return Thing(label, score, (x, y, width, height), mask)
