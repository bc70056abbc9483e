"""Results matched with the ground truth once, ready to be measured on any subset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.matching import Pairs, find_pairs, match
from dsctool.evaluation.precision import Curves, Ranking, rank, rank_by_image
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, TruthTable, detection_table
from dsctool.terms import KINDS, Kind


@dataclass(frozen=True)
class MatchedResults:
    """One file of results. pairs, rankings: of boxes, and of masks where both sides have them."""

    truth: TruthTable
    detections: DetectionTable
    pairs: dict[Kind, Pairs]
    rankings: dict[Kind, Ranking]

    def rankings_of(self, huddled: Bools) -> dict[Kind, Ranking]:
        """Matched anew with all instances but the huddled ones ``(m,)`` ignored."""
        ignored = self.truth.ignored | ~huddled
        return {kind: _ranking(self.truth, self.detections, self.pairs[kind], kind, ignored) for kind in self.pairs}

    def image_precision(self, kind: Kind) -> Floats:
        """``(images,)``: each image's own AP, the mean over its categories; NaN without instances."""
        matches = match(self.pairs[kind], self.truth, self.detections, kind, ignored=self.truth.ignored)
        ranking, image = rank_by_image(self.truth, self.detections, matches)
        values = Curves(ranking).average_precision(np.ones((1, ranking.images), dtype=np.int64))[0].mean(axis=0)
        counts = np.bincount(image, minlength=ranking.images)
        sums = np.bincount(image, weights=values, minlength=ranking.images)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def match_results(predictions: Predictions, truth: TruthTable, *, masks: bool) -> MatchedResults:
    """masks: whether the ground truth's can be compared."""
    detections = detection_table(predictions, truth)
    kinds = [kind for kind in KINDS if kind == "bbox" or (masks and detections.masks is not None)]
    pairs = {kind: find_pairs(truth, detections, kind) for kind in kinds}
    rankings = {kind: _ranking(truth, detections, pairs[kind], kind, truth.ignored) for kind in kinds}
    return MatchedResults(truth, detections, pairs, rankings)


def _ranking(truth: TruthTable, detections: DetectionTable, pairs: Pairs, kind: Kind, ignored: Bools) -> Ranking:
    matches = match(pairs, truth, detections, kind, ignored=ignored)
    return rank(truth, detections, matches, ignored=ignored)
