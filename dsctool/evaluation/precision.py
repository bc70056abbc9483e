"""Average precision over any images, and with any weights of images, from one matching.

The numbers are pycocotools': precision at 101 recalls, made monotonous, with its own rounding. It goes through all
detections; here only true positives are looked at, where alone precision rises, and the others are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's, computed as pycocotools computes them."""
_LEVELS = len(IOU_THRESHOLDS)


@dataclass(frozen=True)
class Ranking:
    """Matched detections of every group by descending score, ties in the order of images: ``n`` rows.

    A group is what has a precision of its own: a category, or a category in one image. groups: how many. images: how
    many. image, group: ``(n,)``, groups ascending. found, ignored: ``(n,)`` bits per threshold. truth_image,
    truth_group: ``(m,)`` of the annotations that should be found, groups ascending.
    """

    groups: int
    images: int
    image: Ints
    group: Ints
    found: Ints
    ignored: Ints
    truth_image: Ints
    truth_group: Ints

    def of_images(self, chosen: Bools) -> Ranking:
        """The part in the chosen images ``(images,)``, which are numbered anew."""
        number = np.cumsum(chosen) - 1
        rows, truth_rows = chosen[self.image], chosen[self.truth_image]
        return Ranking(
            groups=self.groups,
            images=int(np.count_nonzero(chosen)),
            image=number[self.image[rows]],
            group=self.group[rows],
            found=self.found[rows],
            ignored=self.ignored[rows],
            truth_image=number[self.truth_image[truth_rows]],
            truth_group=self.truth_group[truth_rows],
        )


def rank(truth: TruthTable, detections: DetectionTable, matches: Matches, *, ignored: Bools) -> Ranking:
    """By category. ignored: ``(m,)``, the annotations that need not be found, as in the matching."""
    order = np.lexsort((-detections.score, detections.category))
    wanted = np.flatnonzero(~ignored)
    wanted = wanted[np.argsort(truth.category[wanted], kind="stable")]
    return Ranking(
        groups=len(truth.categories),
        images=len(truth.images),
        image=detections.image[order],
        group=detections.category[order],
        found=matches.found[order],
        ignored=matches.ignored[order],
        truth_image=truth.image[wanted],
        truth_group=truth.category[wanted],
    )


def rank_by_image(truth: TruthTable, detections: DetectionTable, matches: Matches) -> tuple[Ranking, Ints]:
    """By category within each image, where there is something to find; and the image of every group ``(groups,)``."""
    categories = len(truth.categories)
    wanted = np.flatnonzero(~truth.ignored)  # the tables are by image, category and score already
    keys = truth.image[wanted] * categories + truth.category[wanted]
    groups, truth_group = np.unique(keys, return_inverse=True)
    own = detections.image * categories + detections.category
    rows = np.flatnonzero(np.isin(own, groups))
    ranking = Ranking(
        groups=len(groups),
        images=len(truth.images),
        image=detections.image[rows],
        group=np.searchsorted(groups, own[rows]),
        found=matches.found[rows],
        ignored=matches.ignored[rows],
        truth_image=truth.image[wanted],
        truth_group=truth_group,
    )
    return ranking, groups // max(categories, 1)


class Curves:
    """Where a ranking's true positives are, ready to be weighed.

    A segment is the run of true positives of one threshold and group; all segments lie one after the other.
    """

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking
        bounds = np.searchsorted(ranking.group, np.arange(ranking.groups))
        found = [np.flatnonzero(ranking.found >> level & 1) for level in range(_LEVELS)]
        ignored = [np.flatnonzero(ranking.ignored >> level & 1) for level in range(_LEVELS)]
        self._row = np.concatenate(found)
        self._group = ranking.group[self._row]
        self._start = bounds[self._group]
        level = np.repeat(np.arange(_LEVELS), [len(rows) for rows in found])
        self._segments, self._first, self._segment = np.unique(
            level * ranking.groups + self._group, return_index=True, return_inverse=True
        )
        # Places in the list of ignored detections: of each true positive, and of its group's beginning.
        self._ignored = np.concatenate(ignored)
        offsets = np.cumsum([0, *(len(rows) for rows in ignored[:-1])])
        self._ignored_until, self._ignored_start = (
            np.concatenate(
                [offset + np.searchsorted(left, at) for offset, left, at in zip(offsets, ignored, where, strict=True)]
            )
            for where in (found, [bounds[ranking.group[rows]] for rows in found])
        )
        self._truth_bounds = np.searchsorted(ranking.truth_group, np.arange(ranking.groups + 1))

    def average_precision(self, weights: Ints) -> Floats:
        """``(b, thresholds, groups)`` for ``b`` rows of weights ``(b, images)``, whole numbers.

        An image of weight 2 counts like two copies of it. -1 where a group has nothing to find.
        """
        wanted = np.diff(_sums(np.take(weights, self._ranking.truth_image, axis=1))[:, self._truth_bounds], axis=1)
        areas = np.zeros((len(weights), _LEVELS * self._ranking.groups))
        if len(self._row):
            areas[:, self._segments] = self._areas(np.take(weights, self._ranking.image, axis=1), wanted)
        values = areas.reshape(len(weights), _LEVELS, self._ranking.groups)
        return np.where(wanted[:, None] > 0, values, -1.0)

    def _areas(self, weights: Ints, wanted: Ints) -> Floats:
        """``(b, segments)`` from the detections' weights ``(b, n)`` and what is to be found ``(b, groups)``."""
        hits = _sums(weights[:, self._row])
        hits = hits[:, 1:] - hits[:, self._first[self._segment]]
        seen, ignored = _sums(weights), _sums(weights[:, self._ignored])
        seen = seen[:, self._row + 1] - seen[:, self._start]
        seen -= ignored[:, self._ignored_until] - ignored[:, self._ignored_start]
        precision = hits / (seen + np.spacing(1))
        recall = hits / np.maximum(wanted, 1)[:, self._group]
        # Each true positive stands for the recalls that it is the first to reach.
        reached = np.searchsorted(RECALLS, recall, side="right")
        steps = np.diff(reached, axis=1, prepend=0)
        steps[:, self._first] = reached[:, self._first]
        for first, last in zip(self._first, np.append(self._first[1:], len(self._row)), strict=True):
            backwards = precision[:, first:last][:, ::-1]
            np.maximum.accumulate(backwards, axis=1, out=backwards)
        areas: Floats = np.add.reduceat(precision * steps, self._first, axis=1) / len(RECALLS)
        return areas


def mean_precision(values: Floats) -> NDArray[np.float64]:
    """``(b,)``: the mean over thresholds and groups of ``(b, thresholds, groups)`` without -1; -1 without any other."""
    defined = values > -1
    counts = defined.sum(axis=(1, 2))
    sums = np.where(defined, values, 0.0).sum(axis=(1, 2))
    return np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)


def _sums(values: Ints) -> Ints:
    """``(b, n + 1)``: sums of the first 0, 1, ... n of each row of ``(b, n)``."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=np.int64)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
