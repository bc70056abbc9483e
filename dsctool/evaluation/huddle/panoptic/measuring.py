"""Panoptic quality of things on subsets, and how far it is from a baseline's, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsctool.cores import on_all_cores
from dsctool.evaluation.huddle.measuring import Bootstrap
from dsctool.evaluation.huddle.panoptic.schema import (
    PanopticCell,
    PanopticDifference,
    PanopticInstanceView,
    PanopticMeasured,
    PanopticNumbers,
)
from dsctool.evaluation.huddle.panoptic.things import FoundThings
from dsctool.evaluation.huddle.subsets import images_of_cell
from dsctool.evaluation.tables import Floats, Ints, TruthTable

_BOUNDS = (2.5, 97.5)
_TOGETHER = 64  # samples that are weighed at a time
_NOTHING = PanopticMeasured(things=None, baseline=None, difference=None)


class PanopticMeasuring:
    """Measures subsets. overlaps: ``(m,)``, the largest of each thing. found: the candidate's, then a baseline's."""

    def __init__(self, table: TruthTable, overlaps: Floats, found: Sequence[FoundThings], bootstrap: Bootstrap) -> None:
        self._table = table
        self._overlaps = overlaps
        self._found = found
        self._bootstrap = bootstrap
        every = np.ones(len(overlaps), dtype=bool)
        self._counts = [each.counts(table, every) for each in found]

    def cell(self, t_o: float, t_p: float) -> PanopticCell:
        """The subset (T_O, T_P)."""
        images = images_of_cell(self._table, self._overlaps, t_o, t_p)
        instances = int(self._table.instances_per_image[images].sum())
        measured = self._measure([each[images] for each in self._counts]) if images.any() else _NOTHING
        return PanopticCell(t_o=t_o, t_p=t_p, images=int(np.count_nonzero(images)), instances=instances, **measured)

    def instances(self, t_o: float) -> PanopticInstanceView:
        """The things that are huddled at T_O, in all images that have things."""
        huddled = self._overlaps > t_o
        images = self._table.instances_per_image > 0
        count = int(np.count_nonzero(huddled))
        counts = [each.counts(self._table, huddled)[images] for each in self._found] if count else []
        return PanopticInstanceView(t_o=t_o, instances=count, **(self._measure(counts) if count else _NOTHING))

    def _measure(self, counts: Sequence[Floats]) -> PanopticMeasured:
        """counts: of each of the results, ``(images, categories, 4)``."""
        own, *base = (numbers_of(each.sum(axis=0)) for each in counts)
        if not base:
            return PanopticMeasured(things=own, baseline=None, difference=None)
        return PanopticMeasured(things=own, baseline=base[0], difference=_difference(own, base[0], self._drawn(counts)))

    def _drawn(self, counts: Sequence[Floats]) -> Floats:
        """Differences of PQ in the samples that have both."""
        images = len(counts[0])

        def differences(part: slice) -> Floats:
            pieces = [np.zeros(0)]
            for first in range(part.start, part.stop, _TOGETHER):
                weights = self._bootstrap.weights(images, slice(first, min(first + _TOGETHER, part.stop)))
                own, base = (mean_quality(np.tensordot(weights, each, axes=1))[0][:, 0] for each in counts)
                pieces.append(own - base)
            return np.concatenate(pieces)

        values = np.concatenate([np.zeros(0), *on_all_cores(differences, self._bootstrap.samples, worth=_TOGETHER)])
        return values[~np.isnan(values)]


def mean_quality(counts: Floats) -> tuple[Floats, Ints]:
    """PQ, SQ and RQ ``(b, 3)``, means over the categories that have something to measure, and how many these are.

    NaN without any. counts: ``(b, categories, 4)``, TP, FP, FN and the sum of IoU.
    """
    tp, fp, fn, iou = np.moveaxis(counts, -1, 0)
    segments = tp + fp / 2 + fn / 2
    counted = segments > 0
    whole = np.where(counted, segments, 1)
    values = np.stack([iou / whole, iou / np.where(tp > 0, tp, 1), tp / whole], axis=-1)
    number = np.count_nonzero(counted, axis=1)
    sums = np.where(counted[..., None], values, 0).sum(axis=1)
    return np.where(number[:, None] > 0, sums / np.maximum(number, 1)[:, None], np.nan), number


def numbers_of(counts: Floats) -> PanopticNumbers:
    """counts: ``(categories, 4)``."""
    values, number = mean_quality(counts[None])
    pq, sq, rq = np.nan_to_num(values[0], nan=-1.0).tolist()
    return PanopticNumbers(PQ=pq, SQ=sq, RQ=rq, n=int(number[0]))


def _difference(own: PanopticNumbers, base: PanopticNumbers, drawn: Floats) -> PanopticDifference:
    if not own["n"] or not base["n"]:
        return PanopticDifference(PQ=None, SQ=None, RQ=None, low=None, high=None)
    low, high = np.percentile(drawn, _BOUNDS).tolist() if len(drawn) else (None, None)
    return PanopticDifference(
        PQ=own["PQ"] - base["PQ"], SQ=own["SQ"] - base["SQ"], RQ=own["RQ"] - base["RQ"], low=low, high=high
    )
