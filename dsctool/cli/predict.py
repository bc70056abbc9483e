"""``dsctool predict``: COCO-format results and overlays for images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import CHECKPOINT_HELP, KEEP_CANDIDATES, Device
from dsctool.cli.output import image_progress, prepare_file, prepare_folder, write_json

if TYPE_CHECKING:
    import torch

    from dsctool.coco_results import Result
    from dsctool.data.image_files import ImageFile
    from dsctool.data.records import Category
    from dsctool.data.transforms import SampleInfo
    from dsctool.errors import DataError
    from dsctool.models.detector import Detector
    from dsctool.structures import Detections


def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP)],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_DIR...", help="Image files, and folders of them.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the results.")],
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0, max=1, help="Overlays show what scores at least this.")
    ] = 0.3,
    images_json: Annotated[
        Path | None,
        typer.Option("--images-json", metavar="FILE", help="COCO file whose image ids to use, found by file name."),
    ] = None,
    stages: Annotated[
        bool,
        typer.Option("--stages", help="Also draw the masks of every stage side by side (DIR/stages/)."),
    ] = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays.")] = False,
    keep_candidates: Annotated[
        bool,
        typer.Option("--keep-candidates", help="Also write the best 1000 boxes per image before NMS."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Find instances in images.

    Writes DIR/predictions.json (COCO results, all scores), DIR/overlays/ and, with --stages, DIR/stages/.
    With --keep-candidates also DIR/candidates.json, for dsctool eval --errors: what NMS chose from, without masks.
    Image ids are those of --images-json; without it images are numbered from 1 in sorted order, and
    DIR/images.json says which is which. A file that is no readable image is reported and left out; the exit
    code is then 1.

    Example:

        dsctool predict runs/first/best.pt photos/ --output found
    """
    from dsctool.data.image_files import find_images, identify_images, number_images
    from dsctool.engine.environment import pick_device
    from dsctool.errors import DsctoolError

    chosen = pick_device(device)
    paths = find_images(images)
    files = number_images(paths) if images_json is None else identify_images(paths, images_json)
    model = _load(checkpoint, chosen, candidates=keep_candidates)
    prepare_file(output / "predictions.json")
    prepare_file(output / "candidates.json" if keep_candidates else None)
    for folder in ["overlays"] * (not no_overlays) + ["stages"] * stages:
        prepare_folder(output / folder)
    if stages and not model.has_masks:
        raise DsctoolError(f"{checkpoint}: --stages needs masks, but this model has boxes only")
    prepare_file(output / "images.json" if images_json is None else None)
    overlays = None if no_overlays else _Overlays(files, model.categories, output / "overlays", score_threshold)
    strips = _Strips(files, output / "stages", score_threshold) if stages else None
    candidates: list[Result] = []
    read, results = _run(model, files, chosen, overlays, strips, candidates)
    if images_json is None:
        write_json(output / "images.json", _table(read, model.categories), indent=2)
    write_json(output / "predictions.json", results)
    if keep_candidates:
        write_json(output / "candidates.json", candidates)
    typer.echo(f"{output / 'predictions.json'}: {len(results)} results for {len(read)} images")
    if len(read) < len(files):
        typer.echo(f"{len(files) - len(read)} of {len(files)} images could not be read", err=True)
        raise typer.Exit(1)


def _load(path: Path, device: torch.device, *, candidates: bool) -> Detector:
    from dsctool.config.loading import override_config
    from dsctool.interop.checkpoint import detector_from, load_checkpoint

    checkpoint = load_checkpoint(path)
    if candidates:
        checkpoint = replace(checkpoint, config=override_config(checkpoint.config, [KEEP_CANDIDATES]))
    return detector_from(checkpoint, source=path).to(device)


def _run(
    model: Detector,
    files: list[ImageFile],
    device: torch.device,
    overlays: _Overlays | None,
    strips: _Strips | None,
    candidates: list[Result],
) -> tuple[list[SampleInfo], list[Result]]:
    """The images that could be read, and the results of all of them; the others are reported.

    candidates: gets what suppression chose from, where the model's configuration keeps it.
    """
    from dsctool.engine.inference import image_batches, run_inference

    read: list[SampleInfo] = []
    with image_progress(len(files), "predict") as advance:

        def report(file: ImageFile, error: DataError) -> None:
            typer.echo(f"dsctool: error: {error}", err=True)
            advance()

        def record(info: SampleInfo, found: list[Result]) -> None:
            read.append(info)
            if overlays is not None:
                overlays.draw(info, found)
            advance()

        batches = image_batches(files, model.config.data, on_fault=report)
        on_stages = None if strips is None else strips.draw
        results = run_inference(
            model,
            batches,
            model.categories,
            device=device,
            on_image=record,
            on_stages=on_stages,
            on_candidates=lambda info, found: candidates.extend(found),
        )
    return read, results


class _Overlays:
    """Writes the overlay of every image, under a name of its own."""

    def __init__(self, files: list[ImageFile], categories: list[Category], folder: Path, threshold: float) -> None:
        self._targets = _targets(files, folder)
        self._names = {category.id: category.name for category in categories}
        self._threshold = threshold

    def draw(self, info: SampleInfo, results: list[Result]) -> None:
        from dsctool.visualize.overlays import save_overlay

        target, source = self._targets[info.image_id], Path(info.file_name)
        save_overlay(target, source, results, self._names, size=info.original_size, threshold=self._threshold)


class _Strips:
    """Writes the masks of every stage, a strip per image."""

    def __init__(self, files: list[ImageFile], folder: Path, threshold: float) -> None:
        self._targets = _targets(files, folder)
        self._threshold = threshold

    def draw(self, info: SampleInfo, found: Detections) -> None:
        from dsctool.visualize.stages import save_strip

        save_strip(self._targets[info.image_id], Path(info.file_name), found, threshold=self._threshold)


def _targets(files: list[ImageFile], folder: Path) -> dict[int, Path]:
    """A JPEG in ``folder`` for every file, by image id."""
    from dsctool.data.image_files import output_names

    names = output_names([file.path for file in files])
    return {file.id: folder / f"{name}.jpg" for file, name in zip(files, names, strict=True)}


def _table(images: list[SampleInfo], categories: list[Category]) -> dict[str, list[dict[str, object]]]:
    """What a COCO annotation file says about images and categories."""
    return {
        "images": [
            {
                "id": image.image_id,
                "file_name": image.file_name,
                "height": image.original_size[0],
                "width": image.original_size[1],
            }
            for image in images
        ],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }
