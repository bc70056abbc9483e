"""Matched results, ready to be measured on any subset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.matching import View
from dsctool.evaluation.precision import Curves, Ranking, rank, rank_by_image
from dsctool.evaluation.tables import Floats
from dsctool.terms import Kind


def ranking_of(comparison: Comparison, views: Sequence[View]) -> Ranking:
    """All views by boxes, then, where there are masks, all by masks."""
    matches = [each for kind in comparison.kinds for each in comparison.matches(kind, views)]
    return rank(comparison.truth, comparison.detections, [*views] * len(comparison.kinds), matches)


def image_precision(comparison: Comparison, kind: Kind) -> Floats:
    """``(images,)``: each image's own AP, the mean over its categories; NaN without instances."""
    view = comparison.everything
    (matches,) = comparison.matches(kind, [view])
    ranking, image = rank_by_image(comparison.truth, comparison.detections, view, matches)
    once = np.ones((1, ranking.images), dtype=np.int32)
    values = Curves(ranking).average_precision(once)[0, 0].mean(axis=0)
    counts = np.bincount(image, minlength=ranking.images)
    sums = np.bincount(image, weights=values, minlength=ranking.images)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
