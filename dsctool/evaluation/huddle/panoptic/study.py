"""Panoptic quality of things where they huddle: the table over T_O and T_P, and the view of single things.

Everything is defined as for AP (:mod:`dsctool.evaluation.huddle.study`), of the true things that are no crowds, with
the boxes of the panoptic ground truth. A cell is what ``eval --panoptic`` says of things where the ground truth has the
images of the subset alone.

In the view of single things, those that are not huddled at T_O are ignored: what matches one of them counts neither
way. A predicted thing that matches nothing is a false positive, in all images that have things.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dsctool.data.panoptic import read_panoptic
from dsctool.errors import DataError
from dsctool.evaluation.huddle.measuring import Bootstrap
from dsctool.evaluation.huddle.panoptic.instances import read_instances
from dsctool.evaluation.huddle.panoptic.losses import fusion_losses
from dsctool.evaluation.huddle.panoptic.measuring import PanopticMeasuring
from dsctool.evaluation.huddle.panoptic.schema import PanopticHuddleReport
from dsctool.evaluation.huddle.panoptic.things import find_things, things_table
from dsctool.evaluation.huddle.study import HuddleSettings
from dsctool.evaluation.overlaps import largest_overlaps
from dsctool.models.panoptic import FusionSettings
from dsctool.terms import Progress


@dataclass(frozen=True)
class PanopticHuddleStudy:
    """A report, and for people: the files that it is about, by role, and what is odd."""

    report: PanopticHuddleReport
    files: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FusedInstances:
    """COCO results with masks whose fusion is measured, and how they are fused."""

    path: Path
    settings: FusionSettings = field(default_factory=FusionSettings)


def study_panoptic_huddles(
    ground_truth: Path,
    predictions: Path,
    baseline: Path | None = None,
    *,
    settings: HuddleSettings | None = None,
    instances: FusedInstances | None = None,
    progress: Progress | None = None,
) -> PanopticHuddleStudy:
    """PQ, SQ and RQ of things over T_O and T_P, against a baseline where one is given; how much fusion loses.

    All but the instances are files of COCO's panoptic format, each with its PNGs in the folder of the same name.

    Raises:
        DataError: an overlap of masks is asked for, which do not overlap in such files; mask probabilities are, which
            COCO results lack; or a file cannot be used, as in :func:`dsctool.evaluation.panoptic.evaluate_panoptic`.
    """
    settings, tell = settings or HuddleSettings(), progress or _silent
    if settings.overlap != "box":
        raise DataError(f"overlap is {settings.overlap!r}, but panoptic masks never overlap; use 'box'")
    if instances is not None and instances.settings.pixel != "score":
        raise DataError(
            f"{instances.path}: COCO results have no mask probabilities, which pixel {instances.settings.pixel!r} "
            "needs; use 'score'"
        )
    truth = read_panoptic(ground_truth)
    paths = [predictions] if baseline is None else [predictions, baseline]
    table = things_table(truth)
    overlaps = largest_overlaps(table, "box", same_class=settings.same_class)
    things = None if instances is None else read_instances(instances.path, truth)
    found = [find_things(truth, read_panoptic(path, results=True), tell) for path in paths]
    measuring = PanopticMeasuring(table, overlaps, found, Bootstrap(settings.bootstrap, settings.seed))
    cells = [measuring.cell(t_o, t_p) for t_o in settings.t_o for t_p in settings.t_p]
    views = [measuring.instances(t_o) for t_o in settings.t_o]
    fusion = None
    if instances is not None and things is not None:
        above = [-1.0, *sorted(each for each in settings.t_o if each >= 0)]
        fusion = fusion_losses(
            truth, table, overlaps, things, settings=instances.settings, above=above, progress=progress
        )
    roles = zip(("Ground truth", "Candidate", "Baseline"), (ground_truth, *paths), strict=False)
    files = [(role, str(path)) for role, path in roles]
    without = len(table.images) - int(np.count_nonzero(table.instances_per_image))
    return PanopticHuddleStudy(
        report=PanopticHuddleReport(
            same_class=settings.same_class,
            bootstrap=settings.bootstrap,
            seed=settings.seed,
            cells=cells,
            instance_level=views,
            fusion=fusion,
        ),
        files=(*files, *([("Instances", str(instances.path))] if instances is not None else [])),
        notes=(f"{without} of {len(table.images)} images have no thing (crowds are none): in no cell",)
        if without
        else (),
    )


def _silent(task: str, done: int, total: int) -> None: ...
