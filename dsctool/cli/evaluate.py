"""``dsctool eval``: COCO's numbers for a checkpoint, or for a results file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dsctool.cli.ap_table import show_ap, show_published
from dsctool.cli.eval_output import as_json, write_errors
from dsctool.cli.explorer import PageFile, write_compared_page
from dsctool.cli.huddle_table import show_huddles
from dsctool.cli.options import (
    CHECKPOINT_HELP,
    TTA,
    Areas,
    ComputedIn,
    Device,
    JsonFile,
    MaxDets,
    Overlap,
    Overrides,
    Overwrite,
    PrecisionName,
    Split,
    SplitName,
    Tiles,
    TilesAtOnce,
    protocol_from,
    with_tiles,
    with_tta,
)
from dsctool.cli.output import beside, clear_results, keep_apart, prepare_file, prepare_folder, write_json
from dsctool.cli.panoptic import check_panoptic_options, measure_panoptic, measure_panoptic_model
from dsctool.cli.run_model import inference_processes, run_checkpoint
from dsctool.cli.scores import BestBy, Scores
from dsctool.cli.submission import Submission, check_options, write_test_dev

if TYPE_CHECKING:
    import torch

    from dsctool.engine.processes import Processes
    from dsctool.engine.split_results import SplitResults
    from dsctool.evaluation.sources import GroundTruthSource, PredictionsSource

HUDDLED_ABOVE, SCORE_THRESHOLD = 0.1, "0.3"
"""Of ``--errors``, where nothing else is said."""


def evaluate(
    checkpoint: Annotated[Path | None, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP)] = None,
    overrides: Overrides = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Published weights of the shipped configuration that is named in the place of CHECKPOINT.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data set to run the checkpoint on.")
    ] = None,
    split: SplitName = Split.VAL,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", metavar="FILE", help="COCO annotations; needs no checkpoint.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="COCO results: read with --ground-truth, else written."),
    ] = None,
    json_file: JsonFile = None,
    page: PageFile = None,
    tta: TTA = False,
    tiles: Tiles = None,
    overlap: Overlap = None,
    batch: TilesAtOnce = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the numbers of every category.")] = False,
    max_dets: MaxDets = None,
    areas: Areas = None,
    huddle: Annotated[
        bool, typer.Option("--huddle", help="Also the AP where instances huddle, as huddle-report has it.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option("--errors", metavar="DIR", help="Also which errors cost how much; folder for it.")
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            metavar="FILE",
            help="With --errors: boxes before NMS, as predict --keep-candidates writes them; "
            "read with --ground-truth, else written.",
        ),
    ] = None,
    huddled_above: Annotated[
        float,
        typer.Option(
            "--huddled-above",
            metavar="X",
            help="With --errors: huddled instances overlap another one's box by more.",
        ),
    ] = HUDDLED_ABOVE,
    t_o: Annotated[float | None, typer.Option("--t-o", hidden=True)] = None,
    score_threshold: Annotated[
        str,
        typer.Option(
            "--score-threshold",
            metavar="X|auto",
            help="With --errors: the confusion matrix has results that score so much. With --counts: so do counts; "
            "auto: those that --operating-point --store found.",
        ),
    ] = SCORE_THRESHOLD,
    counts: Annotated[
        bool, typer.Option("--counts", help="Also how far counts per image are off, by class and by density.")
    ] = False,
    operating_point: Annotated[
        bool,
        typer.Option(
            "--operating-point",
            help="Also precision, recall and F1 over the score threshold, and the best for each class.",
        ),
    ] = False,
    best_by: Annotated[
        BestBy,
        typer.Option("--best-by", help="With --operating-point: the best by F1, or by the error of counts per image."),
    ] = BestBy.F1,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="With --operating-point: write the thresholds into CHECKPOINT, for --score-threshold auto."
        ),
    ] = False,
    panoptic: Annotated[
        bool,
        typer.Option("--panoptic", help="Panoptic quality, of the model's results or of files in COCO's format."),
    ] = False,
    test_dev: Annotated[
        bool,
        typer.Option("--test-dev", help="Run COCO's test-dev images, and write what its server takes."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="With --test-dev: folder for the files to upload; with --counts, --operating-point: for tables and "
            "plots.",
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="With --test-dev: what the files call the model.  [default: the configuration's or CHECKPOINT's name]",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --test-dev: go on with the run that was stopped in DIR.")
    ] = False,
    overwrite: Overwrite = False,
    precision: PrecisionName = ComputedIn.FLOAT32,
    device: Device = "auto",
) -> None:
    """Measure box and mask AP as COCO counts them; or panoptic quality.

    Runs a checkpoint on a data set, or compares a results file with its ground truth. The numbers are
    pycocotools'; for masks the area of a detection is its mask's. --max-dets and --areas hold for --huddle and --errors
    too; without them a checkpoint is measured as its train.eval_max_dets says. Numbers of other ranges than COCO's have
    names such as AP_tiny.

    --errors says how many points of AP50 are lost to classification, localisation, both, duplicates, background and
    missed instances (as TIDE does), by size and for huddled and lone instances. It writes DIR/errors.json,
    errors.html and pictures: losses, the confusion matrix, precision over recall.

    --counts says how far counts per image are off: mean absolute error, root of the mean squared error and bias, by
    class and by how many instances an image has. --operating-point has precision, recall and F1 at mask IoU 0.5 (of
    boxes without masks) over the score threshold; --store keeps the best of each class in CHECKPOINT, for predict
    --score-threshold auto. Both count all results, and write plots and CSV to --output DIR.

    --panoptic gives PQ, SQ and RQ of all categories, of things and of stuff, as panopticapi does: of a checkpoint on a
    data set with annotations/panoptic_SPLIT.json, or of two files of COCO's panoptic format. The PNGs of each lie in
    the folder of its name.

    --test-dev runs all images of --data's annotations/image_info_test-dev2017.json, in test2017/, and measures nothing:
    it writes DIR/bbox/detections_test-dev2017_NAME_results.zip and the same in DIR/segm/, uploads for COCO's server,
    which has their annotations. A run that was stopped in whatever way goes on with the same command and --resume.

    --tiles 1024 looks at images that are larger by windows, and measures what they find in the whole image.

    Examples:

        dsctool eval runs/first/best.pt --data datasets/coco --json stats.json

        dsctool eval runs/first/best.pt postprocess.nms=mask --data datasets/coco --huddle

        dsctool eval runs/first/best.pt --data datasets/coco --tta data.tta.merge=average

        dsctool eval htc_r50_fpn_1x_coco --weights htc_r50_fpn_1x_coco_20200317-7332cf16.pth --data datasets/coco

        dsctool eval --ground-truth instances_val2017.json --predictions results.json --errors errors

        dsctool eval --ground-truth cells.json --predictions results.json --max-dets auto

        dsctool eval runs/first/best.pt --data datasets/coco --operating-point --store --output points

        dsctool eval runs/first/best.pt --data datasets/coco --panoptic

        dsctool eval --panoptic --ground-truth panoptic_val2017.json --predictions panoptic.json --per-class

        dsctool eval runs/first/best.pt --data datasets/coco --test-dev --tta --output upload
    """
    if panoptic:
        check_panoptic_options(
            checkpoint=checkpoint,
            data=data,
            ground_truth=ground_truth,
            predictions=predictions,
            for_models={
                "--weights": weights, "--split": split is not Split.VAL, "--tta": tta,
                "--precision": precision is not ComputedIn.FLOAT32, "--device": device != "auto",
            },
            others={
                "--max-dets": max_dets, "--areas": areas, "--huddle": huddle, "--errors": errors,
                "--candidates": candidates, "--huddled-above": huddled_above != HUDDLED_ABOVE or t_o is not None,
                "--score-threshold": score_threshold != SCORE_THRESHOLD, "--test-dev": test_dev, "--output": output,
                "--algorithm": algorithm, "--resume": resume, "--overwrite": overwrite, "--counts": counts,
                "--operating-point": operating_point, "--store": store, "--tiles": tiles, "--overlap": overlap,
                "--batch": batch, "--page": page,
            },
        )  # fmt: skip
        if checkpoint is not None and data is not None:
            path, name = (checkpoint, None) if weights is None else (weights, str(checkpoint))
            measure_panoptic_model(
                path, with_tta(overrides or [], tta), data, split, config=name, precision=precision, device=device,
                json_file=json_file, per_class=per_class,
            )  # fmt: skip
        elif ground_truth is not None and predictions is not None:
            measure_panoptic(ground_truth, predictions, json_file=json_file, per_class=per_class)
        return
    looks = counts or operating_point
    check_options(
        test_dev=test_dev,
        needed={"--output": None if looks else output, "--algorithm": algorithm, "--resume": resume},
        others={
            "--ground-truth": ground_truth, "--predictions": predictions, "--candidates": candidates,
            "--json": json_file, "--split": split is not Split.VAL, "--per-class": per_class, "--max-dets": max_dets,
            "--areas": areas, "--huddle": huddle, "--errors": errors, "--counts": counts,
            "--operating-point": operating_point, "--store": store, "--tiles": tiles, "--overlap": overlap,
            "--batch": batch, "--page": page,
        },
    )  # fmt: skip
    from dsctool.evaluation.coco import evaluate_comparison
    from dsctool.evaluation.comparison import compare
    from dsctool.evaluation.error_analysis.study import ErrorSettings, study_compared_errors
    from dsctool.evaluation.huddle.study import study_compared_huddles
    from dsctool.visualize.pages.errors import FILES as ERROR_FILES

    protocol = protocol_from(max_dets, areas)
    _check_usage(checkpoint, data, ground_truth, predictions)
    for_models = (tta, tiles is not None, weights is not None, precision is not ComputedIn.FLOAT32, page is not None)
    if ground_truth is not None and any(for_models):
        raise typer.BadParameter(
            "--tta, --tiles, --weights, --precision and --page are for running a model: --ground-truth compares files"
        )
    name, checkpoint = (None, checkpoint) if weights is None else (str(checkpoint), weights)
    changes = with_tiles(with_tta(overrides or [], tta), tiles, overlap, batch)
    if test_dev and checkpoint is not None and data is not None and output is not None:
        submission = Submission(checkpoint, name, changes, data, output, algorithm, precision, device)
        write_test_dev(submission, resume=resume, overwrite=overwrite)
        return
    if candidates is not None and errors is None:
        raise typer.BadParameter("--candidates is for --errors DIR, which looks at what NMS removed")
    scores = Scores.asked(
        score_threshold, counts=counts, operating_point=operating_point, best_by=best_by, store=store, output=output,
        errors=errors, model=None if ground_truth is not None or weights is not None else checkpoint, overrides=changes,
        split=None if ground_truth is not None else split,
    )  # fmt: skip
    settings = ErrorSettings(t_o=huddled_above if t_o is None else t_o, score_threshold=scores.number)
    files = [predictions, candidates]
    read, written = ([checkpoint], files) if ground_truth is None else ([ground_truth, *files], [])
    made = [*([] if errors is None else [(errors, ERROR_FILES)]), *scores.files]
    prepare = partial(_prepare, made, [*written, json_file, page], read=read, overwrite=overwrite)
    source: GroundTruthSource
    results: PredictionsSource
    before: PredictionsSource | None
    run: SplitResults | None = None
    if ground_truth is not None and predictions is not None:
        prepare()
        source, results, before = ground_truth, predictions, candidates
    else:
        assert checkpoint is not None
        assert data is not None
        with inference_processes(device, precision) as (processes, chosen):
            processes.on_first(prepare)
            model = _Model(checkpoint, name, changes, precision, chosen, processes)
            run = _run(model, data, split, predictions=predictions, candidates=candidates)
        if not processes.first:
            return
        source, results, before = run.ground_truth, run.results, None if candidates is None else run.candidates
        protocol = protocol_from(max_dets, areas, otherwise=run.protocol)
    compared = compare(source, results, protocol=protocol)
    evaluation = evaluate_comparison(compared)
    huddles = study_compared_huddles(compared) if huddle else None
    mistakes = study_compared_errors(compared, before, settings=settings) if errors is not None else None
    scored = scores.study(compared)
    if json_file is not None:
        content = as_json(evaluation, huddles, mistakes, per_class=per_class) | scored.as_json()
        write_json(json_file, content, indent=2)
    with beside(json_file):
        show_ap(evaluation, per_class=per_class)
        if name is not None:
            show_published(name, evaluation)
        if huddles is not None:
            typer.echo()
            show_huddles(huddles, said=evaluation.notes)
        if errors is not None and mistakes is not None:
            write_errors(errors, mistakes, said=evaluation.notes)
        scored.show()
        if page is not None and run is not None:
            write_compared_page(page, compared, run.files.images, score=scores.number)


# --- what is measured -------------------------------------------------------------------------------


def _check_usage(
    checkpoint: Path | None, data: Path | None, ground_truth: Path | None, predictions: Path | None
) -> None:
    """Either files or a checkpoint."""
    if ground_truth is None:
        if checkpoint is None or data is None:
            raise typer.BadParameter("give CHECKPOINT and --data DIR, or --ground-truth FILE and --predictions FILE")
    elif checkpoint is not None or data is not None:
        raise typer.BadParameter("--ground-truth compares files: give no CHECKPOINT and no --data with it")
    elif predictions is None:
        raise typer.BadParameter("--ground-truth needs --predictions FILE, the results to compare with it")


def _prepare(
    made: Sequence[tuple[Path, Sequence[str]]], written: Sequence[Path | None], *, read: Sequence[Path | None],
    overwrite: bool,
) -> None:  # fmt: skip
    """Everything that can stand in the way of the files that are written is found now. made: names by folder."""
    from dsctool.evaluation.numbering import numbering_of

    keep_apart([*written, *(folder / name for folder, names in made for name in names)], read)
    for path in written:
        if path is not None and (table := numbering_of(path)) is not None:
            clear_results(table.parent, [table.name], overwrite=overwrite, keep=read)
        prepare_file(path)
    for folder, names in made:
        prepare_folder(folder)
        clear_results(folder, names, overwrite=overwrite, keep=read)


class _Model(NamedTuple):
    """What is run. config: the name of published weights' configuration. processes: which share the images."""

    path: Path
    config: str | None
    overrides: list[str]
    precision: ComputedIn
    device: torch.device
    processes: Processes


def _run(model: _Model, data: Path, split: Split, *, predictions: Path | None, candidates: Path | None) -> SplitResults:
    """A checkpoint's results, and where they are asked for its candidates, which are written to the files named."""
    run = run_checkpoint(
        model.path,
        model.overrides,
        data,
        split,
        device=model.device,
        task="eval",
        candidates=candidates is not None,
        config=model.config,
        processes=model.processes,
        precision=model.precision,
    )
    if predictions is not None and model.processes.first:
        write_json(predictions, run.results)
    if candidates is not None and model.processes.first:
        write_json(candidates, run.candidates)
    return run
