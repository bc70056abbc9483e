"""``dsctool eval``: COCO's numbers for a checkpoint, or for a results file."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import CHECKPOINT_HELP, Device, JsonFile
from dsctool.cli.output import counting, image_progress, prepare_file, write_json
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.engine.inference import Result
    from dsctool.evaluation.coco import Evaluation, Numbers

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


class Split(StrEnum):
    """Which part of the data set."""

    VAL = "val"
    TRAIN = "train"


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
        from dsctool.evaluation.coco import evaluate_all

        evaluation = evaluate_all(ground_truth, predictions)
    else:
        if checkpoint is None or data is None:
            raise typer.BadParameter("give CHECKPOINT and --data DIR, or --ground-truth FILE and --predictions FILE")
        prepare_file(predictions)
        evaluation, results = _run(checkpoint, overrides or [], data, split, device)
        if predictions is not None:
            write_json(predictions, results)
    if json_file is not None:
        write_json(json_file, _as_json(evaluation, per_class), indent=2)
    _show(evaluation, per_class)


def _run(
    path: Path, overrides: list[str], root: Path, split: Split, device_name: str
) -> tuple[Evaluation, list[Result]]:
    """The checkpoint's results on the split, measured."""
    from dataclasses import replace

    from dsctool.config.loading import override_config
    from dsctool.data.layout import find_split
    from dsctool.engine.checkpoint import detector_from, load_checkpoint
    from dsctool.engine.data import open_evaluation_set
    from dsctool.engine.environment import pick_device
    from dsctool.engine.evaluation import evaluate_detector, match_categories

    device = pick_device(device_name)
    checkpoint = load_checkpoint(path)
    config = override_config(checkpoint.config, overrides, source=str(path)) if overrides else checkpoint.config
    files = find_split(root, config.data.val if split is Split.VAL else config.data.train, split.value)
    model = detector_from(replace(checkpoint, config=config), source=path).to(device)
    with counting() as progress:
        data = open_evaluation_set(files, config.data, masks=model.has_masks, progress=progress)
    categories = match_categories(checkpoint.categories, data.dataset.categories, files.annotations)
    for note in data.notes:
        typer.echo(note, err=True)
    with image_progress(len(data.dataset), "eval") as advance:
        return evaluate_detector(
            model, data, config.data, categories, device=device, on_image=lambda info, found: advance()
        )


# --- what is shown ----------------------------------------------------------------------------------


def _as_json(evaluation: Evaluation, per_class: bool) -> dict[str, object]:
    content: dict[str, object] = dict(evaluation.stats)
    if per_class:
        content["per_class"] = [asdict(row) for row in evaluation.classes]
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
