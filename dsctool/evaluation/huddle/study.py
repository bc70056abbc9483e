"""AP where instances huddle: the table over T_O and T_P, and the view of single instances.

Results are matched once; every cell of the table weighs what was matched, and so does the bootstrap. A cell is what
pycocotools gives when its ``imgIds`` are those of the subset. Which images these are: :mod:`.subsets`.

The view of single instances is the AP over the instances that are huddled at T_O, in all images that have instances.
The others are ignored as COCO ignores areas out of range: a detection may match one of them, by ordinary IoU and each
only once, and then counts neither way; one that matches nothing is a false positive. Crowds stay crowds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from dsctool.errors import DataError
from dsctool.evaluation.huddle.matched import MatchedResults, match_results
from dsctool.evaluation.huddle.measuring import Bootstrap, Measuring
from dsctool.evaluation.huddle.schema import Cell, HuddleReport, InstanceView
from dsctool.evaluation.overlaps import Overlap, largest_overlaps
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth, GroundTruthSource, PredictionsSource, load_predictions
from dsctool.evaluation.tables import DetectionTable, Floats, TruthTable, open_truth
from dsctool.terms import Kind, Progress

T_O = (-1.0, 0.0, 0.1, 0.2, 0.3, 0.4)
"""The published table's rows: an instance is huddled when its largest overlap is greater."""
T_P = (0.0, 0.1, 0.2, 0.3, 0.4)
"""The published table's columns: an image counts when its share of huddled instances is greater."""


@dataclass(frozen=True)
class HuddleSettings:
    """What to look at. bootstrap: samples of images behind every interval, 0 for no intervals.

    Raises :class:`DataError` for values that mean nothing.
    """

    overlap: Overlap = "box"
    same_class: bool = False
    t_o: Sequence[float] = T_O
    t_p: Sequence[float] = T_P
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.overlap not in get_args(Overlap):
            raise DataError(f"overlap is {self.overlap!r}, not one of {', '.join(get_args(Overlap))}")
        for name, values in (("T_O", self.t_o), ("T_P", self.t_p)):
            if not values or not all(math.isfinite(value) for value in values):
                raise DataError(f"{name} is {list(values)}: give finite numbers, at least one")
            if len(set(values)) < len(values):
                raise DataError(f"{name} is {list(values)}: a value appears twice")
        if self.bootstrap < 0 or self.seed < 0:
            raise DataError(f"bootstrap {self.bootstrap}, seed {self.seed}: both are 0 or more")


@dataclass(frozen=True)
class StudiedResults:
    """One of the results that are compared.

    image_precision: ``(images,)``, AP of each image by itself, of masks where all results have them; NaN without
    instances.
    """

    name: str
    detections: DetectionTable
    image_precision: Floats


@dataclass(frozen=True)
class HuddleStudy:
    """The report and what it was made from.

    overlaps: ``(m,)``, the largest of each row of ``table``; NaN for crowds. notes: why numbers are missing.
    """

    report: HuddleReport
    settings: HuddleSettings
    truth: GroundTruth
    table: TruthTable
    overlaps: Floats
    candidate: StudiedResults
    baseline: StudiedResults | None
    notes: list[str]


def huddle_report(
    ground_truth: GroundTruthSource,
    predictions: PredictionsSource,
    baseline: PredictionsSource | None = None,
    overlap: Overlap = "box",
    same_class: bool = False,
    *,
    t_o: Sequence[float] = T_O,
    t_p: Sequence[float] = T_P,
    bootstrap: int = 0,
    seed: int = 0,
) -> HuddleReport:
    """AP over T_O and T_P, against a baseline where one is given: what ``huddle.json`` holds.

    Sources are paths or what is in the files; they are not changed. overlap: IoU of boxes, of masks (``mask``), or the
    intersection of masks over the smaller one (``iomin``). same_class: with instances of the same category only.
    bootstrap: so many samples of the images, drawn with ``seed``, give every difference a 95 % interval.
    Raises :class:`DataError`, which names the file and the entry.
    """
    settings = HuddleSettings(overlap, same_class, t_o, t_p, bootstrap, seed)
    return study_huddles(ground_truth, predictions, baseline, settings=settings).report


def study_huddles(
    ground_truth: GroundTruthSource,
    predictions: PredictionsSource,
    baseline: PredictionsSource | None = None,
    *,
    settings: HuddleSettings | None = None,
    progress: Progress | None = None,
) -> HuddleStudy:
    """:func:`huddle_report` with all that pictures of it need."""
    settings = settings or HuddleSettings()
    tell = progress or (lambda task, done, total: None)
    truth, table = open_truth(ground_truth)
    overlaps = largest_overlaps(table, settings.overlap, same_class=settings.same_class)
    sources = [predictions] if baseline is None else [predictions, baseline]
    loaded: list[Predictions] = []
    matched: list[MatchedResults] = []
    for number, source in enumerate(sources):
        tell("match", number, len(sources))
        loaded.append(load_predictions(source, truth))
        matched.append(match_results(loaded[-1], table, masks=truth.has_masks))
    tell("match", len(sources), len(sources))
    kind: Kind = "segm" if all("segm" in each.pairs for each in matched) else "bbox"
    studied = [
        StudiedResults(source.name, each.detections, each.image_precision(kind))
        for source, each in zip(loaded, matched, strict=True)
    ]
    return HuddleStudy(
        report=_report(table, overlaps, matched, settings, tell),
        settings=settings,
        truth=truth,
        table=table,
        overlaps=overlaps,
        candidate=studied[0],
        baseline=studied[1] if baseline is not None else None,
        notes=_notes(truth, table, loaded),
    )


def _report(
    table: TruthTable, overlaps: Floats, matched: list[MatchedResults], settings: HuddleSettings, tell: Progress
) -> HuddleReport:
    total = len(settings.t_o) * (len(settings.t_p) + 1)
    measuring = Measuring(table, overlaps, matched, Bootstrap(settings.bootstrap, settings.seed))
    cells: list[Cell] = []
    views: list[InstanceView] = []
    for t_o in settings.t_o:
        for t_p in settings.t_p:
            cells.append(measuring.cell(t_o, t_p))
            tell("measure", len(cells) + len(views), total)
        views.append(measuring.instances(t_o))
        tell("measure", len(cells) + len(views), total)
    return HuddleReport(
        overlap=settings.overlap,
        same_class=settings.same_class,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        cells=cells,
        instance_level=views,
    )


def _notes(truth: GroundTruth, table: TruthTable, results: Sequence[Predictions]) -> list[str]:
    notes = []
    without = len(table.images) - int(np.count_nonzero(table.instances_per_image))
    if without:
        notes.append(f"{without} of {len(table.images)} images have no instance (crowds are none): in no cell")
    if not truth.has_masks:
        notes.append(f"no numbers for masks: {truth.name} has no segmentations")
    for each in results:
        if not len(each):
            notes.append(f"{each.name}: there are no predictions")
        elif truth.has_masks and not each.has_masks:
            notes.append(f"no numbers for masks of {each.name}: it has boxes only")
    return notes
