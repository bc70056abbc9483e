"""Precision over recall, and the scores behind it, as pycocotools accumulates them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.error_analysis.schema import BestScore, CategoryCurve, Curve, CurveSet
from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches
from dsctool.evaluation.precision import RECALLS
from dsctool.evaluation.tables import DetectionTable, Floats, Ints, TruthTable

_LEVELS = {"0.50": [0], "0.75": [5], "0.50:0.95": list(range(len(IOU_THRESHOLDS)))}
"""Which thresholds are shown, by name."""


@dataclass(frozen=True)
class _Ranked:
    """The detections of one category by descending score, without those that count neither way.

    score: ``(n,)``. right: ``(n,)``, how many of the first 1, 2, ... are right.
    """

    score: Floats
    right: Ints

    @property
    def precision(self) -> Floats:
        """``(n,)``, with pycocotools' rounding."""
        return self.right / (np.arange(1, len(self.right) + 1) + np.spacing(1))


def curve_set(truth: TruthTable, detections: DetectionTable, matches: Matches) -> CurveSet:
    """Of a matching with all instances."""
    instances = np.bincount(truth.category[truth.wanted], minlength=len(truth.categories))
    precisions = np.zeros((len(IOU_THRESHOLDS), len(truth.categories), len(RECALLS)))
    categories: list[CategoryCurve] = []
    order = detections.by_category
    bounds = np.searchsorted(detections.category[order], np.arange(len(truth.categories) + 1))
    for index, wanted in enumerate(instances.tolist()):
        rows = order[bounds[index] : bounds[index + 1]]
        levels = [_ranked(detections, matches, rows, level) for level in range(len(IOU_THRESHOLDS))]
        curves = [_at_recalls(ranked, wanted) for ranked in levels]
        precisions[:, index] = [precision for precision, _ in curves]
        identity = truth.categories[index]
        categories.append(
            CategoryCurve(
                id=identity,
                name=truth.names[index],
                instances=wanted,
                curve=Curve(precision=curves[0][0].tolist(), score=curves[0][1].tolist()) if wanted else None,
                best=_best_score(levels[0], wanted) if wanted else None,
            )
        )
    mean = None
    if instances.any():
        mean = {
            name: precisions[chosen][:, instances > 0].mean(axis=(0, 1)).tolist() for name, chosen in _LEVELS.items()
        }
    return CurveSet(recalls=RECALLS.tolist(), mean=mean, categories=categories)


def _ranked(detections: DetectionTable, matches: Matches, rows: Ints, level: int) -> _Ranked:
    rows = rows[matches.ignored[rows] >> level & 1 == 0]
    return _Ranked(detections.score[rows], np.cumsum(matches.found[rows] >> level & 1))


def _at_recalls(ranked: _Ranked, wanted: int) -> tuple[Floats, Floats]:
    """Precision, made monotonous, and score at each of ``RECALLS``; 0 where it is not reached."""
    precision, score = np.zeros(len(RECALLS)), np.zeros(len(RECALLS))
    if wanted and len(ranked.score):
        at = np.searchsorted(ranked.right / wanted, RECALLS, side="left")
        reached = at < len(ranked.right)
        best = np.maximum.accumulate(ranked.precision[::-1])[::-1]
        precision[reached], score[reached] = best[at[reached]], ranked.score[at[reached]]
    return precision, score


def _best_score(ranked: _Ranked, wanted: int) -> BestScore:
    """Of the scores that occur: below a score all detections of it are kept, so ties are kept or left together."""
    if not len(ranked.score) or not ranked.right[-1]:
        return BestScore(score=0.0, f1=0.0, precision=0.0, recall=0.0)
    last = np.flatnonzero(np.append(np.diff(ranked.score) < 0, True))
    right, kept = ranked.right[last], last + 1
    f1 = 2 * right / (kept + wanted)
    best = int(f1.argmax())
    return BestScore(
        score=float(ranked.score[last[best]]),
        f1=float(f1[best]),
        precision=float(right[best] / kept[best]),
        recall=float(right[best] / wanted),
    )
