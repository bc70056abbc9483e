"""Detections matched to ground truth exactly as pycocotools does it, at all IoU thresholds at once.

pycocotools lets the detections of an image and category choose in turn, by descending score, and for every threshold
anew: the free annotation of highest IoU, of ignored ones only where no other is left. What a detection prefers does not
depend on the threshold, and only pairs of at least the lowest threshold matter. So the few such pairs are listed once,
and thresholds are the bits of an integer: bit ``t`` stands for ``IOU_THRESHOLDS[t]``.

Images and categories do not know of each other. So in the first round the first pair of each is decided, of all at
once, in the second round the second pair, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.pairing import Overlapping, overlapping
from dsctool.evaluation.protocol import LARGEST_AREA
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable, places
from dsctool.terms import Kind

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's, computed as pycocotools computes them."""
ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1
Bits = NDArray[np.int16]


@dataclass(frozen=True)
class Pairs:
    """Detections and annotations of one image and category whose IoU reaches the lowest threshold: ``p`` rows.

    detection, truth: ``(p,)`` rows of the tables; by detection, then in the order in which it prefers them. bits:
    ``(p,)``, the thresholds that the IoU reaches.
    """

    kind: Kind
    detection: Ints
    truth: Ints
    bits: Bits

    def of_detections(self, kept: Bools) -> Pairs:
        """Only those of some detections ``(n,)``."""
        rows = kept[self.detection]
        return Pairs(self.kind, self.detection[rows], self.truth[rows], self.bits[rows])


@dataclass(frozen=True)
class View:
    """Some of the instances, all others ignored.

    wanted: ``(m,)``, what should be found, never crowds. low, high: detections that match nothing are ignored where
    their area is not from one to the other.
    """

    wanted: Bools
    low: float = 0.0
    high: float = LARGEST_AREA


@dataclass(frozen=True)
class Matches:
    """What became of every detection, as bits per threshold.

    found: ``(n,)``, true positives. ignored: ``(n,)``, neither right nor wrong. All others are false positives.
    taken: ``(m,)``, of every annotation that is no crowd: where some detection matched it.
    """

    found: Bits
    ignored: Bits
    taken: Bits


def find_near(truth: TruthTable, detections: DetectionTable, kind: Kind) -> Overlapping:
    """All pairs of one category that can match, and masks that nearly can."""
    everything = np.ones(len(truth.image), dtype=bool)
    return overlapping(truth, detections, kind, among=everything, categories="same", at_least=float(IOU_THRESHOLDS[0]))


def find_pairs(near: Overlapping, kind: Kind) -> Pairs:
    """Those that can match; of equal IoUs a detection prefers the later annotation."""
    near = near.take(np.flatnonzero(near.iou >= IOU_THRESHOLDS[0]))
    near = near.take(np.lexsort((-near.truth, -near.iou, near.detection)))
    reached = np.searchsorted(IOU_THRESHOLDS, near.iou, side="right")
    return Pairs(kind, near.detection, near.truth, ((1 << reached) - 1).astype(np.int16))


def match(pairs: Pairs, truth: TruthTable, detections: DetectionTable, views: Sequence[View]) -> list[Matches]:
    """One matching per view.

    Ignored annotations that are no crowd are matched once, by ordinary IoU.
    """
    ignored = np.stack([~view.wanted[pairs.truth] for view in views])
    order = np.argsort(pairs.detection * 2 + ignored, axis=1, kind="stable")
    turn = places(detections.image[pairs.detection] * max(len(truth.categories), 1) + truth.category[pairs.truth])
    in_turn = np.argsort(turn, kind="stable")
    rounds = np.searchsorted(turn[in_turn], np.arange(turn.max(initial=-1) + 2))
    order = order[:, in_turn]
    chosen = _choose(pairs, truth, len(detections.image), order, rounds)
    results = []
    for view, bits, rows in zip(views, chosen, order, strict=True):
        rows, bits = rows[bits > 0], bits[bits > 0]
        detection, annotation = pairs.detection[rows], pairs.truth[rows]
        wanted, crowd = view.wanted[annotation], truth.crowd[annotation]
        found = _united(detection, np.where(wanted & truth.counted[annotation], bits, 0), len(detections.image))
        left_out = _united(detection, np.where(wanted, 0, bits), len(detections.image))
        area = detections.area[pairs.kind]
        left_out |= np.where((area < view.low) | (area > view.high), ALL_BITS & ~found, 0).astype(np.int16)
        results.append(Matches(found, left_out, _united(annotation, np.where(crowd, 0, bits), len(truth.image))))
    return results


def _choose(pairs: Pairs, truth: TruthTable, detections: int, order: Ints, rounds: Ints) -> Bits:
    """``(views, p)``: for which thresholds each pair belongs together.

    order: ``(views, p)``, the pairs of one round after those of another. rounds: where each of them begins.
    """
    views = np.arange(len(order))[:, None]
    detection = pairs.detection[order] + views * detections
    annotation = pairs.truth[order] + views * len(truth.image)
    bits = pairs.bits[order]
    kept = np.where(truth.crowd[pairs.truth], 0, ALL_BITS).astype(np.int16)[order]  # crowds are never taken
    searching = np.full(len(order) * detections, ALL_BITS, dtype=np.int16)
    free = np.full(len(order) * len(truth.image), ALL_BITS, dtype=np.int16)
    for start, stop in pairwise(rounds.tolist()):
        one, other = detection[:, start:stop], annotation[:, start:stop]
        new = bits[:, start:stop] & searching[one] & free[other]
        bits[:, start:stop] = new
        searching[one] &= ~new
        free[other] &= ~(new & kept[:, start:stop])
    return bits


def _united(rows: Ints, bits: NDArray[np.integer], count: int) -> Bits:
    """``(count,)``: the bits of each row together; no bit is given twice."""
    return np.bincount(rows, weights=bits, minlength=count).astype(np.int16)
