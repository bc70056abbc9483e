"""``dsctool eval``: COCO's numbers for a checkpoint, or for a results file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.huddle_table import show_huddles
from dsctool.cli.options import CHECKPOINT_HELP, Device, JsonFile
from dsctool.cli.output import prepare_file, write_json
from dsctool.cli.split_results import Split, predict_split
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.evaluation.coco import Evaluation, Numbers
    from dsctool.evaluation.huddle_schema import HuddleReport
    from dsctool.evaluation.sources import GroundTruthSource, PredictionsSource

MEANINGS = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small: area below 32 x 32",
    "APm": "medium",
    "APl": "large: area above 96 x 96",
    "AR1": "1 detection per image",
    "AR10": "10 detections per image",
    "AR100": "100 detections per image",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}


def evaluate(
    checkpoint: Annotated[Path | None, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP)] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values to change, as in postprocess.score_threshold=0.05"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data set to run the checkpoint on.")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Part of the data set.")] = Split.VAL,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", metavar="FILE", help="COCO annotations; needs no checkpoint.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="COCO results: read with --ground-truth, else written."),
    ] = None,
    json_file: JsonFile = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the AP of every category.")] = False,
    huddle: Annotated[
        bool, typer.Option("--huddle", help="Also the AP where instances huddle, as huddle-report has it.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Measure box and mask AP as COCO counts them.

    Runs a checkpoint on a data set, or compares a results file with its ground truth. The numbers are
    pycocotools' own; for masks the area of a detection is its mask's.

    Examples:

        dsctool eval runs/first/best.pt --data datasets/coco --json stats.json

        dsctool eval --ground-truth instances_val2017.json --predictions results.json
    """
    prepare_file(json_file)
    if ground_truth is not None:
        if checkpoint is not None or data is not None:
            raise typer.BadParameter("--ground-truth compares files: give no CHECKPOINT and no --data with it")
        if predictions is None:
            raise typer.BadParameter("--ground-truth needs --predictions FILE, the results to compare with it")
        truth: GroundTruthSource = ground_truth
        found: PredictionsSource = predictions
    else:
        if checkpoint is None or data is None:
            raise typer.BadParameter("give CHECKPOINT and --data DIR, or --ground-truth FILE and --predictions FILE")
        prepare_file(predictions)
        run = predict_split(checkpoint, overrides or [], data, split, device=device, task="eval")
        truth, found = run.ground_truth, run.results
    from dsctool.evaluation.coco import evaluate_all
    from dsctool.evaluation.huddle import study_huddles

    evaluation = evaluate_all(truth, found)
    study = study_huddles(truth, found) if huddle else None
    if ground_truth is None and predictions is not None:
        write_json(predictions, found)
    if json_file is not None:
        report = study.report if study is not None else None
        write_json(json_file, _as_json(evaluation, report, per_class=per_class), indent=2)
    _show(evaluation, per_class)
    if study is not None:
        typer.echo()
        show_huddles(study)


# --- what is shown ----------------------------------------------------------------------------------


def _as_json(evaluation: Evaluation, huddles: HuddleReport | None, *, per_class: bool) -> dict[str, object]:
    content: dict[str, object] = dict(evaluation.stats)
    if per_class:
        content["per_class"] = [asdict(row) for row in evaluation.classes]
    if huddles is not None:
        content["huddle"] = huddles
    return content


def _show(evaluation: Evaluation, per_class: bool) -> None:
    boxes, masks = evaluation.stats["bbox"], evaluation.stats["segm"]
    if per_class:
        header = ["id", "category", "instances", *(f"{kind} {name}" for kind in ("box", "mask") for name in _AP)]
        rows = [
            [str(row.id), row.name, str(row.instances), *_cells(row.bbox, _AP), *_cells(row.segm, _AP)]
            for row in evaluation.classes
        ]
        print_table(header, rows)
        if any(row.instances == 0 for row in evaluation.classes):
            typer.echo("-1: the ground truth has no instance of the category")
        typer.echo()
    names = tuple(MEANINGS)
    columns = zip(names, _cells(boxes, names), _cells(masks, names), MEANINGS.values(), strict=True)
    print_table(["", "box", "mask", ""], [list(row) for row in columns])
    for note in evaluation.notes:
        typer.echo(note)


_AP = ("AP", "AP50", "AP75")


def _cells(numbers: Numbers | None, names: tuple[str, ...]) -> list[str]:
    if numbers is None:
        return ["-"] * len(names)
    return ["-1" if numbers[name] == -1 else f"{numbers[name]:.3f}" for name in names]
