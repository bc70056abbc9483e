"""AP of subsets, and how far it is from a baseline's, with intervals."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.coco import Numbers
from dsctool.evaluation.huddle.matched import MatchedResults
from dsctool.evaluation.huddle.schema import (
    NUMBERS,
    Cell,
    HuddleStats,
    InstanceView,
    Measured,
    PrecisionDifference,
    PrecisionDifferences,
)
from dsctool.evaluation.huddle.subsets import images_of_cell
from dsctool.evaluation.matching import IOU_THRESHOLDS
from dsctool.evaluation.precision import Curves, Ranking, mean_precision
from dsctool.evaluation.tables import Bools, Floats, Ints, TruthTable
from dsctool.terms import KINDS, Kind

_BATCH = 8  # bootstrap samples at a time: memory, not results, depends on it
_BOUNDS = (2.5, 97.5)
_NOTHING = Measured(bbox=None, segm=None, baseline=None, difference=None)


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


class Measuring:
    """Measures subsets, each set of images once: neighbouring cells often have the same.

    overlaps: ``(m,)``, the largest of each row of ``table``. matched: the candidate, and the baseline where there is
    one.
    """

    def __init__(
        self, table: TruthTable, overlaps: Floats, matched: Sequence[MatchedResults], bootstrap: Bootstrap
    ) -> None:
        self._table = table
        self._overlaps = overlaps
        self._matched = matched
        self._bootstrap = bootstrap
        self._known: dict[bytes, Measured] = {}

    def cell(self, t_o: float, t_p: float) -> Cell:
        """The subset (T_O, T_P)."""
        images = images_of_cell(self._table, self._overlaps, t_o, t_p)
        key = np.packbits(images).tobytes()
        if key not in self._known:
            self._known[key] = self._measure([each.rankings for each in self._matched], images)
        instances = int(self._table.instances_per_image[images].sum())
        measured = copy.deepcopy(self._known[key])  # so that a caller who changes one cell changes no other
        return Cell(t_o=t_o, t_p=t_p, images=int(np.count_nonzero(images)), instances=instances, **measured)

    def instances(self, t_o: float) -> InstanceView:
        """The instances that are huddled at T_O, in all images that have instances; without any, no numbers."""
        huddled = self._overlaps > t_o
        images = huddled.any() & (self._table.instances_per_image > 0)
        measured = self._measure([each.rankings_of(huddled) for each in self._matched], images)
        return InstanceView(t_o=t_o, instances=int(np.count_nonzero(huddled)), **measured)

    def _measure(self, rankings: Sequence[dict[Kind, Ranking]], images: Bools) -> Measured:
        """On the chosen images ``(images,)``."""
        if not images.any():
            return _NOTHING
        number = int(np.count_nonzero(images))
        curves = [{kind: Curves(ranking.of_images(images)) for kind, ranking in each.items()} for each in rankings]
        numbers = [{kind: _numbers(curve, number) for kind, curve in each.items()} for each in curves]
        own, base = numbers[0], numbers[1] if len(numbers) > 1 else {}
        differences = {
            kind: _difference(own[kind], base[kind], [each[kind] for each in curves], number, self._bootstrap)
            for kind in KINDS
            if kind in own and kind in base
        }
        return Measured(
            bbox=own["bbox"],
            segm=own.get("segm"),
            baseline=HuddleStats(bbox=base["bbox"], segm=base.get("segm")) if base else None,
            difference=(PrecisionDifferences(bbox=differences["bbox"], segm=differences.get("segm")) if base else None),
        )


def _numbers(curves: Curves, images: int) -> Numbers:
    values = curves.average_precision(np.ones((1, images), dtype=np.int64))
    chosen = (values, values[:, IOU_THRESHOLDS == 0.5], values[:, IOU_THRESHOLDS == 0.75])
    return {name: float(mean_precision(part)[0]) for name, part in zip(NUMBERS, chosen, strict=True)}


def _difference(
    own: Numbers, base: Numbers, curves: Sequence[Curves], images: int, bootstrap: Bootstrap
) -> PrecisionDifference:
    if -1 in (own["AP"], base["AP"]):
        return PrecisionDifference(AP=None, low=None, high=None)
    drawn = []
    for weights in bootstrap.weights(images):
        first, second = (mean_precision(each.average_precision(weights)) for each in curves)
        drawn.append((first - second)[(first > -1) & (second > -1)])
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    low, high = np.percentile(values, _BOUNDS).tolist() if len(values) else (None, None)
    return PrecisionDifference(AP=own["AP"] - base["AP"], low=low, high=high)
