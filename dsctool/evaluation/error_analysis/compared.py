"""Results beside their ground truth, before it is known which instances count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.evaluation.error_analysis.types import Surroundings, surroundings
from dsctool.evaluation.matching import Matches, Pairs, find_pairs, match
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, TruthTable, detection_table
from dsctool.terms import Kind


@dataclass(frozen=True)
class Compared:
    """One file of results, by boxes or by masks. areas: ``(n,)``, of the detections, as pycocotools has them."""

    kind: Kind
    truth: TruthTable
    detections: DetectionTable
    areas: Floats
    pairs: Pairs
    around: Surroundings

    def of_size(self, low: float, high: float) -> Compared:
        """The same, with detections ignored that match nothing and whose area is not from ``low`` to ``high``."""
        outside = (self.areas < low) | (self.areas > high)
        return replace(self, detections=replace(self.detections, outside={self.kind: outside}))

    def matched(self, *, ignored: Bools) -> Matches:
        """ignored: ``(m,)``, the instances that need not be found."""
        return match(self.pairs, self.truth, self.detections, self.kind, ignored=ignored)


def compare(results: Predictions, truth: TruthTable, kind: Kind) -> Compared:
    """By ``kind``, which both sides must have."""
    detections = detection_table(results, truth)
    if kind == "segm" or (results.has_masks and not results.has_boxes):
        areas = np.asarray([float(coco_mask.area(mask)) for mask in detections.masks or []], dtype=np.float64)
    else:
        areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    pairs, around = find_pairs(truth, detections, kind), surroundings(truth, detections, kind)
    return Compared(kind, truth, detections, areas, pairs, around)
