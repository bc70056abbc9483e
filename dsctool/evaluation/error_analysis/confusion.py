"""What instances are taken for: a matrix over categories at one score and IoU 0.5.

First detections match instances of their own category, as for AP: the diagonal is what AP50 counts as right among the
detections of that score. Of the wrong ones and the instances that are left, the pairs of highest IoU then belong
together. Detections without a partner are in the row of the background, instances without one in the column of the
missed; detections that COCO ignores, such as those on crowds, are left out.
"""

from __future__ import annotations

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.error_analysis.schema import CategoryName, Confusion
from dsctool.evaluation.error_analysis.types import FOREGROUND_IOU, Surroundings
from dsctool.evaluation.matching import match
from dsctool.evaluation.tables import Bools, DetectionTable, Ints
from dsctool.terms import Kind


def confusion_matrix(comparison: Comparison, kind: Kind, around: Surroundings, *, score_threshold: float) -> Confusion:
    """Over all categories of the ground truth, in the order of their ids."""
    truth, detections = comparison.truth, comparison.detections
    kept = detections.score >= score_threshold
    # A better detection never yields to a worse one, so matching the kept ones alone changes nothing for them; but
    # those below the threshold must not take instances.
    pairs = comparison.pairs(kind).of_detections(kept)
    (matches,) = match(pairs, truth, detections, [comparison.everything])
    right = kept & (matches.found & 1 == 1)
    wrong = kept & ((matches.found | matches.ignored) & 1 == 0)
    left = truth.wanted & ~((matches.taken & 1 == 1) & truth.counted)
    size = len(truth.categories) + 1
    matrix = np.zeros((size, size), dtype=np.int64)
    np.add.at(matrix, (detections.category[right], detections.category[right]), 1)
    found, instances = _crossed(around, detections, wrong, left)
    np.add.at(matrix, (truth.category[instances], detections.category[found]), 1)
    wrong[found], left[instances] = False, False
    np.add.at(matrix, (size - 1, detections.category[wrong]), 1)
    np.add.at(matrix, (truth.category[left], size - 1), 1)
    names = zip(truth.categories, truth.names, strict=True)
    return Confusion(
        kind=kind,
        iou=FOREGROUND_IOU,
        score_threshold=score_threshold,
        categories=[CategoryName(id=each, name=name) for each, name in names],
        matrix=matrix.tolist(),
    )


def _crossed(around: Surroundings, detections: DetectionTable, wrong: Bools, left: Bools) -> tuple[Ints, Ints]:
    """Partners of different categories, by descending IoU, then score; each detection and instance once."""
    pairs = around.crossed
    rows = np.flatnonzero(wrong[pairs.detection] & left[pairs.truth])
    detection, annotation = pairs.detection[rows], pairs.truth[rows]
    order = np.lexsort((annotation, detection, -detections.score[detection], -pairs.iou[rows]))
    free_detections, free_instances = wrong.copy(), left.copy()
    chosen: list[tuple[int, int]] = []
    for one, other in zip(detection[order].tolist(), annotation[order].tolist(), strict=True):
        if free_detections[one] and free_instances[other]:
            free_detections[one] = free_instances[other] = False
            chosen.append((one, other))
    both = np.asarray(chosen, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
