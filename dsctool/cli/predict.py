"""``dsctool predict``: COCO-format results and overlays for images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.drawings import Coloring, Draw, NoLabels, Targets, counted, drawings, style_of
from dsctool.cli.drawings import as_option as look
from dsctool.cli.editing import ForEditing, prepare_editing, write_editing
from dsctool.cli.explorer import EXPLORER, PageInFolder, kept_shown, write_found_page
from dsctool.cli.measuring import PixelSide, TableFile, Tables
from dsctool.cli.options import (
    IMAGES_HELP,
    TTA,
    Checkpoint,
    ComputedIn,
    Device,
    Overlap,
    Overwrite,
    PrecisionName,
    Tiles,
    TilesAtOnce,
    as_option,
    images_and_overrides,
    with_tiles,
    with_tta,
)
from dsctool.cli.output import counting, keep_apart, prepare_file, prepare_folder
from dsctool.cli.panoptic import check_semantic, panoptic_options
from dsctool.cli.predict_clip import Every, Look, predict_clip, refuse_for_video
from dsctool.cli.resumable import RunFiles, prepare_run
from dsctool.cli.run_model import inference_processes
from dsctool.cli.scores import parse_threshold, stored_thresholds
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.image_files import ImageFile
    from dsctool.data.pictures import Remarks
    from dsctool.engine.inference import Runnable
    from dsctool.engine.limits import LimitCount
    from dsctool.engine.measures import InstanceTable
    from dsctool.engine.processes import Processes
    from dsctool.engine.work_file import ImageResults, WorkFile
    from dsctool.errors import DataError
    from dsctool.terms import Progress

RESULTS, CANDIDATES, TABLE, WORK = "predictions.json", "candidates.json", "images.json", "predictions.work.jsonl"
PANOPTIC = "panoptic.json"
WRITTEN = (RESULTS, CANDIDATES, TABLE, PANOPTIC, EXPLORER)
FILES = RunFiles(
    work=WORK,
    results=RESULTS,
    record=(RESULTS, TABLE, WORK),
    own=(*WRITTEN, WORK, "overlays/**/*.jpg", "stages/**/*.jpg", "panoptic/**/*.png"),
    cut=(
        *(f".{name}.*.tmp" for name in WRITTEN),
        *(f"{name}/**/.*.jpg.*.tmp" for name in ("overlays", "stages")),
        "panoptic/**/.*.png.*.tmp",
    ),
)


def predict(
    checkpoint: Checkpoint,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE_OR_DIR... KEY=VALUE...", help=IMAGES_HELP)],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the results.")],
    score_threshold: Annotated[
        str,
        typer.Option(
            "--score-threshold",
            metavar="X|auto",
            help="Overlays and --table have what scores at least this; auto: each class its own, from the checkpoint.",
        ),
    ] = "0.3",
    table: TableFile = None,
    pixel_size: PixelSide = None,
    images_json: Annotated[
        Path | None,
        typer.Option("--images-json", metavar="FILE", help="COCO file whose image ids to use, found by file name."),
    ] = None,
    stages: Annotated[
        bool,
        typer.Option("--stages", help="Also draw the masks of every stage side by side (DIR/stages/)."),
    ] = False,
    tta: TTA = False,
    tiles: Tiles = None,
    overlap: Overlap = None,
    batch: TilesAtOnce = None,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays.")] = False,
    no_labels: NoLabels = False,
    color: Coloring = None,
    keep_candidates: Annotated[
        bool,
        typer.Option("--keep-candidates", help="Also write the best 1000 boxes per image before NMS."),
    ] = False,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Also give every pixel to one instance or kind of stuff (DIR/panoptic/).")
    ] = False,
    semantic: Annotated[
        Path | None,
        typer.Option(
            "--semantic", metavar="FILE", help="COCO semantic results: stuff from there, not from the model's branch."
        ),
    ] = None,
    stuff_labels: Annotated[
        Path | None,
        typer.Option(
            "--stuff-labels",
            metavar="FILE",
            help="Names of the semantic maps' values, if not COCO-Stuff's.",
        ),
    ] = None,
    for_editing: ForEditing = None,
    page: PageInFolder = False,
    every: Every = 1,
    recursive: Annotated[bool, typer.Option("--recursive", help="Also search the folders in folders.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in DIR.")] = False,
    overwrite: Overwrite = False,
    precision: PrecisionName = ComputedIn.FLOAT32,
    device: Device = "auto",
) -> None:
    """Find instances in images.

    Writes DIR/predictions.json (COCO results, all scores), DIR/overlays/ and, with --stages, DIR/stages/.
    With --keep-candidates also DIR/candidates.json, for dsctool eval --errors: what NMS chose from, without masks.
    With --panoptic also DIR/panoptic/*.png and DIR/panoptic.json in COCO's format, by panoptic.KEY=VALUE: panoptic.rule
    is published, detectron2 or mmdet. Stuff comes from a semantic branch that learnt it (data.semantic=stuffthingmaps),
    or from --semantic. Overlays then show the segments.
    --table FILE has a row for every instance that is shown, with its measures, and counts.csv beside it how many there
    are of each class in every image.
    --for-editing DIR2 also makes a data set of what scores at least --score-threshold: polygons without holes, classes
    and scores, for CVAT or Label Studio; what comes back is read by dsctool data check, merge, diff and train.
    --page also writes DIR/explorer.html, one file for any browser: all pictures with outlines, a threshold that moves
    outlines and counts at once, and filters by class and size.
    A video (clip.mp4, a camera's number, - for standard input) is looked at frame by frame: DIR has overlays.mp4,
    counts.csv, and predictions.json with a track_id for what scores at least --score-threshold.
    Image ids are those of --images-json; without it images are numbered from 1 in sorted order.
    DIR/images.json says which is which. A file that cannot be read is reported and left out; the exit
    code is then 1, and --resume tries such files again.

    Every image is recorded in DIR/predictions.work.jsonl when it is done; at the end that file becomes
    predictions.json. A run that was stopped in whatever way goes on with the same command and --resume.

    Examples:

        dsctool predict runs/first/best.pt photos/ --output found

        dsctool predict runs/first/best.pt photos/ postprocess.nms=mask --output found --overwrite

        dsctool predict runs/first/best.pt cells/ --table found/cells.csv --pixel-size 0.325um --output found

        dsctool predict runs/first/best.pt photos/ panoptic.min_score=0.4 --panoptic --output found
    """
    from dsctool.data.image_files import identify_images, number_images, search_images
    from dsctool.data.pictures import Remarks
    from dsctool.data.records import read_annotation_file
    from dsctool.data.video import is_video
    from dsctool.engine.inference import keep_candidates as keep
    from dsctool.engine.inference import load_runnable
    from dsctool.engine.object_sizes import SmallCount
    from dsctool.engine.panoptic import panoptic_fusion
    from dsctool.engine.work_file import WorkFile, describe_run
    from dsctool.interop.exported import ExportedDetector

    paths, words = images_and_overrides(images)
    overrides = with_tiles(with_tta(words, tta), tiles, overlap, batch)
    threshold, overlays = parse_threshold(score_threshold), None if no_overlays else style_of(no_labels, color)
    if any(is_video(str(path)) for path in paths):
        refuse_for_video(
            {
                "--stages": stages, "--panoptic": panoptic, "--keep-candidates": keep_candidates, "--table": table,
                "--for-editing": for_editing, "--page": page, "--images-json": images_json, "--resume": resume,
                "--score-threshold auto": threshold == "auto", "several sources": len(paths) > 1,
                "--color": color,
            }
        )  # fmt: skip
        look_at = Look(every, float(threshold), overlays, precision, device)
        predict_clip(checkpoint, str(paths[0]), output, overrides, look_at, overwrite=overwrite)
        return
    if every != 1:
        raise typer.BadParameter("is for a video", param_hint="--every")
    if not paths:
        raise typer.BadParameter("give image files or folders of them", param_hint="IMAGE_OR_DIR...")
    for file, option in ((semantic, "--semantic"), (stuff_labels, "--stuff-labels")):
        if file is not None and not panoptic:
            raise typer.BadParameter("is for --panoptic", param_hint=option)
    if panoptic and color is not None:
        raise typer.BadParameter("--panoptic has a colour for each category", param_hint="--color")
    tables = Tables.asked(table, pixel_size)
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with what is there, --overwrite removes it: give one of them")
    found = search_images(paths, recursive=recursive, output=output)
    paths, remarks = found.images, Remarks()
    if images_json is None:
        files = number_images(paths)
    else:
        files = identify_images(paths, read_annotation_file(images_json, needed=["images"]))
    targets = Targets(
        results=output / RESULTS,
        candidates=output / CANDIDATES if keep_candidates else None,
        table=output / TABLE,
        overlays=None if no_overlays else output / "overlays",
        stages=output / "stages" if stages else None,
        panoptic=output / PANOPTIC if panoptic else None,
    )
    with inference_processes(device, precision) as (processes, chosen), ExitStack() as stack:
        with processes.together():
            model = load_runnable(checkpoint, overrides=overrides, device=chosen)
            if keep_candidates:
                keep(model)
            if threshold == "auto":
                thresholds, note = stored_thresholds(checkpoint, overrides)
                if note is not None and processes.first:
                    typer.echo(note, err=True)
            else:
                thresholds = dict.fromkeys((category.id for category in model.categories), threshold)
            if stages and model.config.data.tta is not None:
                raise DsctoolError("--stages shows the stages of one view: set data.tta=null")
            for option, given in (("--stages", stages), ("--panoptic", panoptic)):
                if given and model.config.data.tiles is not None:
                    raise DsctoolError(f"{option} looks at whole images: give no --tiles, or set data.tiles=null")
            if stages and not model.has_masks:
                raise DsctoolError(f"{checkpoint}: --stages needs masks, but this model has boxes only")
            fusion = None
            if panoptic:
                if isinstance(model, ExportedDetector):
                    raise DsctoolError(f"--panoptic: {checkpoint} is exported, without a semantic branch")
                fusion = panoptic_fusion(model, labels=stuff_labels, semantic=semantic, precision=precision.value)
                if fusion.semantic is not None:
                    check_semantic(fusion.semantic, files)
        run = describe_run(
            checkpoint, files, overrides=overrides, threshold=threshold, stages=stages,
            overlays=not no_overlays, candidates=keep_candidates, device=chosen.type, **as_option(precision),
            **(panoptic_options(semantic, stuff_labels) if panoptic else {}), **tables.as_option(),
            **({"page": True} if page else {}),
            **look(no_labels, color),
        )  # fmt: skip
        work: WorkFile | None = None
        with processes.together():
            if processes.first:
                inputs = [*paths, images_json, semantic, stuff_labels]
                prepare_editing(for_editing, output, overwrite=overwrite, resume=resume)
                tables.prepare(
                    output, resume=resume, overwrite=overwrite, read=[*inputs, checkpoint], written=targets.files
                )
                _prepare(output, targets, resume=resume, overwrite=overwrite, inputs=inputs)
                work = stack.enter_context((WorkFile.resume if resume else WorkFile.begin)(output / WORK, run))
        small = SmallCount(model.config.data, thresholds)
        draw = counted(drawings(files, model, targets, thresholds, fusion, style_of(no_labels, color)), small)
        asked = fusion is not None and fusion.semantic is None
        measured = tables.of(model.categories, thresholds)
        limits = _run(
            model, files, work, draw, remarks, measured, stages=stages, semantic=asked, page=page, precision=precision,
            processes=processes,
        )  # fmt: skip
        counts = processes.gather(small)
        if work is None:
            return
        read = len(work)
        if targets.panoptic is not None and fusion is not None:
            work.write_panoptic(targets.panoptic, fusion.categories)
        write_editing(for_editing, work, model.categories, thresholds)
        if page:
            write_found_page(output / EXPLORER, work, model.categories, thresholds)
        tables.write(work, measured)
        count = work.finish(
            results=targets.results, candidates=targets.candidates, table=targets.table, categories=model.categories,
            complete=read == len(files),
        )  # fmt: skip
    typer.echo(f"{targets.results}: {count} results for {read} images")
    tables.say()
    small = SmallCount.total(counts or [], model.config.data, thresholds)
    told = (*filter(None, [found.note]), *remarks.notes(), *limits.notes(model.config), *small.notes())
    for note in told:
        typer.echo(note, err=True)
    if fusion is not None and fusion.semantic is not None:
        bare = sum(file.id not in fusion.semantic for file in files)
        if bare:
            typer.echo(f"{semantic}: {bare} of {len(files)} images have no stuff in it", err=True)
    if read < len(files):
        typer.echo(f"{len(files) - read} of {len(files)} images could not be read; --resume tries them again", err=True)
        raise typer.Exit(1)


def _prepare(output: Path, targets: Targets, *, resume: bool, overwrite: bool, inputs: Sequence[Path | None]) -> None:
    """Everything that can stand in the way is found now."""
    from dsctool.data.panoptic import png_folder

    keep_apart(targets.files, inputs)
    for file in targets.files:
        prepare_file(file)
    prepare_run(output, FILES, resume=resume, overwrite=overwrite, inputs=inputs)
    pngs = None if targets.panoptic is None else png_folder(targets.panoptic)
    for folder in (targets.overlays, targets.stages, pngs):
        if folder is not None:
            prepare_folder(folder)


def _run(
    model: Runnable, files: list[ImageFile], work: WorkFile | None, draw: Draw, remarks: Remarks,
    measured: InstanceTable | None, *, stages: bool, semantic: bool, page: bool, precision: ComputedIn,
    processes: Processes,
) -> LimitCount:  # fmt: skip
    """Adds every image that is not in ``work`` yet, which the first process has; how many reached limits.

    Those that cannot be read are reported and left out.
    """
    from dsctool.engine.limits import LimitCount
    from dsctool.engine.views import in_views

    left = processes.on_first(lambda: [file for file in files if file.id not in (work or ())])
    ranks, task, limits = processes.ranks, in_views("predict", model.config.data.tta), LimitCount()
    share = left[ranks.rank :: ranks.world]
    with counting() as progress:
        shown = progress if processes.first else None
        own = _entries(
            model,
            share,
            draw,
            limits,
            remarks,
            measured,
            shown,
            stages=stages,
            semantic=semantic,
            page=page,
            precision=precision,
        )
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
    remarks.take(processes.gather(remarks) or [])
    return LimitCount.total(processes.gather(limits) or [])


def _entries(
    model: Runnable, files: Sequence[ImageFile], draw: Draw, limits: LimitCount, remarks: Remarks,
    measured: InstanceTable | None, progress: Progress | None, *, stages: bool, semantic: bool, page: bool,
    precision: ComputedIn,
) -> Iterator[ImageResults]:  # fmt: skip
    """What is in every image that can be read, which is drawn and counted as well. progress: of one that speaks."""
    from dsctool.engine.inference import device_of, to_results
    from dsctool.engine.tiles import found_in_files, shrink_note
    from dsctool.engine.work_file import ImageEntry, ImageResults

    config, note = model.config.data, None
    stream = found_in_files(
        model, files, config, device=device_of(model), stage_masks=stages, semantic=semantic,
        precision=precision.value, on_fault=report, progress=progress,
    )  # fmt: skip
    for picture, found in stream:
        if progress and not note and (note := shrink_note(picture.file_name, picture.original_size, config)):
            typer.echo(note, err=True)
        limits.add(found)
        remarks.add(picture)
        results = to_results(found, picture.image_id, model.categories)
        segments = draw(picture, found, results)
        height, width = picture.original_size
        image = ImageEntry(id=picture.image_id, file_name=picture.file_name, height=height, width=width)
        entry = ImageResults(image=image, results=results)
        if found.candidates is not None:
            entry["candidates"] = to_results(found.candidates, picture.image_id, model.categories)
        if segments is not None:
            entry["panoptic"] = segments
        if measured is not None:
            entry["measures"] = measured.rows(results, picture.shown, picture.file_name, picture.original_size)
            if tuple(picture.shown.shape[-2:]) != picture.original_size:
                remarks.tell(picture, "is kept smaller by --tiles: --table has no mean red, green and blue of it")
        if page:
            entry["shown"] = kept_shown(picture.shown)
        yield entry


def report(error: DataError) -> None:
    """A fault that does not keep the others from being done."""
    typer.echo(f"dsctool: error: {error}", err=True)
