"""Where AP is lost: types of error by size and for huddled instances, confusions, curves, and what NMS removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from dsctool.cores import beside
from dsctool.errors import DataError
from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.error_analysis.confusion import confusion_matrix
from dsctool.evaluation.error_analysis.costs import diagnose, measure_costs
from dsctool.evaluation.error_analysis.curves import curve_set
from dsctool.evaluation.error_analysis.schema import ErrorReport, Errors
from dsctool.evaluation.error_analysis.suppression import measure_suppression
from dsctool.evaluation.error_analysis.types import BACKGROUND_IOU, FOREGROUND_IOU, Surroundings, surroundings
from dsctool.evaluation.limits import limit_notes
from dsctool.evaluation.matching import View
from dsctool.evaluation.oddities import odd_results
from dsctool.evaluation.overlaps import Overlap, largest_overlaps
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.protocol import Protocol
from dsctool.evaluation.sources import GroundTruthSource, PredictionsSource, load_ground_truth, load_predictions
from dsctool.evaluation.tables import Floats
from dsctool.terms import Kind


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
    protocol: Protocol | None = None,
) -> ErrorStudy:
    """The whole analysis. Sources are paths or what is in the files; they are not changed.

    candidates: what the model had before NMS, boxes in the format of results. protocol: how many detections count, and
    the ranges of areas that are looked at by themselves; COCO's where None. Raises :class:`DataError`, which names the
    file and the entry.
    """
    compared = compare(load_ground_truth(ground_truth), predictions, protocol=protocol)
    return study_compared_errors(compared, candidates, settings=settings)


def study_compared_errors(
    compared: Comparison, candidates: PredictionsSource | None = None, *, settings: ErrorSettings | None = None
) -> ErrorStudy:
    """:func:`study_errors` of what was read already."""
    settings = settings or ErrorSettings()
    source, truth, results = compared.source, compared.truth, compared.results
    before = None if candidates is None else load_predictions(candidates, source)
    overlaps = largest_overlaps(truth, settings.overlap, same_class=False)
    views = _views(compared, overlaps, settings.t_o)
    *others, shown = compared.kinds
    beside_it = {kind: beside(partial(_errors, compared, kind, views)) for kind in others}
    around = surroundings(compared, shown)
    errors = {shown: _errors(compared, shown, views, around)}
    confusion = confusion_matrix(compared, shown, around, score_threshold=settings.score_threshold)
    errors |= {kind: each.result() for kind, each in beside_it.items()}
    report = ErrorReport(
        foreground_iou=FOREGROUND_IOU,
        background_iou=BACKGROUND_IOU,
        overlap=settings.overlap,
        t_o=settings.t_o,
        max_dets=compared.protocol.limits[-1],
        bbox=errors["bbox"],
        segm=errors.get("segm"),
        confusion=confusion,
        suppression=None if before is None else measure_suppression(before, results, truth, views, overlaps),
    )
    return ErrorStudy(report, source.name, results.name, _notes(compared, before))


def _views(compared: Comparison, overlaps: Floats, t_o: float) -> dict[str, View]:
    """All instances, those of each range of areas, those that overlap others and those that do not."""
    wanted = compared.truth.wanted
    return {
        "all": compared.everything,
        **{area.name: compared.of_area(area) for area in compared.protocol.areas},
        "huddled": View(wanted & (overlaps > t_o)),
        "lone": View(wanted & ~(overlaps > t_o)),
    }


def _errors(compared: Comparison, kind: Kind, views: Mapping[str, View], around: Surroundings | None = None) -> Errors:
    around = around or surroundings(compared, kind)
    diagnoses = diagnose(compared, kind, around, list(views.values()))
    return Errors(
        views=[measure_costs(each, name) for name, each in zip(views, diagnoses, strict=True)],
        curves=curve_set(compared.truth, compared.detections, diagnoses[0].matches),
    )


def _notes(compared: Comparison, candidates: Predictions | None) -> list[str]:
    source, results = compared.source, compared.results
    notes = []
    if not source.has_masks:
        notes.append(f"no numbers for masks: {source.name} has no segmentations")
    elif "segm" not in compared.kinds:
        notes.append(f"no numbers for masks: {results.name} has boxes only")
    if not len(compared.detections.image):
        notes.append(f"{results.name}: there are no predictions")
    if candidates is not None and not len(candidates):
        notes.append(f"{candidates.name}: there are no candidates")
    return [*notes, *limit_notes(compared), *odd_results(compared), *source.notes]
