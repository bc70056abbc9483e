"""How many instances a model had among its candidates, and lost to suppression.

Candidates and detections are matched with the instances in the same way, COCO's: by boxes, at IoU 0.5, within a
category, by descending score, each instance and each box once. An instance that a candidate has and no detection has
was *removed*: by NMS, or by the limit of detections per image where that is reached.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dsctool.evaluation.error_analysis.schema import SuppressedInstance, SuppressionReport, SuppressionView
from dsctool.evaluation.matching import View, find_near, find_pairs, match
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.tables import Bools, Floats, TruthTable, detection_table


def measure_suppression(
    candidates: Predictions,
    results: Predictions,
    truth: TruthTable,
    views: Mapping[str, View],
    overlaps: Floats,
) -> SuppressionReport:
    """views: by name. overlaps: ``(m,)``, the largest of each instance with another one."""
    before, after = (_matched(each, truth) for each in (candidates, results))
    removed = before & ~after
    return SuppressionReport(
        candidates=len(candidates),
        views=[
            SuppressionView(
                name=name,
                instances=int(np.count_nonzero(view.wanted)),
                before=int(np.count_nonzero(before & view.wanted)),
                after=int(np.count_nonzero(after & view.wanted)),
                removed=int(np.count_nonzero(removed & view.wanted)),
            )
            for name, view in views.items()
        ],
        removed=[
            SuppressedInstance(
                annotation_id=truth.ids[row],
                image_id=truth.images[truth.image[row]],
                category_id=truth.categories[truth.category[row]],
                overlap=float(overlaps[row]),
            )
            for row in np.flatnonzero(removed).tolist()
        ],
    )


def _matched(predictions: Predictions, truth: TruthTable) -> Bools:
    """``(m,)``: the instances that some box has, of however many there are."""
    boxes = detection_table(predictions, truth)
    (matches,) = match(find_pairs(find_near(truth, boxes, "bbox"), "bbox"), truth, boxes, [View(truth.wanted)])
    return truth.wanted & (matches.taken & 1 == 1)
