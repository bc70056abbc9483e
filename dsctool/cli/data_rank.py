"""``dsctool data rank``: which images to annotate next."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsctool.cli.options import Device, JsonFile, images_and_overrides
from dsctool.cli.output import beside, counting, keep_apart, prepare_file, write_json
from dsctool.cli.predict import report
from dsctool.cli.run_model import inference_device
from dsctool.cli.tables import print_table
from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.data.image_files import ImageFile
    from dsctool.evaluation.image_ranking import FoundInImages, RankedImage
    from dsctool.terms import Progress


def rank(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT IMAGE_OR_DIR... KEY=VALUE...",
            help="A checkpoint; image files, folders of them, data sets and annotation files; and values to change.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="COCO results in place of CHECKPOINT.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Another checkpoint, or its COCO results (.json)."),
    ] = None,
    images_json: Annotated[
        Path | None,
        typer.Option("--images-json", metavar="FILE", help="COCO file of the images that results are about."),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0, max=1, help="What scores this is found, where models disagree.")
    ] = 0.3,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Images to list in the table.")] = 20,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Also write them all as CSV.")] = None,
    json_file: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Rank images by what there is to learn from annotating them: the least certain ones first.

    Uncertainty: the mistakes to expect, sum of min(s, 1 - s) over the scores s from 0.1 on, for each instance to
    expect, sum of s (at least 1): 0 is certain, 1 is not. With --against images are ranked by disagreement: 1 less the
    panoptic quality of one model against the other, over instances that score at least --score-threshold; 0 is the
    same masks, 1 nothing in common. In an image in which nothing is found at all both are 0: have a look at some.

    Results of dsctool predict have their images beside them (images.json); for others name --images-json.

    Examples:

        dsctool data rank runs/first/best.pt photos/ --top 30 --csv next.csv

        dsctool data rank runs/first/best.pt photos/ --against runs/second/best.pt

        dsctool data rank --predictions found/predictions.json --against other/predictions.json
    """
    from dsctool.evaluation.image_ranking import FLOOR, FoundInImages, rank_images

    paths, overrides = images_and_overrides(words or [])
    if predictions is None and len(paths) < 2:
        raise typer.BadParameter("give a checkpoint and images, or --predictions", param_hint="CHECKPOINT")
    keep_apart([csv_file, json_file], [predictions, against, images_json, *paths])
    for file in (csv_file, json_file):
        prepare_file(file)
    other_results = against is not None and against.suffix.lower() == ".json"
    checkpoint, images = (None, paths) if predictions is not None else (paths[0], paths[1:])
    files = _files(images) if images else []
    if against is not None and not other_results and not files:
        raise typer.BadParameter("needs the images as well, to run that model on them", param_hint="--against")
    if predictions is not None and files and (against is None or other_results):
        raise typer.BadParameter("results are given: name no images", param_hint="IMAGE_OR_DIR...")
    with counting() as progress:
        if predictions is not None:
            found = FoundInImages.read(predictions, images_json)
        else:
            assert checkpoint is not None
            found = _run(checkpoint, files, overrides, device, min(FLOOR, score_threshold), progress)
        other = None
        if against is not None and other_results:
            other = FoundInImages.read(against, images_json)
        elif against is not None:
            other = _run(against, files, overrides, device, score_threshold, progress)
    ranked = rank_images(found, other, threshold=score_threshold)
    with beside(json_file):
        _show(ranked[:top], disagreement=other is not None)
        empty = sum(not image.instances and not image.against for image in ranked)
        listed = f"{min(top, len(ranked))} of {len(ranked)} images" if len(ranked) > top else f"{len(ranked)} images"
        typer.echo(f"{listed}; nothing is found in {empty}" if empty else listed)
    if csv_file is not None:
        _write_csv(csv_file, ranked)
    if json_file is not None:
        measure = "uncertainty" if other is None else "disagreement"
        write_json(json_file, {"ranked_by": measure, "images": [asdict(image) for image in ranked]}, indent=2)


def _files(sources: Sequence[Path]) -> list[ImageFile]:
    """Files and folders of images, and all images of data sets and annotation files."""
    from dsctool.data.image_files import find_images, number_images
    from dsctool.data.split_sources import image_paths

    plain: list[Path] = []
    for source in sources:
        is_set = source.suffix.lower() == ".json" or (source / "annotations").is_dir()
        plain += image_paths(source) if is_set else [source]
    return number_images(find_images(plain))


def _run(
    checkpoint: Path,
    files: Sequence[ImageFile],
    overrides: Sequence[str],
    device: str,
    floor: float,
    progress: Progress,
) -> FoundInImages:
    """What a model finds, in images that can be read; what scores less than ``floor`` is dropped at once."""
    from dsctool.engine.inference import to_results
    from dsctool.engine.tiles import found_in_files
    from dsctool.evaluation.image_ranking import FoundInImages
    from dsctool.interop.checkpoint import load_model
    from dsctool.ops.exchange import rows_where

    chosen = inference_device(device)
    model = load_model(checkpoint, overrides=overrides, device=chosen)
    images: list[dict[str, Any]] = []
    results: list[Any] = []
    stream = found_in_files(model, files, model.config.data, device=chosen, on_fault=report, preview=False)
    for number, (picture, found) in enumerate(stream, start=1):
        height, width = picture.original_size
        images.append({"id": picture.image_id, "file_name": picture.file_name, "height": height, "width": width})
        (rows,) = rows_where([found.scores >= floor])
        results += to_results(found[rows], picture.image_id, model.categories)
        progress(f"images, by {checkpoint}", number, len(files))
    if not images:
        raise DataError("none of the images could be read")
    return FoundInImages.of(images, [asdict(category) for category in model.categories], results)


def _show(ranked: Sequence[RankedImage], *, disagreement: bool) -> None:
    header = ["", "image", "uncertainty", "instances"]
    rows = [
        [str(place), image.file_name, f"{image.uncertainty:.3f}", str(image.instances)]
        for place, image in enumerate(ranked, start=1)
    ]
    if disagreement:
        header = ["", "image", "disagreement", *header[2:], "the other's"]
        for row, image in zip(rows, ranked, strict=True):
            row.insert(2, f"{image.disagreement:.3f}")
            row.append(str(image.against))
    print_table(header, rows)


def _write_csv(path: Path, ranked: Sequence[RankedImage]) -> None:
    from dsctool.evaluation.image_ranking import RankedImage
    from dsctool.files import write_text

    text = io.StringIO()
    writer = csv.DictWriter(text, ["rank", *(field.name for field in fields(RankedImage))], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"rank": place, **asdict(image)} for place, image in enumerate(ranked, start=1))
    write_text(path, text.getvalue())
