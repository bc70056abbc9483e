"""What ``dsctool eval`` gives besides its table of AP: JSON, and the folder of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.error_table import show_errors

if TYPE_CHECKING:
    from dsctool.evaluation.coco import Evaluation
    from dsctool.evaluation.error_analysis.study import ErrorStudy
    from dsctool.evaluation.huddle.study import HuddleStudy


def as_json(
    evaluation: Evaluation, huddles: HuddleStudy | None, errors: ErrorStudy | None, *, per_class: bool
) -> dict[str, object]:
    from dsctool.evaluation.protocol import COCO_AREAS, COCO_MAX_DETS

    content: dict[str, object] = dict(evaluation.stats)
    protocol = evaluation.protocol
    if protocol.limits != COCO_MAX_DETS:
        content["max_dets"] = list(protocol.limits)
    if protocol.areas != COCO_AREAS:
        content["areas"] = {area.name: [area.low, area.high] for area in protocol.areas}
    if per_class:
        content["per_class"] = [asdict(row) for row in evaluation.classes]
    if huddles is not None:
        content["huddle"] = huddles.report
    if errors is not None:
        content["errors"] = errors.report
    return content


def write_errors(folder: Path, study: ErrorStudy, *, said: Sequence[str]) -> None:
    from dsctool.visualize.pages.errors import files

    files.write_errors(folder, study)
    typer.echo()
    show_errors(study, said=said)
    typer.echo(f"\n{folder / 'errors.html'}")
