"""The analysis of errors as data: what ``errors.json`` holds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, TypedDict, get_args

from dsctool.evaluation.overlaps import Overlap
from dsctool.terms import Kind

ErrorType = Literal["classification", "localisation", "both", "duplicate", "background", "missed", "elsewhere"]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)
"""In the order of tables; what they are: :mod:`.types`."""


class Cost(TypedDict):
    """What one type of error costs.

    count: detections, or for ``missed`` instances. difference: AP50 without these errors minus AP50. share: of the sum
    of the differences of all types. Both are None where the view has no instances, and ``share`` where nothing is lost.
    """

    count: int
    difference: float | None
    share: float | None


class ErrorView(TypedDict):
    """Some of the instances, the others ignored.

    name: ``all``, a range of areas (COCO's ``small``, ``medium``, ``large``), ``huddled`` or ``lone``. instances: how
    many. AP50: -1 without instances. errors: by type, one type mended at a time. false_positives, false_negatives: AP50
    minus what it is without all wrong detections, or with only the found instances.
    """

    name: str
    instances: int
    AP50: float
    errors: dict[ErrorType, Cost]
    false_positives: float | None
    false_negatives: float | None


class Confusion(TypedDict):
    """What the instances were taken for.

    kind: what IoU is of. matrix: ``(categories + 1, categories + 1)``, a row per true category and one for background,
    a column per category found and one for missed. Results of at least ``score_threshold`` count.
    """

    kind: Kind
    iou: float
    score_threshold: float
    categories: list[CategoryName]
    matrix: list[list[int]]


class CategoryName(TypedDict):
    """A category of the ground truth."""

    id: Hashable
    name: str


class Curve(TypedDict):
    """Precision and lowest score at each of ``recalls``: 0 where that recall is not reached."""

    precision: list[float]
    score: list[float]


class BestScore(TypedDict):
    """The score threshold that gives the best F1 at IoU 0.5, and what it gives. All are 0 where nothing is found."""

    score: float
    f1: float
    precision: float
    recall: float


class CategoryCurve(CategoryName):
    """At IoU 0.5; None without instances."""

    instances: int
    curve: Curve | None
    best: BestScore | None


class CurveSet(TypedDict):
    """Precision over recall.

    mean: over the categories with instances, and over IoU thresholds: ``0.50``, ``0.75`` or ``0.50:0.95``; None without
    instances. categories: in the order of their ids.
    """

    recalls: list[float]
    mean: dict[str, list[float]] | None
    categories: list[CategoryCurve]


class Errors(TypedDict):
    """Of boxes, or of masks."""

    views: list[ErrorView]
    curves: CurveSet


class SuppressedInstance(TypedDict):
    """An instance that a candidate matched and no final detection did. overlap: its largest with another instance."""

    annotation_id: int
    image_id: Hashable
    category_id: Hashable
    overlap: float


class SuppressionView(TypedDict):
    """instances: how many. before: matched by candidates. after: by detections. removed: before, and not after."""

    name: str
    instances: int
    before: int
    after: int
    removed: int


class SuppressionReport(TypedDict):
    """What suppression did to the instances, by boxes at IoU 0.5. candidates: how many there are."""

    candidates: int
    views: list[SuppressionView]
    removed: list[SuppressedInstance]


class ErrorReport(TypedDict):
    """The whole analysis. An instance is huddled when its largest ``overlap`` with another one is above ``t_o``.

    max_dets: detections that count per image and category.
    """

    foreground_iou: float
    background_iou: float
    overlap: Overlap
    t_o: float
    max_dets: int
    bbox: Errors
    segm: Errors | None
    confusion: Confusion
    suppression: SuppressionReport | None
