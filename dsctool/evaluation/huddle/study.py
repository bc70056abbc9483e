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
from functools import partial
from typing import get_args

import numpy as np

from dsctool.cores import beside
from dsctool.errors import DataError
from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.huddle.matched import image_precision
from dsctool.evaluation.huddle.measuring import Bootstrap, Measuring
from dsctool.evaluation.huddle.schema import Cell, HuddleReport
from dsctool.evaluation.limits import limit_notes
from dsctool.evaluation.oddities import odd_results
from dsctool.evaluation.overlaps import Overlap, largest_overlaps
from dsctool.evaluation.protocol import Protocol
from dsctool.evaluation.sources import GroundTruth, GroundTruthSource, PredictionsSource
from dsctool.evaluation.tables import DetectionTable, Floats, TruthTable
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
    protocol: Protocol | None = None,
) -> HuddleReport:
    """AP over T_O and T_P, against a baseline where one is given: what ``huddle.json`` holds.

    Sources are paths or what is in the files; they are not changed. overlap: IoU of boxes, of masks (``mask``), or the
    intersection of masks over the smaller one (``iomin``). same_class: with instances of the same category only.
    bootstrap: so many samples of the images, drawn with ``seed``, give every difference a 95 % interval. protocol: how
    many detections count, COCO's 100 where None.
    Raises :class:`DataError`, which names the file and the entry.
    """
    settings = HuddleSettings(overlap, same_class, t_o, t_p, bootstrap, seed)
    return study_huddles(ground_truth, predictions, baseline, settings=settings, protocol=protocol).report


def study_huddles(
    ground_truth: GroundTruthSource,
    predictions: PredictionsSource,
    baseline: PredictionsSource | None = None,
    *,
    settings: HuddleSettings | None = None,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> HuddleStudy:
    """:func:`huddle_report` with all that pictures of it need."""
    tell = progress or _silent
    total = 1 if baseline is None else 2
    tell("match", 0, total)
    compared = [compare(ground_truth, predictions, protocol=protocol)]
    if baseline is not None:
        tell("match", 1, total)
        compared.append(compare(compared[0].source, baseline, protocol=protocol))
    tell("match", total, total)
    return study_compared_huddles(*compared, settings=settings, progress=progress)


def study_compared_huddles(
    candidate: Comparison,
    baseline: Comparison | None = None,
    *,
    settings: HuddleSettings | None = None,
    progress: Progress | None = None,
) -> HuddleStudy:
    """:func:`study_huddles` of what was read already, with one ground truth."""
    settings = settings or HuddleSettings()
    compared = [candidate] if baseline is None else [candidate, baseline]
    kind: Kind = "segm" if all("segm" in each.kinds for each in compared) else "bbox"
    studied = [StudiedResults(each.results.name, each.detections, image_precision(each, kind)) for each in compared]
    overlaps = largest_overlaps(candidate.truth, settings.overlap, same_class=settings.same_class)
    return HuddleStudy(
        report=_report(overlaps, compared, settings, progress or _silent),
        settings=settings,
        truth=candidate.source,
        table=candidate.truth,
        overlaps=overlaps,
        candidate=studied[0],
        baseline=studied[1] if baseline is not None else None,
        notes=_notes(compared),
    )


def _silent(task: str, done: int, total: int) -> None: ...


def _report(overlaps: Floats, compared: Sequence[Comparison], settings: HuddleSettings, tell: Progress) -> HuddleReport:
    total = len(settings.t_o) * (len(settings.t_p) + 1)
    measuring = Measuring(overlaps, compared, Bootstrap(settings.bootstrap, settings.seed))
    instances = partial(measuring.instances, settings.t_o)
    early = None if settings.bootstrap else beside(instances)  # samples are shared out by themselves
    cells: list[Cell] = []
    for t_o in settings.t_o:
        for t_p in settings.t_p:
            cells.append(measuring.cell(t_o, t_p))
            tell("measure", len(cells), total)
    views = instances() if early is None else early.result()
    tell("measure", total, total)
    return HuddleReport(
        overlap=settings.overlap,
        same_class=settings.same_class,
        max_dets=compared[0].protocol.limits[-1],
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        cells=cells,
        instance_level=views,
    )


def _notes(compared: Sequence[Comparison]) -> list[str]:
    source, table = compared[0].source, compared[0].truth
    notes = []
    without = len(table.images) - int(np.count_nonzero(table.instances_per_image))
    if without:
        notes.append(f"{without} of {len(table.images)} images have no instance (crowds are none): in no cell")
    if not source.has_masks:
        notes.append(f"no numbers for masks: {source.name} has no segmentations")
    for each in compared:
        if not len(each.detections.image):
            notes.append(f"{each.results.name}: there are no predictions")
        elif source.has_masks and "segm" not in each.kinds:
            notes.append(f"no numbers for masks of {each.results.name}: it has boxes only")
        notes += odd_results(each)
    return [*notes, *limit_notes(compared[0]), *compared[0].source.notes]
