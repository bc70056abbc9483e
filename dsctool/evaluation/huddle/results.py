"""Results matched with the ground truth, ready to be measured on any subset; and compared on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.coco import Numbers
from dsctool.evaluation.huddle.schema import NUMBERS, Difference, Differences, HuddleStats, Measured
from dsctool.evaluation.matching import IOU_THRESHOLDS, Pairs, find_pairs, match
from dsctool.evaluation.precision import Curves, Ranking, mean_precision, rank, rank_by_image
from dsctool.evaluation.sources import Predictions
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable, detection_table
from dsctool.structures import KINDS, Kind

_BATCH = 8  # bootstrap samples at a time: memory, not results, depends on it
_BOUNDS = (2.5, 97.5)


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


# --- measuring --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bootstrap:
    """Images drawn with replacement, as many as there are; the same draws for all results. samples: 0 for none."""

    samples: int = 0
    seed: int = 0

    def weights(self, images: int) -> Iterator[Ints]:
        """How often each image was drawn, ``(b, images)`` at a time."""
        random = np.random.default_rng(self.seed)
        for first in range(0, self.samples, _BATCH):
            rows = min(_BATCH, self.samples - first)
            drawn = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
            yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)


NOTHING = Measured(bbox=None, segm=None, baseline=None, difference=None)
"""What a subset without images or instances gives."""


def measure(
    candidate: dict[Kind, Ranking], baseline: dict[Kind, Ranking] | None, images: Bools, bootstrap: Bootstrap
) -> Measured:
    """AP on the chosen images ``(images,)``, and how far it is from the baseline's."""
    curves = {kind: Curves(ranking.of_images(images)) for kind, ranking in candidate.items()}
    number = int(np.count_nonzero(images))
    own = _stats({kind: _numbers(curve, number) for kind, curve in curves.items()})
    if baseline is None:
        return Measured(bbox=own["bbox"], segm=own["segm"], baseline=None, difference=None)
    others = {kind: Curves(ranking.of_images(images)) for kind, ranking in baseline.items()}
    base = _stats({kind: _numbers(curve, number) for kind, curve in others.items()})
    differences = {
        kind: _difference(own[kind], base[kind], (curves[kind], others[kind]), number, bootstrap)
        for kind in KINDS
        if kind in curves and kind in others
    }
    difference = Differences(bbox=differences["bbox"], segm=differences.get("segm"))
    return Measured(bbox=own["bbox"], segm=own["segm"], baseline=base, difference=difference)


def _stats(numbers: dict[Kind, Numbers]) -> HuddleStats:
    return HuddleStats(bbox=numbers["bbox"], segm=numbers.get("segm"))


def _numbers(curves: Curves, images: int) -> Numbers:
    values = curves.average_precision(np.ones((1, images), dtype=np.int64))
    chosen = (values, values[:, IOU_THRESHOLDS == 0.5], values[:, IOU_THRESHOLDS == 0.75])
    return {name: float(mean_precision(part)[0]) for name, part in zip(NUMBERS, chosen, strict=True)}


def _difference(
    own: Numbers | None, base: Numbers | None, curves: Sequence[Curves], images: int, bootstrap: Bootstrap
) -> Difference:
    if own is None or base is None or -1 in (own["AP"], base["AP"]):
        return Difference(AP=None, low=None, high=None)
    drawn = []
    for weights in bootstrap.weights(images):
        first, second = (mean_precision(each.average_precision(weights)) for each in curves)
        drawn.append((first - second)[(first > -1) & (second > -1)])
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    low, high = np.percentile(values, _BOUNDS).tolist() if len(values) else (None, None)
    return Difference(AP=own["AP"] - base["AP"], low=low, high=high)
