"""``--page``: results to look through in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dsctool.cli.output import counting

if TYPE_CHECKING:
    from torch import Tensor

    from dsctool.data.records import Category
    from dsctool.engine.work_file import ImageResults, WorkFile
    from dsctool.evaluation.comparison import Comparison
    from dsctool.visualize.pages.explorer.page import Looked, Shown

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
    labels = {category.id: label for label, category in enumerate(categories)}
    pictures = (_looked(entry, labels) for entry in work.entries())
    lowest = {labels[category]: threshold for category, threshold in thresholds.items()}
    _write(path, pictures, [category.name for category in categories], len(work), lowest)


def kept_shown(pixels: Tensor) -> Shown:
    """What is shown of a picture, ``(3, h, w)`` uint8, as the page has it."""
    from PIL import Image

    from dsctool.visualize.pages.explorer.page import shown_as

    return shown_as(Image.fromarray(pixels.permute(1, 2, 0).numpy()))


def write_compared_page(path: Path, compared: Comparison, folder: Path, *, score: float) -> None:
    """Write the page of results beside their truth. folder: of the images. score: where its threshold starts."""
    from dsctool.visualize.pages.explorer.compared import compared_pictures

    names, count = compared.truth.names, len(compared.truth.images)
    _write(path, compared_pictures(compared, folder), names, count, dict.fromkeys(range(len(names)), score))


def _write(
    path: Path, pictures: Iterable[Looked], classes: Sequence[str], count: int, thresholds: Mapping[int, float]
) -> None:
    """thresholds: by label."""
    from dsctool.visualize.pages.explorer.page import write_explorer

    with counting() as progress:

        def told() -> Iterator[Looked]:
            for number, picture in enumerate(pictures, start=1):
                yield picture
                progress("page", number, count)

        title = f"What was found in {count} picture{'s' * (count != 1)}"
        written = write_explorer(path, told(), classes, thresholds=thresholds, title=title)
    typer.echo(f"{path}: {written} pictures to look through in a browser")


def _looked(entry: ImageResults, labels: Mapping[int, int]) -> Looked:
    from dsctool.visualize.pages.explorer.page import LOWEST, Looked, Thing

    image, things = entry["image"], []
    for result in entry["results"]:
        if result["score"] >= LOWEST:
            x, y, width, height = result["bbox"]
            label, mask = labels[result["category_id"]], result.get("segmentation")
            things.append(Thing(label, result["score"], (x, y, width, height), mask))
    shown = cast("Shown", entry["shown"])
    return Looked(image["file_name"], (image["height"], image["width"]), shown, things)
