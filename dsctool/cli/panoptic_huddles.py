"""``dsctool huddle-report --panoptic``: panoptic quality of things where they huddle, and what fusion loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.output import beside, clear_results, counting, keep_apart, prepare_file, prepare_folder, write_json
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.evaluation.huddle.panoptic.study import FusedInstances, PanopticHuddleStudy
    from dsctool.evaluation.huddle.study import HuddleSettings

_SETTINGS = "panoptic."


@dataclass(frozen=True)
class PanopticFiles:
    """What is read. instances: COCO results; all others are panoptic files."""

    ground_truth: Path
    predictions: Path
    baseline: Path | None
    instances: Path | None


def check_panoptic_huddles(
    *,
    predictions: Path,
    ground_truth: Path | None,
    instances: Path | None,
    overrides: Sequence[str] | None,
    others: Mapping[str, object],
) -> None:
    """Refuse what makes no sense with ``--panoptic``. others: options that it cannot have."""
    given = [name for name, value in others.items() if value]
    if given:
        raise typer.BadParameter(
            f"--panoptic cannot have {', '.join(given)}: it compares files of COCO's panoptic format, whose masks "
            "never overlap, and draws no gallery"
        )
    if ground_truth is None:
        raise typer.BadParameter(f"--panoptic needs --ground-truth FILE beside {predictions}, both panoptic JSON")
    for word in overrides or []:
        if not word.startswith(_SETTINGS):
            raise typer.BadParameter(f"{word}: with --panoptic only {_SETTINGS}KEY=VALUE means something")
        if instances is None:
            raise typer.BadParameter(f"{word}: is how --instances FILE are fused, and there is none")


def report_panoptic_huddles(
    files: PanopticFiles,
    output: Path,
    *,
    settings: HuddleSettings,
    overrides: Sequence[str],
    overwrite: bool,
    json_file: Path | None,
) -> None:
    """Measure, write the report, and show its tables."""
    from dsctool.evaluation.huddle.panoptic.study import study_panoptic_huddles
    from dsctool.visualize.pages.huddle import FILES

    inputs = [files.ground_truth, files.predictions, files.baseline, files.instances]
    instances = None if files.instances is None else _instances(files.instances, overrides)
    keep_apart([*(output / name for name in FILES), json_file], inputs)
    prepare_folder(output)
    clear_results(output, FILES, overwrite=overwrite, keep=inputs)
    prepare_file(json_file)
    with counting() as progress:
        study = study_panoptic_huddles(
            files.ground_truth,
            files.predictions,
            files.baseline,
            settings=settings,
            instances=instances,
            progress=progress,
        )
    from dsctool.files import write_text
    from dsctool.visualize.pages.huddle.panoptic import panoptic_page

    write_json(output / "huddle.json", study.report, indent=2)
    write_text(output / "report.html", panoptic_page(study))
    if json_file is not None:
        write_json(json_file, study.report, indent=2)
    with beside(json_file):
        show_panoptic_huddles(study)
        typer.echo(f"\n{output / 'report.html'}")


def _instances(path: Path, overrides: Sequence[str]) -> FusedInstances:
    from dsctool.config.loading import load_config
    from dsctool.engine.panoptic import fusion_settings
    from dsctool.evaluation.huddle.panoptic.study import FusedInstances

    config = load_config("htc_tiny", overrides)  # of which only the fusion is looked at
    return FusedInstances(path, fusion_settings(config.panoptic))


def show_panoptic_huddles(study: PanopticHuddleStudy) -> None:
    """PQ, SQ and RQ of every cell, the baseline's and the difference; how many images that is; what fusion loses."""
    from dsctool.evaluation.huddle.panoptic.rows import (
        fused_quality,
        gain_rows,
        has_baseline,
        image_rows,
        instance_rows,
        interval_rows,
        loss_rows,
        quality_rows,
    )

    report = study.report
    typer.echo("PQ / SQ / RQ of things, in images whose share of things that overlap by more than T_O is over T_P")
    print_table(*quality_rows(report, "candidate"))
    if has_baseline(report):
        typer.echo("\nthe baseline's")
        print_table(*quality_rows(report, "baseline"))
        typer.echo("\nPQ / SQ / RQ minus the baseline's")
        print_table(*gain_rows(report))
        if report["bootstrap"]:
            typer.echo("\n95 % interval of PQ's difference")
            print_table(*interval_rows(report))
    typer.echo("\nimages")
    print_table(*image_rows(report))
    typer.echo("\nPQ / SQ / RQ of huddled things by themselves, the others ignored")
    print_table(*instance_rows(report))
    for losses in report["fusion"]["losses"] if report["fusion"] is not None else []:
        typer.echo(f"\ntrue things that the fusion dropped or cut, by overlap; pixels by {losses['pixel']}")
        print_table(*loss_rows(losses))
        typer.echo(f"PQ / SQ / RQ of things, fused: {fused_quality(losses)}")
    for note in study.notes:
        typer.echo(note)
