"""AP of subsets, and how far it is from a baseline's, with intervals."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsctool.cores import on_all_cores
from dsctool.evaluation.coco import Numbers
from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.huddle.matched import ranking_of
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
from dsctool.evaluation.matching import IOU_THRESHOLDS, View
from dsctool.evaluation.precision import Curves, Ranking, mean_precision
from dsctool.evaluation.tables import Bools, Floats
from dsctool.terms import KINDS, Kind

_WORTH = 16  # samples, below which a process costs more than it saves
_BOUNDS = (2.5, 97.5)
_NOTHING = Measured(bbox=None, segm=None, baseline=None, difference=None)


@dataclass(frozen=True)
class Bootstrap:
    """Images drawn with replacement, as many as there are; the same draws for all results. samples: 0 for none."""

    samples: int = 0
    seed: int = 0

    def weights(self, images: int, part: slice) -> NDArray[np.int32]:
        """How often each image was drawn, ``(b, images)``, in the samples of a slice."""
        random = np.random.default_rng(self.seed)
        for _ in range(part.start):
            random.integers(images, size=images)
        drawn = (random.integers(images, size=images) for _ in range(part.start, part.stop))
        return np.stack([np.bincount(each, minlength=images).astype(np.int32) for each in drawn])


class Measuring:
    """Measures subsets, each set of images once: neighbouring cells often have the same.

    overlaps: ``(m,)``, the largest of each row of the ground truth's table. compared: the candidate, and the baseline
    where there is one.
    """

    def __init__(self, overlaps: Floats, compared: Sequence[Comparison], bootstrap: Bootstrap) -> None:
        self._table = compared[0].truth
        self._overlaps = overlaps
        self._compared = compared
        self._bootstrap = bootstrap
        self._rankings = [ranking_of(each, [each.everything]) for each in compared]
        self._known: dict[bytes, Measured] = {}

    def cell(self, t_o: float, t_p: float) -> Cell:
        """The subset (T_O, T_P)."""
        images = images_of_cell(self._table, self._overlaps, t_o, t_p)
        key = np.packbits(images).tobytes()
        if key not in self._known:
            (self._known[key],) = self._measure(self._rankings, images) if images.any() else [_NOTHING]
        instances = int(self._table.instances_per_image[images].sum())
        measured = copy.deepcopy(self._known[key])  # so that a caller who changes one cell changes no other
        return Cell(t_o=t_o, t_p=t_p, images=int(np.count_nonzero(images)), instances=instances, **measured)

    def instances(self, t_o: Sequence[float]) -> list[InstanceView]:
        """The instances that are huddled at each T_O, in all images that have instances; without any, no numbers."""
        counts = [int(np.count_nonzero(self._overlaps > each)) for each in t_o]
        views = [
            View(self._table.wanted & (self._overlaps > each)) for each, count in zip(t_o, counts, strict=True) if count
        ]
        images = self._table.instances_per_image > 0
        measured = iter(self._measure([ranking_of(each, views) for each in self._compared], images) if views else [])
        return [
            InstanceView(t_o=each, instances=count, **(next(measured) if count else _NOTHING))
            for each, count in zip(t_o, counts, strict=True)
        ]

    def _measure(self, rankings: Sequence[Ranking], images: Bools) -> list[Measured]:
        """Every view on the chosen images ``(images,)``, of which there are some."""
        number = int(np.count_nonzero(images))
        curves = [Curves(each.of_images(images)) for each in rankings]
        values = self._by_kind([each.average_precision(np.ones((1, number), dtype=np.int32)) for each in curves])
        drawn = self._drawn(curves, number)
        return [
            _measured(
                [{kind: _numbers(side[kind][:, view]) for kind in side} for side in values],
                {kind: drawn[kind][:, view] for kind in drawn},
            )
            for view in range(values[0]["bbox"].shape[1])
        ]

    def _drawn(self, curves: Sequence[Curves], images: int) -> dict[Kind, Floats]:
        """``(samples, views)`` by kind: differences of AP, NaN where one of the two has none."""
        if len(curves) < 2 or not self._bootstrap.samples:
            return {}

        def differences(part: slice) -> dict[Kind, Floats]:
            weights = self._bootstrap.weights(images, part)
            own, base = self._by_kind([mean_precision(each.average_precision(weights)) for each in curves])
            both = {kind: (own[kind] > -1) & (base[kind] > -1) for kind in own.keys() & base.keys()}
            return {kind: np.where(known, own[kind] - base[kind], np.nan) for kind, known in both.items()}

        parts = on_all_cores(differences, self._bootstrap.samples, worth=_WORTH)
        return {kind: np.concatenate([each[kind] for each in parts]) for kind in parts[0]}

    def _by_kind(self, values: Sequence[Floats]) -> list[dict[Kind, Floats]]:
        """Of each of the results: ``(b, views, ...)`` by kind, from ``(b, kinds * views, ...)``."""
        sides = zip(self._compared, values, strict=True)
        return [dict(zip(one.kinds, np.split(each, len(one.kinds), axis=1), strict=True)) for one, each in sides]


def _measured(sides: Sequence[dict[Kind, Numbers]], drawn: dict[Kind, Floats]) -> Measured:
    """Of one view. drawn: ``(samples,)`` by kind."""
    own, base = sides[0], sides[1] if len(sides) > 1 else {}
    nothing = np.zeros(0)
    differences = {
        kind: _difference(own[kind], base[kind], drawn.get(kind, nothing))
        for kind in KINDS
        if kind in own and kind in base
    }
    return Measured(
        bbox=own["bbox"],
        segm=own.get("segm"),
        baseline=HuddleStats(bbox=base["bbox"], segm=base.get("segm")) if base else None,
        difference=PrecisionDifferences(bbox=differences["bbox"], segm=differences.get("segm")) if base else None,
    )


def _numbers(values: Floats) -> Numbers:
    """values: ``(1, thresholds, groups)``."""
    chosen = (values, values[:, IOU_THRESHOLDS == 0.5], values[:, IOU_THRESHOLDS == 0.75])
    return {name: float(mean_precision(part)[0]) for name, part in zip(NUMBERS, chosen, strict=True)}


def _difference(own: Numbers, base: Numbers, drawn: Floats) -> PrecisionDifference:
    if -1 in (own["AP"], base["AP"]):
        return PrecisionDifference(AP=None, low=None, high=None)
    values = drawn[~np.isnan(drawn)]
    low, high = np.percentile(values, _BOUNDS).tolist() if len(values) else (None, None)
    return PrecisionDifference(AP=own["AP"] - base["AP"], low=low, high=high)
