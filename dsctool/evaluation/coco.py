"""COCO's numbers, as pycocotools counts them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np

from dsctool.cores import beside
from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.limits import limit_notes
from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches, View
from dsctool.evaluation.oddities import odd_results
from dsctool.evaluation.precision import Curves, mean_precision, rank
from dsctool.evaluation.protocol import COCO_AREAS, AreaRange, Protocol
from dsctool.evaluation.sources import GroundTruthSource, PredictionsSource
from dsctool.evaluation.tables import Floats
from dsctool.terms import Kind

STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve numbers in pycocotools' order."""

Numbers = dict[str, float]
"""Values by name, each from 0 to 1, or -1 where the ground truth has nothing to measure."""


class Stats(TypedDict):
    """The numbers of a protocol, COCO's twelve (``STAT_NAMES``), for boxes and for masks; no masks, no numbers."""

    bbox: Numbers
    segm: Numbers | None


@dataclass(frozen=True)
class ClassStats:
    """``AP``, ``AP50`` and ``AP75`` of one category; ``instances`` counts its annotations that are not crowds."""

    id: Hashable
    name: str
    instances: int
    bbox: Numbers
    segm: Numbers | None


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation gives.

    classes: in the order of their ids. notes: why values are -1 or missing, and what the protocol leaves out, for
    people. protocol: how it was counted.
    """

    stats: Stats
    classes: list[ClassStats]
    notes: list[str]
    protocol: Protocol


def evaluate(
    ground_truth: GroundTruthSource, predictions: PredictionsSource, *, protocol: Protocol | None = None
) -> Stats:
    """COCO's twelve numbers for boxes and masks, exactly pycocotools'; or those of another protocol.

    Each source is a path or what is in that file; neither is changed. The area of a detection is its mask's where
    masks are measured, as in mmdet and detectron2. Results with masks only: boxes come from the masks. Results with
    boxes only, or ground truth without segmentations: ``segm`` is None. Raises ``DataError``, which names the file
    and the entry.
    """
    return evaluate_all(ground_truth, predictions, protocol=protocol).stats


def evaluate_all(
    ground_truth: GroundTruthSource, predictions: PredictionsSource, *, protocol: Protocol | None = None
) -> Evaluation:
    """What :func:`evaluate` gives, of every category as well, from one matching."""
    return evaluate_comparison(compare(ground_truth, predictions, protocol=protocol))


def evaluate_comparison(comparison: Comparison) -> Evaluation:
    """:func:`evaluate_all` of what was read already."""
    comparison.pairs("bbox")  # here, for later analyses; what follows is done while masks are compared
    measuring = {kind: beside(partial(_measure, comparison, kind)) for kind in comparison.kinds[:-1]}
    last = _measure(comparison, comparison.kinds[-1])
    measured = {kind: each.result() for kind, each in measuring.items()} | {comparison.kinds[-1]: last}
    stats = Stats(bbox=measured["bbox"].numbers, segm=measured["segm"].numbers if "segm" in measured else None)
    return Evaluation(stats, _class_stats(comparison, measured), _notes(comparison, stats), comparison.protocol)


def stat_names(protocol: Protocol) -> tuple[str, ...]:
    """The names of a resolved protocol's numbers in order: AP, AP by IoU and area, AR by detections and area."""
    keys = [area.key for area in protocol.areas]
    ap = ("AP", "AP50", "AP75", *(f"AP{key}" for key in keys))
    return (*ap, *(f"AR{limit}" for limit in protocol.limits), *(f"AR{key}" for key in keys))


@dataclass(frozen=True)
class _Measured:
    """Of boxes, or of masks. precision: ``(thresholds, categories)``, -1 where there is nothing to find."""

    numbers: Numbers
    precision: Floats


def _measure(comparison: Comparison, kind: Kind) -> _Measured:
    truth, detections, protocol = comparison.truth, comparison.detections, comparison.protocol
    views = [comparison.everything, *(comparison.of_area(area) for area in protocol.areas)]
    matches = comparison.matches(kind, views)
    once = np.ones((1, len(truth.images)), dtype=np.int32)
    every, *by_area = (
        Curves(rank(truth, detections, [view], [each])).average_precision(once)[0, 0]
        for view, each in zip(views, matches, strict=True)
    )
    values = [every, every[IOU_THRESHOLDS == 0.5], every[IOU_THRESHOLDS == 0.75], *by_area]
    values += [_recall(comparison, views[0], matches[0], limit) for limit in protocol.limits]
    values += [_recall(comparison, *each, protocol.limits[-1]) for each in zip(views[1:], matches[1:], strict=True)]
    means = [float(mean_precision(each)) for each in values]
    return _Measured(dict(zip(stat_names(protocol), means, strict=True)), every)


def _recall(comparison: Comparison, view: View, matches: Matches, limit: int) -> Floats:
    """``(thresholds, categories)``, by the first ``limit`` detections of each image and category; -1 as for AP."""
    truth, detections = comparison.truth, comparison.detections
    wanted = np.bincount(truth.category[view.wanted], minlength=len(truth.categories))
    rows = np.flatnonzero((matches.found > 0) & (detections.rank < limit))
    bits, category = matches.found[rows], detections.category[rows]
    found = [
        np.bincount(category[bits >> level & 1 == 1], minlength=len(wanted)) for level in range(len(IOU_THRESHOLDS))
    ]
    return np.where(wanted > 0, np.stack(found) / np.maximum(wanted, 1), -1.0)


def _class_stats(comparison: Comparison, measured: dict[Kind, _Measured]) -> list[ClassStats]:
    truth = comparison.truth
    counts = np.bincount(truth.category[~truth.crowd], minlength=len(truth.categories)).tolist()
    return [
        ClassStats(
            id=category,
            name=truth.names[index],
            instances=counts[index],
            bbox=_class_numbers(measured["bbox"].precision[:, index]),
            segm=_class_numbers(measured["segm"].precision[:, index]) if "segm" in measured else None,
        )
        for index, category in enumerate(truth.categories)
    ]


def _class_numbers(precision: Floats) -> Numbers:
    """precision: ``(thresholds,)``, all -1 or none."""
    chosen = (precision, precision[IOU_THRESHOLDS == 0.5], precision[IOU_THRESHOLDS == 0.75])
    return {name: float(values.mean()) for name, values in zip(("AP", "AP50", "AP75"), chosen, strict=True)}


_COCO_AREAS = {
    "s": "small annotations (area below 32 x 32 pixels)",
    "m": "medium annotations (area from 32 x 32 to 96 x 96 pixels)",
    "l": "large annotations (area above 96 x 96 pixels)",
}


def _notes(comparison: Comparison, stats: Stats) -> list[str]:
    source, detections = comparison.source, comparison.detections
    notes = []
    if stats["bbox"]["AP"] == -1:
        notes.append("-1: the ground truth has no annotations that are not crowds, so there is nothing to measure")
    else:
        missing = [area for area in comparison.protocol.areas if stats["bbox"][f"AP{area.key}"] == -1]
        notes += [
            f"AP{area.key} and AR{area.key} are -1: the ground truth has no {_described(area)}" for area in missing
        ]
    if stats["segm"] is None:
        reason = "ground truth has no segmentations" if not source.has_masks else "predictions have boxes only"
        notes.append(f"no numbers for masks: the {reason}")
    elif not len(detections.image):
        notes.append("there are no predictions")
    if not comparison.truth.counted.all():
        notes.append("an annotation has id 0: COCO's evaluator counts a match with it as a miss; number from 1")
    return [*notes, *limit_notes(comparison), *odd_results(comparison), *source.notes]


def _described(area: AreaRange) -> str:
    if area in COCO_AREAS:
        return _COCO_AREAS[area.key]
    return f"annotations of the range {area.name} ({area.bounds} pixels)"
