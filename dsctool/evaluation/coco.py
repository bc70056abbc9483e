"""The official COCO numbers, computed by pycocotools itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import (
    GroundTruth,
    GroundTruthSource,
    PredictionsSource,
    load_ground_truth,
    load_predictions,
)
from dsctool.terms import Kind

STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve numbers in pycocotools' order."""

Numbers = dict[str, float]
"""Values by name, each from 0 to 1, or -1 where the ground truth has nothing to measure."""


class Stats(TypedDict):
    """The twelve numbers (``STAT_NAMES``) for boxes and for masks; no masks, no numbers."""

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

    classes: in the order of their ids. notes: why values are -1 or missing, for people.
    """

    stats: Stats
    classes: list[ClassStats]
    notes: list[str]


def evaluate(ground_truth: GroundTruthSource, predictions: PredictionsSource) -> Stats:
    """COCO's twelve numbers for boxes and masks, exactly pycocotools'.

    Each argument is a path or what is in that file; neither is changed. For masks pycocotools gets the
    results without their boxes, so the area of a detection is its mask's, as in mmdet and detectron2.
    Results with masks only: boxes come from the masks. Results with boxes only, or ground truth without
    segmentations: ``segm`` is None. Raises ``DataError``, which names the file and the entry.
    """
    return evaluate_all(ground_truth, predictions).stats


def evaluate_all(ground_truth: GroundTruthSource, predictions: PredictionsSource) -> Evaluation:
    """What :func:`evaluate` gives, of every category as well, from one matching."""
    truth = load_ground_truth(ground_truth)
    results = load_predictions(predictions, truth)
    boxes = _run(truth, results, "bbox")
    masks = None
    if truth.has_masks and (results.has_masks or not len(results)):
        masks = _run(truth, results, "segm")
    stats = Stats(bbox=_summary(boxes), segm=_summary(masks) if masks is not None else None)
    return Evaluation(stats, _class_stats(truth, boxes, masks), _notes(truth, results, stats))


def _run(truth: GroundTruth, predictions: Predictions, kind: Kind) -> COCOeval:
    """Matched and accumulated; what pycocotools prints is dropped, its exceptions are not."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = _coco(
            truth,
            [
                {
                    "id": int(c.id[r]),
                    "image_id": truth.images[c.image[r]].id,
                    "category_id": truth.categories[c.label[r]].id,
                    "bbox": c.box[r].tolist(),
                    "area": float(c.area[r]),
                    "iscrowd": int(c.crowd[r]),
                    "segmentation": dict(truth.masks[r]) if truth.has_masks else [],
                }
                for c in [truth.annotations]
                for r in range(len(c))
            ],
        )
        results = [
            {
                "image_id": truth.images[p.image[r]].id,
                "category_id": truth.categories[p.category[r]].id,
                "score": float(p.score[r]),
                **({"bbox": p.boxes[r].tolist()} if p.boxes is not None else {}),
                **({"segmentation": p.masks[r]} if p.masks is not None else {}),
            }
            for p in [predictions]
            for r in range(len(p))
        ]
        results = [_as_given(result, kind) for result in results]
        # loadRes looks at the first result and fails where there is none.
        detections = coco.loadRes(results) if results else _coco(truth, [])
        evaluation = COCOeval(coco, detections, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _coco(truth: GroundTruth, annotations: list[dict[str, object]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in truth.images],
        "categories": [{"id": c.id, "name": c.name} for c in truth.categories],
        "annotations": [dict(annotation) for annotation in annotations],
    }
    coco.createIndex()
    return coco


def _as_given(result: dict[str, object], kind: Kind) -> dict[str, object]:
    """A copy for pycocotools to write into; with a box in it, the box's area would count for the mask."""
    return {key: value for key, value in result.items() if kind == "bbox" or key != "bbox"}


def _summary(evaluation: COCOeval) -> Numbers:
    return {name: float(value) for name, value in zip(STAT_NAMES, evaluation.stats, strict=True)}


def _class_stats(truth: GroundTruth, boxes: COCOeval, masks: COCOeval | None) -> list[ClassStats]:
    counts = np.bincount(truth.annotations.label[~truth.annotations.crowd], minlength=len(truth.categories)).tolist()
    return [
        ClassStats(
            id=category.id,
            name=category.name,
            instances=counts[index],
            bbox=_class_numbers(boxes, index),
            segm=_class_numbers(masks, index) if masks is not None else None,
        )
        for index, category in enumerate(truth.categories)
    ]


def _class_numbers(evaluation: COCOeval, index: int) -> Numbers:
    # (IoU thresholds, recalls): all areas, at most 100 detections.
    precision = evaluation.eval["precision"][:, :, index, 0, -1]
    thresholds = evaluation.params.iouThrs
    rows = {"AP": precision, "AP50": precision[thresholds == 0.5], "AP75": precision[thresholds == 0.75]}
    return {name: float(np.mean(row[row > -1])) if (row > -1).any() else -1.0 for name, row in rows.items()}


_AREAS = {
    "AP": "annotations that are not crowds",
    "APs": "small annotations (area below 32 x 32 pixels)",
    "APm": "medium annotations (area from 32 x 32 to 96 x 96 pixels)",
    "APl": "large annotations (area above 96 x 96 pixels)",
}


def _notes(truth: GroundTruth, predictions: Predictions, stats: Stats) -> list[str]:
    missing = [name for name in _AREAS if stats["bbox"][name] == -1]
    if "AP" in missing:
        notes = [f"-1: the ground truth has no {_AREAS['AP']}, so there is nothing to measure"]
    else:
        notes = [f"{name} and AR{name[2:]} are -1: the ground truth has no {_AREAS[name]}" for name in missing]
    if stats["segm"] is None:
        reason = "ground truth has no segmentations" if not truth.has_masks else "predictions have boxes only"
        notes.append(f"no numbers for masks: the {reason}")
    elif not len(predictions):
        notes.append("there are no predictions")
    if (truth.annotations.id == 0).any():
        notes.append("an annotation has id 0: COCO's evaluator counts a match with it as a miss; number from 1")
    return notes
