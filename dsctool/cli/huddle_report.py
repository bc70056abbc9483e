"""``dsctool huddle-report``: AP where instances huddle, for anybody's COCO results, or for checkpoints."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.huddle_table import show_huddles
from dsctool.cli.options import Device, JsonFile, MaxDets, Overrides, Overwrite, Split, SplitName, protocol_from
from dsctool.cli.output import beside, clear_results, counting, keep_apart, prepare_file, prepare_folder, write_json
from dsctool.cli.panoptic_huddles import PanopticFiles, check_panoptic_huddles, report_panoptic_huddles
from dsctool.cli.run_model import inference_device, run_checkpoint
from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.engine.split_results import SplitResults
    from dsctool.evaluation.sources import GroundTruth, PredictionsSource


GALLERY = 12
SCORE_THRESHOLD = 0.3


class OverlapName(StrEnum):
    """What an overlap is."""

    BOX = "box"
    MASK = "mask"
    IOMIN = "iomin"


def huddle_report(
    predictions: Annotated[
        Path, typer.Option("--predictions", metavar="FILE", help="The candidate: COCO results, or a checkpoint.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the report.")],
    overrides: Overrides = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE", help="What to compare it with: COCO results, or a checkpoint."),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", metavar="FILE", help="COCO annotations.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Data set to run checkpoints on; has the ground truth."),
    ] = None,
    split: SplitName = Split.VAL,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the images, for the gallery.")
    ] = None,
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
    max_dets: MaxDets = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, metavar="N", help="Samples of the images, for 95 % intervals.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the bootstrap.")] = 0,
    gallery: Annotated[int, typer.Option("--gallery", min=0, metavar="N", help="Images in the gallery.")] = GALLERY,
    score_threshold: Annotated[
        float,
        typer.Option("--score-threshold", min=0, max=1, metavar="X", help="Gallery: draw results that score so much."),
    ] = SCORE_THRESHOLD,
    panoptic: Annotated[
        bool,
        typer.Option("--panoptic", help="The files are of COCO's panoptic format: PQ of things, in place of AP."),
    ] = False,
    instances: Annotated[
        Path | None,
        typer.Option(
            "--instances",
            metavar="FILE",
            help="With --panoptic: COCO results with masks; also what their fusion loses, by panoptic.KEY=VALUE.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json_file: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Measure AP where instances huddle: a table over overlap (T_O) and share of huddled instances (T_P).

    An instance is huddled at T_O when its largest overlap with another one is greater; a cell has the images whose
    share of huddled instances is greater than T_P, and its AP is pycocotools' on these images. With a baseline, cells
    are differences too; with --bootstrap they have intervals.

    Candidate and baseline are results or checkpoints, which are run on --data, with KEY=VALUE changes of their
    configurations. Writes report.html (tables, heat maps, gallery; one file), huddle.json, huddle.csv and the heat maps
    as PNG. With checkpoints also their results, predictions.json and baseline.json.

    --panoptic measures PQ, SQ and RQ of things in the same cells, of panoptic files with their PNGs in the folders of
    the same names; it writes report.html and huddle.json. --instances adds which true things the fusion of such results
    drops or cuts.

    Examples:

        dsctool huddle-report --ground-truth val.json --predictions a.json --baseline b.json --output report

        dsctool huddle-report --predictions a/best.pt --baseline b/best.pt --data DIR --output report

        dsctool huddle-report --panoptic --ground-truth panoptic_val.json --predictions panoptic.json --output report
    """
    from dsctool.evaluation.huddle.study import T_O, T_P, HuddleSettings, study_huddles
    from dsctool.evaluation.numbering import numbering_of
    from dsctool.evaluation.sources import load_ground_truth
    from dsctool.visualize.pages.huddle import FILES

    settings = HuddleSettings(
        overlap=overlap.value,
        same_class=same_class,
        t_o=_numbers(t_o, T_O, "--t-o"),
        t_p=_numbers(t_p, T_P, "--t-p"),
        bootstrap=bootstrap,
        seed=seed,
    )
    if panoptic:
        check_panoptic_huddles(
            predictions=predictions,
            ground_truth=ground_truth,
            instances=instances,
            overrides=overrides,
            others={
                "--data": data, "--split": split is not Split.VAL, "--images": images, "--max-dets": max_dets,
                "--overlap": overlap is not OverlapName.BOX, "--gallery": gallery != GALLERY,
                "--score-threshold": score_threshold != SCORE_THRESHOLD, "--device": device != "auto",
            },
        )  # fmt: skip
        assert ground_truth is not None
        report_panoptic_huddles(
            PanopticFiles(ground_truth, predictions, baseline, instances),
            output,
            settings=settings,
            overrides=overrides or [],
            overwrite=overwrite,
            json_file=json_file,
        )
        return
    if instances is not None:
        raise typer.BadParameter("is for --panoptic", param_hint="--instances")
    protocol = protocol_from(max_dets)
    if (ground_truth is None) == (data is None):
        raise typer.BadParameter("give --ground-truth FILE for results, or --data DIR where there is a checkpoint")
    models = [path for path in (predictions, baseline) if path is not None and _is_checkpoint(path)]
    _check_usage(models, overrides, data)
    inputs = [predictions, baseline, ground_truth]
    written = [output / name for name, path in zip(RESULTS, (predictions, baseline), strict=True) if path in models]
    keep_apart([*(output / name for name in FILES), *written, json_file], inputs)
    prepare_folder(output)
    stale = [table.name for path in written if (table := numbering_of(path))]
    clear_results(output, (*FILES, *RESULTS, *stale), overwrite=overwrite, keep=inputs)
    prepare_file(json_file)
    runs = {}
    if data is not None:
        run = partial(
            run_checkpoint, overrides=overrides or [], root=data, split=split, device=inference_device(device)
        )
        runs = {path: run(path, task=path.name) for path in dict.fromkeys(models)}
        _same_ground_truth(runs)
    measured = next(iter(runs.values()), None)
    if protocol is None and measured is not None:
        protocol = measured.protocol
    truth = ground_truth if measured is None else load_ground_truth(measured.ground_truth)
    assert truth is not None
    candidate = _results(predictions, runs, output / RESULTS[0], truth)
    other = None if baseline is None else _results(baseline, runs, output / RESULTS[1], truth)
    with counting() as progress:
        study = study_huddles(truth, candidate, other, settings=settings, protocol=protocol, progress=progress)
    from dsctool.visualize.pages.huddle.files import write_report  # plotting: when all is counted

    folder = images or (None if measured is None else measured.files.images)
    write_report(output, study, images=folder, gallery_size=gallery, score_threshold=score_threshold)
    if json_file is not None:
        write_json(json_file, study.report, indent=2)
    with beside(json_file):
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

RESULTS = ("predictions.json", "baseline.json")
"""The results of checkpoints: candidate, baseline."""


def _is_checkpoint(path: Path) -> bool:
    """By what is in it: torch writes zip files, and wrote pickles, and ONNX files begin with their version: no JSON."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80\x02", b"\x08"))


def _check_usage(models: list[Path], overrides: list[str] | None, data: Path | None) -> None:
    if models and data is None:
        raise typer.BadParameter(f"{models[0]} is a checkpoint: give --data DIR to run it on, and no --ground-truth")
    if not models and data is not None:
        raise typer.BadParameter("--data is for running checkpoints: give --ground-truth FILE for results")
    if not models and overrides:
        raise typer.BadParameter(f"{overrides[0]} changes a checkpoint's configuration, but there are only results")


def _same_ground_truth(runs: dict[Path, SplitResults]) -> None:
    """Checkpoints may name other splits in their configurations."""
    (first, run), *others = runs.items()
    for path, other in others:
        if other.files.annotations != run.files.annotations:
            raise DataError(
                f"{path}: its configuration evaluates on {other.files.annotations}, that of {first} on "
                f"{run.files.annotations}; run dsctool eval --predictions for one of them"
            )


def _results(path: Path, runs: dict[Path, SplitResults], written: Path, truth: Path | GroundTruth) -> PredictionsSource:
    """A results file, or a checkpoint's results, which are also in the file ``written`` then."""
    from dsctool.evaluation.sources import load_ground_truth, load_predictions

    if path not in runs:
        return path
    write_json(written, runs[path].results)
    return replace(load_predictions(runs[path].results, load_ground_truth(truth)), name=str(written))
