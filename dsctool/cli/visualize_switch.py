"""``dsctool visualize-switch``: what the switches of a detector's SAC layers do on images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from dsctool.cli.options import IMAGES_HELP, Checkpoint, Device, JsonFile, Overwrite, images_and_overrides
from dsctool.cli.output import beside, clear_results, counted, prepare_file, prepare_folder, write_json
from dsctool.cli.predict import report
from dsctool.cli.tables import print_table
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.image_files import ImageFile
    from dsctool.evaluation.sources import GroundTruth
    from dsctool.models.detector import Detector
    from dsctool.terms import Size
    from dsctool.visualize.switch.numbers import CocoObject, ImageNumbers

OWN = ("sheets/**/*.png", "maps/**/*.npz", "layers/**/*.png")


def visualize_switch(
    checkpoint: Checkpoint,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE_OR_DIR... KEY=VALUE...", help=IMAGES_HELP)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Folder for the pictures.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", metavar="PATTERN", help="Only these, as in 'layer3.*'; may be given several times."),
    ] = None,
    list_layers: Annotated[bool, typer.Option("--list", help="Print the names of the layers and stop.")] = False,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Also a picture per layer.")] = False,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Black to white over each map's own range: for maps of little contrast.")
    ] = False,
    ground_truth: Annotated[
        Path | None,
        typer.Option("--ground-truth", metavar="FILE", help="COCO annotations: look inside annotated objects."),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0, max=1, help="Detected objects score at least this.")
    ] = 0.3,
    overwrite: Overwrite = False,
    json_file: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Draw the learned switch of every SAC layer over images.

    Writes for each image DIR/sheets/NAME.png, a contact sheet with a map per stage (dark: the large atrous rate is
    taken), and DIR/maps/NAME.npz, the maps themselves with image_size and input_size (h, w); with --per-layer also
    DIR/layers/NAME/LAYER.png. Prints the mean switch per layer, and inside small, medium and large objects (COCO's
    areas): of every object the mean over its mask, else its box, and of these the mean.

    A PATTERN of --layers is a shell pattern whose * also matches dots, or the beginning of a name. 'layer3.*' and
    layer3 are stage 3 in every pass, 'backbone.layer3.*' in the first pass, 'rfp.*' the backbones of further passes.

    Examples:

        dsctool visualize-switch runs/first/best.pt photos/ --output switch

        dsctool visualize-switch runs/first/best.pt photos/ data.test_resize.short_sides=[480] --output switch

        dsctool visualize-switch runs/first/best.pt --list
    """
    from dsctool.engine.environment import pick_device
    from dsctool.interop.checkpoint import load_model
    from dsctool.visualize.switch.record import select_layers, switch_layers

    paths, overrides = images_and_overrides(images or [])
    if not list_layers and (not paths or output is None):
        raise typer.BadParameter("give IMAGE_OR_DIR... and --output DIR, or --list")
    chosen = pick_device(device)
    files, objects = ([], None) if list_layers else _inputs(paths, ground_truth)
    # A switch is looked at in one view of a whole image, also where a checkpoint is set to be tested otherwise.
    model = load_model(checkpoint, overrides=[*overrides, "data.tta=null"], device=chosen)
    names = switch_layers(model)
    if not names:
        raise DsctoolError(f"{checkpoint}: has no switchable atrous convolution (its model.backbone.sac is null)")
    names = select_layers(names, layers or [])
    if list_layers or output is None:
        typer.echo("\n".join(names))
        return
    if model.config.data.tiles is not None:
        typer.echo("data.tiles: switches are drawn over whole images, resized as a window would be", err=True)
    prepare_folder(output)
    inputs = [file.path for file in files]
    clear_results(output, OWN, overwrite=overwrite, keep=inputs, made=partial(_drawn, output))
    for folder in ("sheets", "maps", *(("layers",) if per_layer else ())):
        prepare_folder(output / folder)
    prepare_file(json_file)
    style = _Style(per_layer, stretch, score_threshold)
    done = _run(model, names, files, output, objects=objects, style=style)
    if done:
        if json_file is not None:
            write_json(json_file, _as_json(done, None if objects is not None else score_threshold), indent=2)
        with beside(json_file):
            _show([image.numbers for image in done], "annotated" if objects is not None else "detected")
    if len(done) < len(files):
        typer.echo(f"{len(files) - len(done)} of {len(files)} images could not be read", err=True)
        raise typer.Exit(1)


def _drawn(output: Path, path: Path) -> bool:
    """Whether a run made the file: the maps of its image are there, as only a run leaves them."""
    from dsctool.visualize.switch.files import holds_maps

    inside = path.relative_to(output)
    name = inside.parent if inside.parts[0] == "layers" else inside.with_suffix("")
    return holds_maps(output / "maps" / f"{name.relative_to(inside.parts[0])}.npz")


def _inputs(
    images: list[Path], ground_truth: Path | None
) -> tuple[list[ImageFile], dict[int, list[CocoObject]] | None]:
    """The images, and with ground truth the annotated instances of each by image id."""
    from dsctool.data.image_files import find_images, identify_images, number_images

    paths = find_images(images)
    if ground_truth is None:
        return number_images(paths), None
    from dsctool.data.records import read_annotation_file
    from dsctool.evaluation.sources import load_ground_truth

    content = read_annotation_file(ground_truth)
    files = identify_images(paths, content)
    truth = load_ground_truth(content)
    rows = {truth.images[image].id: image for image in range(len(truth.images))}
    return files, {file.id: _annotated(truth, rows[file.id]) for file in files}


def _annotated(truth: GroundTruth, image: int) -> list[CocoObject]:
    """The instances of an image."""
    columns = truth.annotations
    used = np.flatnonzero((columns.image == image) & ~columns.crowd & (columns.area > 0))
    objects: list[CocoObject] = []
    for row in used.tolist():
        mask = {"segmentation": columns.shapes.rle(row, truth.images[image].size)} if truth.has_masks else {}
        objects.append({"bbox": columns.box[row].tolist(), "area": float(columns.area[row]), **mask})
    return objects


# --- images -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Done:
    """An image that was drawn."""

    file_name: str
    size: Size
    numbers: ImageNumbers


@dataclass(frozen=True)
class _Style:
    """What is drawn, and how."""

    per_layer: bool
    stretch: bool
    score_threshold: float


def _run(
    model: Detector,
    layers: list[str],
    files: list[ImageFile],
    output: Path,
    *,
    objects: dict[int, list[CocoObject]] | None,
    style: _Style,
) -> list[_Done]:
    """Draws one image after the other; those that cannot be read are reported and left out."""
    from dsctool.data.image_files import output_names
    from dsctool.data.pictures import picture_batches
    from dsctool.engine.inference import detections, device_of, to_results
    from dsctool.visualize.switch.files import save_contact_sheet, save_layers, save_maps
    from dsctool.visualize.switch.numbers import measure
    from dsctool.visualize.switch.record import recording

    named = output_names([file.path for file in files])
    targets = {file.id: name for file, name in zip(files, named, strict=True)}
    categories = {category.id: category.name for category in model.categories}
    kind = f"detected objects (score at least {style.score_threshold:g})" if objects is None else "annotated objects"
    done = []
    with counted(files, "visualize-switch") as each, recording(model, layers) as recorder:
        batches = picture_batches(each, model.config.data, on_fault=report)
        for picture, detected in detections(model, batches, device=device_of(model)):
            record = recorder.take(detected, picture.input_size)
            results = to_results(record.detections, picture.image_id, model.categories)
            found = [result for result in results if result["score"] >= style.score_threshold]
            numbers = measure(record, found if objects is None else objects[picture.image_id])
            name = targets[picture.image_id]
            save_maps(output / "maps" / f"{name}.npz", record)
            save_contact_sheet(
                output / "sheets" / f"{name}.png", record,
                picture=picture, found=found, names=categories, numbers=numbers, objects=kind, stretch=style.stretch,
            )  # fmt: skip
            if style.per_layer:
                save_layers(output / "layers" / name, record, stretch=style.stretch)
            done.append(_Done(picture.file_name, picture.original_size, numbers))
    return done


# --- what is shown ----------------------------------------------------------------------------------


def _as_json(done: list[_Done], score_threshold: float | None) -> dict[str, object]:
    """The numbers over all images, then of each; without a threshold they are about annotated objects."""
    from dsctool.visualize.switch.numbers import summarize

    return {
        "source": "ground truth" if score_threshold is None else "detections",
        "score_threshold": score_threshold,
        **asdict(summarize([image.numbers for image in done])),
        "images": [
            {
                "file_name": image.file_name,
                "height": image.size[0],
                "width": image.size[1],
                **asdict(summarize([image.numbers])),
            }
            for image in done
        ],
    }


def _show(images: list[ImageNumbers], kind: str) -> None:
    from dsctool.visualize.switch.numbers import summarize

    summary = summarize(images)
    header = ["layer", "mean", "min", "max", "small", "medium", "large"]
    rows = [
        [
            layer.layer,
            *map(_cell, (layer.mean, layer.minimum, layer.maximum, layer.small, layer.medium, layer.large)),
        ]
        for layer in (*summary.layers, summary.overall)
    ]
    counts = summary.objects
    rows.append([f"{kind} objects", "", "", "", str(counts.small), str(counts.medium), str(counts.large)])
    print_table(header, rows)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
