"""Where AP is lost: types of error by size and for huddled instances, confusions, curves, and what NMS removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.errors import DataError
from dsctool.evaluation.error_analysis.confusion import confusion_matrix
from dsctool.evaluation.error_analysis.costs import diagnose, measure_costs
from dsctool.evaluation.error_analysis.curves import curve_set
from dsctool.evaluation.error_analysis.schema import VIEWS, ErrorReport, Errors, ErrorView, ViewName
from dsctool.evaluation.error_analysis.suppression import measure_suppression
from dsctool.evaluation.error_analysis.types import BACKGROUND_IOU, FOREGROUND_IOU, Surroundings, surroundings
from dsctool.evaluation.matching import Pairs, find_pairs, match
from dsctool.evaluation.overlaps import Overlap, largest_overlaps
from dsctool.evaluation.sources import (
    GroundTruth,
    GroundTruthSource,
    Predictions,
    PredictionsSource,
    check_truth_masks,
    load_ground_truth,
    load_predictions,
)
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, TruthTable, detection_table, truth_table
from dsctool.structures import KINDS, LARGE_AREA, MEDIUM_AREA, Kind

SIZES: dict[ViewName, tuple[float, float]] = {
    "small": (0.0, MEDIUM_AREA),
    "medium": (MEDIUM_AREA, LARGE_AREA),
    "large": (LARGE_AREA, 1e5**2),
}
"""COCO's ranges of areas in pixels; both ends belong to them."""


@dataclass(frozen=True)
class ErrorSettings:
    """What counts as huddled, and what the confusion matrix shows.

    overlap, t_o: an instance is huddled when its largest overlap with another one is above ``t_o``, else lone.
    score_threshold: results of at least this score are in the confusion matrix.
    """

    overlap: Overlap = "box"
    t_o: float = 0.1
    score_threshold: float = 0.3

    def __post_init__(self) -> None:
        for name, value in (("T_O", self.t_o), ("score threshold", self.score_threshold)):
            if not math.isfinite(value):
                raise DataError(f"{name} is {value}: give a finite number")


@dataclass(frozen=True)
class ErrorStudy:
    """The report, the names of the files behind it, and why parts of it are missing, for people."""

    report: ErrorReport
    truth_name: str
    results_name: str
    notes: list[str]


def study_errors(
    ground_truth: GroundTruthSource,
    predictions: PredictionsSource,
    candidates: PredictionsSource | None = None,
    *,
    settings: ErrorSettings | None = None,
) -> ErrorStudy:
    """The whole analysis. Sources are paths or what is in the files; they are not changed.

    candidates: what the model had before NMS, boxes in the format of results. Raises :class:`DataError`, which names
    the file and the entry.
    """
    settings = settings or ErrorSettings()
    truth = load_ground_truth(ground_truth)
    if truth.has_masks:
        check_truth_masks(truth)
    table = truth_table(truth)
    overlaps = largest_overlaps(table, settings.overlap, same_class=False)
    views = {name: _counted(table, name, overlaps, settings.t_o) for name in VIEWS}
    results = load_predictions(predictions, truth)
    before = None if candidates is None else load_predictions(candidates, truth)
    compared = {kind: _compare(results, table, kind) for kind in _kinds(truth, results)}
    errors = {kind: _errors(each, views) for kind, each in compared.items()}
    shown: Kind = "segm" if "segm" in compared else "bbox"
    own = compared[shown]
    report = ErrorReport(
        foreground_iou=FOREGROUND_IOU,
        background_iou=BACKGROUND_IOU,
        overlap=settings.overlap,
        t_o=settings.t_o,
        bbox=errors["bbox"],
        segm=errors.get("segm"),
        confusion=confusion_matrix(
            table, own.detections, own.pairs, own.around, shown, score_threshold=settings.score_threshold
        ),
        suppression=None if before is None else measure_suppression(before, results, table, views, overlaps),
    )
    return ErrorStudy(report, truth.name, results.name, _notes(truth, results, before))


def _counted(table: TruthTable, name: ViewName, overlaps: Floats, t_o: float) -> Bools:
    """``(m,)``: the instances of a view."""
    instances = ~table.ignored
    if name in SIZES:
        low, high = SIZES[name]
        return instances & (table.area >= low) & (table.area <= high)
    if name == "all":
        return instances
    return instances & ((overlaps > t_o) == (name == "huddled"))


def _kinds(truth: GroundTruth, results: Predictions) -> list[Kind]:
    with_masks = truth.has_masks and (results.has_masks or not results.results)
    return [kind for kind in KINDS if kind == "bbox" or with_masks]


@dataclass(frozen=True)
class _Compared:
    """One kind of shape, before it is known which instances count. areas: ``(n,)``, as pycocotools has them."""

    kind: Kind
    truth: TruthTable
    detections: DetectionTable
    areas: Floats
    pairs: Pairs
    around: Surroundings


def _compare(results: Predictions, table: TruthTable, kind: Kind) -> _Compared:
    detections = detection_table(results, table)
    if kind == "segm" or (results.has_masks and not results.has_boxes):
        areas = np.asarray([float(coco_mask.area(mask)) for mask in detections.masks or []], dtype=np.float64)
    else:
        areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    pairs, around = find_pairs(table, detections, kind), surroundings(table, detections, kind)
    return _Compared(kind, table, detections, areas, pairs, around)


def _errors(compared: _Compared, views: Mapping[ViewName, Bools]) -> Errors:
    """views: the instances ``(m,)`` of each."""
    table, detections = compared.truth, compared.detections
    matches = match(compared.pairs, table, detections, compared.kind, ignored=table.ignored)
    return Errors(
        views=[_view(compared, name, counted) for name, counted in views.items()],
        curves=curve_set(table, detections, matches),
    )


def _view(compared: _Compared, name: ViewName, counted: Bools) -> ErrorView:
    detections = compared.detections
    if name in SIZES:
        low, high = SIZES[name]
        outside = (compared.areas < low) | (compared.areas > high)
        detections = replace(detections, outside={compared.kind: outside})
    found = diagnose(compared.truth, detections, compared.pairs, compared.around, compared.kind, counted=counted)
    return measure_costs(found, name)


def _notes(truth: GroundTruth, results: Predictions, candidates: Predictions | None) -> list[str]:
    notes = []
    if not truth.has_masks:
        notes.append(f"no numbers for masks: {truth.name} has no segmentations")
    elif results.results and not results.has_masks:
        notes.append(f"no numbers for masks: {results.name} has boxes only")
    if not results.results:
        notes.append(f"{results.name}: there are no predictions")
    if candidates is not None and not candidates.results:
        notes.append(f"{candidates.name}: there are no candidates")
    return notes
