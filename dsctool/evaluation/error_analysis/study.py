"""Where AP is lost: types of error by size and for huddled instances, confusions, curves, and what NMS removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dsctool.errors import DataError
from dsctool.evaluation.error_analysis.compared import Compared, compare
from dsctool.evaluation.error_analysis.confusion import confusion_matrix
from dsctool.evaluation.error_analysis.costs import diagnose, measure_costs
from dsctool.evaluation.error_analysis.curves import curve_set
from dsctool.evaluation.error_analysis.schema import VIEWS, ErrorReport, Errors, ViewName
from dsctool.evaluation.error_analysis.suppression import measure_suppression
from dsctool.evaluation.error_analysis.types import BACKGROUND_IOU, FOREGROUND_IOU
from dsctool.evaluation.overlaps import Overlap, largest_overlaps
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth, GroundTruthSource, PredictionsSource, load_predictions
from dsctool.evaluation.tables import Bools, Floats, TruthTable, open_truth
from dsctool.terms import KINDS, LARGE_AREA, MEDIUM_AREA, Kind

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
    truth, table = open_truth(ground_truth)
    overlaps = largest_overlaps(table, settings.overlap, same_class=False)
    views = {name: _counted(table, name, overlaps, settings.t_o) for name in VIEWS}
    results = load_predictions(predictions, truth)
    before = None if candidates is None else load_predictions(candidates, truth)
    compared = {kind: compare(results, table, kind) for kind in _kinds(truth, results)}
    errors = {kind: _errors(each, views) for kind, each in compared.items()}
    shown: Kind = "segm" if "segm" in compared else "bbox"
    report = ErrorReport(
        foreground_iou=FOREGROUND_IOU,
        background_iou=BACKGROUND_IOU,
        overlap=settings.overlap,
        t_o=settings.t_o,
        bbox=errors["bbox"],
        segm=errors.get("segm"),
        confusion=confusion_matrix(compared[shown], score_threshold=settings.score_threshold),
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
    with_masks = truth.has_masks and (results.has_masks or not len(results))
    return [kind for kind in KINDS if kind == "bbox" or with_masks]


def _errors(compared: Compared, views: Mapping[ViewName, Bools]) -> Errors:
    """views: the instances ``(m,)`` of each."""
    measured = []
    for name, counted in views.items():
        sized = compared.of_size(*SIZES[name]) if name in SIZES else compared
        measured.append(measure_costs(diagnose(sized, counted=counted), name))
    matches = compared.matched(ignored=compared.truth.ignored)
    return Errors(views=measured, curves=curve_set(compared.truth, compared.detections, matches))


def _notes(truth: GroundTruth, results: Predictions, candidates: Predictions | None) -> list[str]:
    notes = []
    if not truth.has_masks:
        notes.append(f"no numbers for masks: {truth.name} has no segmentations")
    elif len(results) and not results.has_masks:
        notes.append(f"no numbers for masks: {results.name} has boxes only")
    if not len(results):
        notes.append(f"{results.name}: there are no predictions")
    if candidates is not None and not len(candidates):
        notes.append(f"{candidates.name}: there are no candidates")
    return notes
