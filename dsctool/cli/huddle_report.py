"""``dsctool huddle-report``: AP where instances huddle, for anybody's COCO results, or for checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.huddle_table import show_huddles
from dsctool.cli.options import Device, JsonFile
from dsctool.cli.output import counting, prepare_file, prepare_folder, write_json
from dsctool.cli.split_results import Split, predict_split

if TYPE_CHECKING:
    from dsctool.evaluation.sources import GroundTruthSource, PredictionsSource


class OverlapName(StrEnum):
    """What an overlap is."""

    BOX = "box"
    MASK = "mask"
    IOMIN = "iomin"


def huddle_report(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the report.")],
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", metavar="FILE", help="COCO annotations.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="COCO results of the candidate.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="COCO results to compare with.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the images, for the gallery.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="The candidate, to run on --data.")
    ] = None,
    baseline_checkpoint: Annotated[
        Path | None, typer.Option("--baseline-checkpoint", metavar="FILE", help="What to compare with, run on --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data set to run checkpoints on.")] = None,
    split: Annotated[Split, typer.Option("--split", help="Part of the data set.")] = Split.VAL,
    overlap: Annotated[
        OverlapName,
        typer.Option("--overlap", help="IoU of boxes, of masks, or the intersection of masks over the smaller one."),
    ] = OverlapName.BOX,
    same_class: Annotated[
        bool, typer.Option("--same-class", help="Only instances of one category can be huddled.")
    ] = False,
    t_o: Annotated[
        list[str] | None,
        typer.Option("--t-o", metavar="X,X...", help="Overlaps, the rows.  [default: -1,0,0.1,0.2,0.3,0.4]"),
    ] = None,
    t_p: Annotated[
        list[str] | None,
        typer.Option("--t-p", metavar="X,X...", help="Shares, the columns.  [default: 0,0.1,0.2,0.3,0.4]"),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, metavar="N", help="Samples of the images, for 95 % intervals.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the bootstrap.")] = 0,
    gallery: Annotated[int, typer.Option("--gallery", min=0, metavar="N", help="Images in the gallery.")] = 12,
    score_threshold: Annotated[
        float,
        typer.Option("--score-threshold", min=0, max=1, metavar="X", help="Gallery: draw results that score so much."),
    ] = 0.3,
    json_file: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Measure AP where instances huddle: a table over overlap (T_O) and share of huddled instances (T_P).

    An instance is huddled at T_O when its largest overlap with another one is greater; a cell has the images whose
    share of huddled instances is greater than T_P, and its AP is pycocotools' on these images. With a baseline, cells
    are differences too; with --bootstrap they have intervals.

    Writes report.html (tables, heat maps, gallery; one file), huddle.json, huddle.csv and the heat maps as PNG. With
    checkpoints also their results, predictions.json and baseline.json.

    Examples:

        dsctool huddle-report --ground-truth val.json --predictions a.json --baseline b.json --output report

        dsctool huddle-report --checkpoint a/best.pt --baseline-checkpoint b/best.pt --data DIR --output report
    """
    from dsctool.evaluation.huddle.study import T_O, T_P, HuddleSettings, study_huddles
    from dsctool.visualize.pages.huddle.files import write_report

    settings = HuddleSettings(
        overlap=overlap.value,
        same_class=same_class,
        t_o=_numbers(t_o, T_O, "--t-o"),
        t_p=_numbers(t_p, T_P, "--t-p"),
        bootstrap=bootstrap,
        seed=seed,
    )
    files = _Files(ground_truth, predictions, baseline)
    models = _Checkpoints(checkpoint, baseline_checkpoint, data, split, device)
    _check_usage(files, models)
    prepare_folder(output)
    prepare_file(json_file)
    inputs = _run(models, output, baseline) if models.candidate is not None else files.inputs(images)
    with counting() as progress:
        study = study_huddles(
            inputs.ground_truth, inputs.candidate, inputs.baseline, settings=settings, progress=progress
        )
    write_report(output, study, images=images or inputs.images, gallery_size=gallery, score_threshold=score_threshold)
    if json_file is not None:
        write_json(json_file, study.report, indent=2)
    show_huddles(study)
    typer.echo(f"\n{output / 'report.html'}")


def _numbers(words: list[str] | None, default: tuple[float, ...], option: str) -> tuple[float, ...]:
    """Numbers apart by commas, or given in several options."""
    if not words:
        return default
    try:
        return tuple(float(word) for text in words for word in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{option} {','.join(words)}: give numbers with commas between them") from None


# --- what is compared -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inputs:
    """What the library compares. images: the folder of the pictures, or None."""

    ground_truth: GroundTruthSource
    candidate: PredictionsSource
    baseline: PredictionsSource | None
    images: Path | None


@dataclass(frozen=True)
class _Files:
    """Results on disk."""

    ground_truth: Path | None
    candidate: Path | None
    baseline: Path | None

    def inputs(self, images: Path | None) -> _Inputs:
        """The same, known to be complete."""
        assert self.ground_truth is not None
        assert self.candidate is not None
        return _Inputs(self.ground_truth, self.candidate, self.baseline, images)


@dataclass(frozen=True)
class _Checkpoints:
    """Models to run on a split of a data set."""

    candidate: Path | None
    baseline: Path | None
    data: Path | None
    split: Split
    device: str


def _check_usage(files: _Files, models: _Checkpoints) -> None:
    """Either files or checkpoints; a baseline of either kind may stand beside a checkpoint."""
    if models.candidate is None and models.baseline is None and models.data is None:
        if files.ground_truth is None or files.candidate is None:
            raise typer.BadParameter("give --ground-truth and --predictions, or --checkpoint and --data")
        return
    if files.ground_truth is not None or files.candidate is not None:
        raise typer.BadParameter("--ground-truth and --predictions are files to compare: give no checkpoint or --data")
    if models.candidate is None or models.data is None:
        raise typer.BadParameter("--checkpoint and --data belong together, and --baseline-checkpoint needs both")
    if files.baseline is not None and models.baseline is not None:
        raise typer.BadParameter("give --baseline or --baseline-checkpoint, not both")


def _run(models: _Checkpoints, output: Path, baseline_file: Path | None) -> _Inputs:
    """The checkpoints' results, which are written to ``output`` too."""
    from dsctool.errors import DataError

    assert models.candidate is not None
    assert models.data is not None
    run = predict_split(models.candidate, [], models.data, models.split, device=models.device, task="candidate")
    write_json(output / "predictions.json", run.results)
    baseline: PredictionsSource | None = baseline_file
    if models.baseline is not None:
        other = predict_split(models.baseline, [], models.data, models.split, device=models.device, task="baseline")
        if other.files.annotations != run.files.annotations:
            raise DataError(
                f"{models.baseline}: its configuration evaluates on {other.files.annotations}, that of "
                f"{models.candidate} on {run.files.annotations}; run dsctool eval --predictions for one of them"
            )
        write_json(output / "baseline.json", other.results)
        baseline = output / "baseline.json"
    return _Inputs(run.ground_truth, output / "predictions.json", baseline, run.files.images)
