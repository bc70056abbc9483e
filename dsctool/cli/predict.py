"""``dsctool predict``: COCO-format results and overlays for images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import (
    IMAGES_HELP,
    TTA,
    Checkpoint,
    ComputedIn,
    Device,
    Overwrite,
    PrecisionName,
    as_option,
    images_and_overrides,
    with_tta,
)
from dsctool.cli.output import counting, keep_apart, prepare_file, prepare_folder
from dsctool.cli.resumable import RunFiles, prepare_run
from dsctool.cli.run_model import inference_processes
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.coco_results import Result
    from dsctool.data.image_files import ImageFile
    from dsctool.data.pictures import Picture
    from dsctool.engine.limits import LimitCount
    from dsctool.engine.processes import Processes
    from dsctool.engine.work_file import ImageResults, WorkFile
    from dsctool.errors import DataError
    from dsctool.models.detector import Detector
    from dsctool.structures import Detections

RESULTS, CANDIDATES, TABLE, WORK = "predictions.json", "candidates.json", "images.json", "predictions.work.jsonl"
FILES = RunFiles(
    work=WORK,
    results=RESULTS,
    record=(RESULTS, TABLE, WORK),
    own=(RESULTS, CANDIDATES, TABLE, WORK, "overlays/**/*.jpg", "stages/**/*.jpg"),
    cut=(
        *(f".{name}.*.tmp" for name in (RESULTS, CANDIDATES, TABLE)),
        *(f"{name}/**/.*.jpg.*.tmp" for name in ("overlays", "stages")),
    ),
)


def predict(
    checkpoint: Checkpoint,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE_OR_DIR... KEY=VALUE...", help=IMAGES_HELP)],
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
    tta: TTA = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays.")] = False,
    keep_candidates: Annotated[
        bool,
        typer.Option("--keep-candidates", help="Also write the best 1000 boxes per image before NMS."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in DIR.")] = False,
    overwrite: Overwrite = False,
    precision: PrecisionName = ComputedIn.FLOAT32,
    device: Device = "auto",
) -> None:
    """Find instances in images.

    Writes DIR/predictions.json (COCO results, all scores), DIR/overlays/ and, with --stages, DIR/stages/.
    With --keep-candidates also DIR/candidates.json, for dsctool eval --errors: what NMS chose from, without masks.
    Image ids are those of --images-json; without it images are numbered from 1 in sorted order.
    DIR/images.json says which is which. A file that cannot be read is reported and left out; the exit
    code is then 1, and --resume tries such files again.

    Every image is recorded in DIR/predictions.work.jsonl when it is done; at the end that file becomes
    predictions.json. A run that was stopped in whatever way goes on with the same command and --resume.

    Examples:

        dsctool predict runs/first/best.pt photos/ --output found

        dsctool predict runs/first/best.pt photos/ postprocess.nms=mask --output found --overwrite
    """
    from dsctool.data.image_files import find_images, identify_images, number_images
    from dsctool.data.records import read_annotation_file
    from dsctool.engine.inference import keep_candidates as keep
    from dsctool.engine.work_file import WorkFile, describe_run
    from dsctool.interop.checkpoint import load_model

    paths, words = images_and_overrides(images)
    overrides = with_tta(words, tta)
    if not paths:
        raise typer.BadParameter("give image files or folders of them", param_hint="IMAGE_OR_DIR...")
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with what is there, --overwrite removes it: give one of them")
    paths = find_images(paths)
    if images_json is None:
        files = number_images(paths)
    else:
        files = identify_images(paths, read_annotation_file(images_json, needed=["images"]))
    targets = _Targets(
        results=output / RESULTS,
        candidates=output / CANDIDATES if keep_candidates else None,
        table=output / TABLE,
        overlays=None if no_overlays else output / "overlays",
        stages=output / "stages" if stages else None,
    )
    with inference_processes(device, precision) as (processes, chosen), ExitStack() as stack:
        with processes.together():
            model = load_model(checkpoint, overrides=overrides, device=chosen)
            if keep_candidates:
                keep(model)
            if stages and model.config.data.tta is not None:
                raise DsctoolError("--stages shows the stages of one view: set data.tta=null")
            if stages and not model.has_masks:
                raise DsctoolError(f"{checkpoint}: --stages needs masks, but this model has boxes only")
        run = describe_run(
            checkpoint, files, overrides=overrides, threshold=score_threshold, stages=stages,
            overlays=not no_overlays, candidates=keep_candidates, device=chosen.type, **as_option(precision),
        )  # fmt: skip
        work: WorkFile | None = None
        with processes.together():
            if processes.first:
                _prepare(output, targets, resume=resume, overwrite=overwrite, inputs=[*paths, images_json])
                work = stack.enter_context((WorkFile.resume if resume else WorkFile.begin)(output / WORK, run))
        draw = _drawings(files, model, targets, score_threshold)
        limits = _run(model, files, work, draw, stages=stages, precision=precision, processes=processes)
        if work is None:
            return
        read = len(work)
        count = work.finish(
            results=targets.results, candidates=targets.candidates, table=targets.table, categories=model.categories,
            complete=read == len(files),
        )  # fmt: skip
    typer.echo(f"{targets.results}: {count} results for {read} images")
    for note in limits.notes(model.config):
        typer.echo(note, err=True)
    if read < len(files):
        typer.echo(f"{len(files) - read} of {len(files)} images could not be read; --resume tries them again", err=True)
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Targets:
    """What is written where: files, then folders; None is not wanted."""

    results: Path
    candidates: Path | None
    table: Path
    overlays: Path | None
    stages: Path | None


def _prepare(output: Path, targets: _Targets, *, resume: bool, overwrite: bool, inputs: Sequence[Path | None]) -> None:
    """Everything that can stand in the way is found now."""
    files = (targets.results, targets.candidates, targets.table)
    keep_apart(files, inputs)
    for file in files:
        prepare_file(file)
    prepare_run(output, FILES, resume=resume, overwrite=overwrite, inputs=inputs)
    for folder in (targets.overlays, targets.stages):
        if folder is not None:
            prepare_folder(folder)


def _run(
    model: Detector, files: list[ImageFile], work: WorkFile | None, draw: Draw, *, stages: bool,
    precision: ComputedIn, processes: Processes,
) -> LimitCount:  # fmt: skip
    """Adds every image that is not in ``work`` yet, which the first process has; how many reached limits.

    Those that cannot be read are reported and left out.
    """
    from dsctool.engine.limits import LimitCount
    from dsctool.engine.views import in_views

    left = processes.on_first(lambda: [file for file in files if file.id not in (work or ())])
    ranks, task, limits = processes.ranks, in_views("predict", model.config.data.tta), LimitCount()
    own = _entries(model, left[ranks.rank :: ranks.world], draw, limits, stages=stages, precision=precision)
    with counting() as progress:
        try:
            for entry in processes.in_turns(own, len(left)):
                assert work is not None
                work.add(entry)
                progress(task, len(work), len(files))
        except KeyboardInterrupt:
            if work is not None:
                done = f"{len(work)} of {len(files)} images are done"
                typer.echo(f"{work.path.parent}: {done}; go on by --resume", err=True)
            raise
    return LimitCount.total(processes.gather(limits) or [])


def _entries(
    model: Detector, files: Sequence[ImageFile], draw: Draw, limits: LimitCount, *, stages: bool,
    precision: ComputedIn,
) -> Iterator[ImageResults]:  # fmt: skip
    """What is in every image that can be read, which is drawn and counted as well."""
    from dsctool.data.pictures import picture_batches
    from dsctool.engine.inference import detections, device_of, to_results
    from dsctool.engine.work_file import ImageEntry, ImageResults

    batches = picture_batches(files, model.config.data, on_fault=report)
    device = device_of(model)
    for picture, found in detections(model, batches, device=device, stage_masks=stages, precision=precision.value):
        limits.add(found)
        results = to_results(found, picture.image_id, model.categories)
        draw(picture, found, results)
        height, width = picture.original_size
        image = ImageEntry(id=picture.image_id, file_name=picture.file_name, height=height, width=width)
        entry = ImageResults(image=image, results=results)
        if found.candidates is not None:
            entry["candidates"] = to_results(found.candidates, picture.image_id, model.categories)
        yield entry


def report(error: DataError) -> None:
    """A fault that does not keep the others from being done."""
    typer.echo(f"dsctool: error: {error}", err=True)


Draw = Callable[["Picture", "Detections", "list[Result]"], None]


def _drawings(files: list[ImageFile], model: Detector, targets: _Targets, threshold: float) -> Draw:
    """Draws what is wanted of an image, under a name of its own."""
    from dsctool.data.image_files import output_names

    named = output_names([file.path for file in files])
    names = {file.id: f"{name}.jpg" for file, name in zip(files, named, strict=True)}
    categories = {category.id: category.name for category in model.categories}

    def draw(picture: Picture, found: Detections, results: list[Result]) -> None:
        name = names[picture.image_id]
        if targets.overlays is not None:
            from dsctool.visualize.overlays import save_overlay

            save_overlay(targets.overlays / name, picture.pixels, results, categories, threshold=threshold)
        if targets.stages is not None:
            from dsctool.visualize.stages import save_strip

            save_strip(targets.stages / name, picture.pixels, found, threshold=threshold)

    return draw
