"""Average precision over any images, and with any weights of images, from one matching.

The numbers are pycocotools': precision at 101 recalls, made monotonous, with its own rounding. It goes through all
detections; here only true positives are looked at, where alone precision rises, and the others are counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.matching import ALL_BITS, IOU_THRESHOLDS, Bits, Matches, View
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's, computed as pycocotools computes them."""
_LEVELS = len(IOU_THRESHOLDS)
_AT_ONCE = 1 << 23  # numbers in the largest arrays: memory, not results, depends on it
_BLOCK = 1 << 11  # true positives at a time, of all rows of weights
_THREADS = min(4, os.cpu_count() or 1)
_NEXT_RECALL = np.append(RECALLS[1:], np.inf)

Counts = NDArray[np.int32]


@dataclass(frozen=True)
class Ranking:
    """Matched detections of every group by descending score, ties in the order of images: ``n`` rows.

    A group is what has a precision of its own: a category, or a category in one image. groups: how many. images: how
    many. image, group: ``(n,)``, groups ascending. found, ignored: ``(v, n)`` bits per threshold, in each of ``v``
    views. truth_image, truth_group: per view, of the annotations that should be found, groups ascending.
    """

    groups: int
    images: int
    image: Ints
    group: Ints
    found: Bits
    ignored: Bits
    truth_image: list[Ints]
    truth_group: list[Ints]

    def of_images(self, chosen: Bools) -> Ranking:
        """The part in the chosen images ``(images,)``, which are numbered anew."""
        number = np.cumsum(chosen) - 1
        rows = np.flatnonzero(chosen[self.image])
        truth_rows = [chosen[image] for image in self.truth_image]
        return Ranking(
            groups=self.groups,
            images=int(np.count_nonzero(chosen)),
            image=number[self.image[rows]],
            group=self.group[rows],
            found=self.found[:, rows],
            ignored=self.ignored[:, rows],
            truth_image=[number[each[kept]] for each, kept in zip(self.truth_image, truth_rows, strict=True)],
            truth_group=[each[kept] for each, kept in zip(self.truth_group, truth_rows, strict=True)],
        )


def rank(truth: TruthTable, detections: DetectionTable, views: Sequence[View], matches: Sequence[Matches]) -> Ranking:
    """By category; one matching for each view. Detections that count in none of them are left out."""
    nowhere = np.bitwise_and.reduce([each.ignored for each in matches]) == ALL_BITS
    order = detections.by_category
    order = order[~nowhere[order]]
    by_category = np.argsort(truth.category, kind="stable")
    wanted = [by_category[view.wanted[by_category]] for view in views]
    return Ranking(
        groups=len(truth.categories),
        images=len(truth.images),
        image=detections.image[order],
        group=detections.category[order],
        found=np.stack([each.found[order] for each in matches]),
        ignored=np.stack([each.ignored[order] for each in matches]),
        truth_image=[truth.image[rows] for rows in wanted],
        truth_group=[truth.category[rows] for rows in wanted],
    )


def rank_by_image(truth: TruthTable, detections: DetectionTable, view: View, matches: Matches) -> tuple[Ranking, Ints]:
    """By category within each image, where there is something to find; and the image of every group ``(groups,)``."""
    categories = len(truth.categories)
    wanted = np.flatnonzero(view.wanted)  # the tables are by image, category and score already
    keys = truth.image[wanted] * categories + truth.category[wanted]
    groups, truth_group = np.unique(keys, return_inverse=True)
    own = detections.image * categories + detections.category
    rows = np.flatnonzero(np.isin(own, groups))
    ranking = Ranking(
        groups=len(groups),
        images=len(truth.images),
        image=detections.image[rows],
        group=np.searchsorted(groups, own[rows]),
        found=matches.found[None, rows],
        ignored=matches.ignored[None, rows],
        truth_image=[truth.image[wanted]],
        truth_group=[truth_group],
    )
    return ranking, groups // max(categories, 1)


class Curves:
    """Where a ranking's true positives are, ready to be weighed.

    A curve is what one view, threshold and group have; the true positives of all curves lie one after the other.
    """

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking
        bounds = np.searchsorted(ranking.group, np.arange(ranking.groups))
        self._row, level = _by_level(ranking.found)
        self._ignored, ignored_level = _by_level(ranking.ignored)
        curve = level * ranking.groups + ranking.group[self._row]
        self._first = np.flatnonzero(np.diff(curve, prepend=-1))
        self._curves = curve[self._first]
        self._start = bounds[self._curves % max(ranking.groups, 1)]
        # Places in the list of ignored detections: of each true positive, and of each curve's beginning.
        step = len(ranking.group) + 1
        keys = ignored_level * step + self._ignored
        self._ignored_until = np.searchsorted(keys, level * step + self._row)
        self._ignored_start = np.searchsorted(keys, level[self._first] * step + self._start)
        self._blocks = _blocks(self._first, len(self._row))

    def average_precision(self, weights: NDArray[np.integer]) -> Floats:
        """``(b, views, thresholds, groups)`` for ``b`` rows of weights ``(b, images)``, whole numbers.

        An image of weight 2 counts like two copies of it. -1 where a group has nothing to find.
        """
        rows = max(1, _AT_ONCE // max(len(self._ignored), len(self._ranking.image), 1))
        parts = [weights[first : first + rows].astype(np.int32) for first in range(0, len(weights), rows)]
        with ThreadPoolExecutor(_THREADS) as pool:
            return np.concatenate(list(pool.map(self._part, parts)))

    def _part(self, weights: Counts) -> Floats:
        ranking = self._ranking
        truth = zip(ranking.truth_image, ranking.truth_group, strict=True)
        wanted = np.stack([_per_group(weights[:, image], group, ranking.groups) for image, group in truth], axis=1)
        shape = len(weights), len(ranking.found), _LEVELS, ranking.groups
        areas = np.zeros(shape)
        if len(self._row):
            areas.reshape(len(weights), -1)[:, self._curves] = self._areas(weights, wanted)
        return np.where(wanted[:, :, None] > 0, areas, -1.0)

    def _areas(self, weights: Counts, wanted: Counts) -> Floats:
        """``(b, curves)`` from the images' weights and what is to be found ``(b, views, groups)``."""
        weights = weights.take(self._ranking.image, axis=1)
        seen, ignored = _sums(weights), _sums(weights.take(self._ignored, axis=1))
        before = seen.take(self._start, axis=1) - ignored.take(self._ignored_start, axis=1)
        reached, offsets = _reached_by_hits(wanted)
        groups = self._ranking.groups
        offsets = offsets[:, self._curves // (_LEVELS * groups), self._curves % groups]
        areas = []
        for curves, entries in self._blocks:
            rows, first = self._row[entries], self._first[curves] - entries.start
            size = np.diff(first, append=len(rows))
            hits = weights.take(rows, axis=1).cumsum(axis=1, dtype=np.int32)
            hits -= np.repeat(np.where(first > 0, hits[:, first - 1], 0), size, axis=1)
            counted = seen.take(rows + 1, axis=1)
            counted -= ignored.take(self._ignored_until[entries], axis=1)
            counted -= np.repeat(before[:, curves], size, axis=1)
            precision = hits / (counted + np.spacing(1))
            _make_monotonous(precision, first, size)
            # Each true positive stands for the recalls that it is the first to reach.
            hits += np.repeat(offsets[:, curves], size, axis=1)
            until = reached.take(hits)
            steps = until.copy()
            steps[:, 1:] -= until[:, :-1]
            steps[:, first] = until[:, first]
            areas.append(np.add.reduceat(np.multiply(precision, steps, out=precision), first, axis=1))
        return np.concatenate(areas, axis=1) / len(RECALLS)


def _blocks(first: Ints, count: int) -> list[tuple[slice, slice]]:
    """Curves next to each other, and their entries: few enough to stay in a processor's cache."""
    edges = np.append(np.flatnonzero(np.diff(first // _BLOCK, prepend=-1)), len(first))
    starts = np.append(first, count)
    return [(slice(one, other), slice(starts[one], starts[other])) for one, other in pairwise(edges.tolist())]


def _make_monotonous(precision: Floats, first: Ints, size: Ints) -> None:
    """In place: the best precision from each true positive of a curve on; curve by curve, or step by step."""
    longest = int(size.max())
    if len(first) < longest:
        for start, count in zip(first.tolist(), size.tolist(), strict=True):
            backwards = precision[:, start : start + count][:, ::-1]
            np.maximum.accumulate(backwards, axis=1, out=backwards)
        return
    by_size = np.argsort(-size, kind="stable")
    for step in range(longest - 2, -1, -1):
        rows = first[by_size[: np.count_nonzero(size > step + 1)]] + step
        precision[:, rows] = np.maximum(precision[:, rows], precision[:, rows + 1])


def mean_precision(values: Floats) -> NDArray[np.float64]:
    """``(...)``: the mean over thresholds and groups of ``(..., thresholds, groups)`` without -1; -1 without others."""
    defined = values > -1
    counts = defined.sum(axis=(-2, -1))
    sums = np.where(defined, values, 0.0).sum(axis=(-2, -1))
    return np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)


def _by_level(bits: Bits) -> tuple[Ints, Ints]:
    """The rows of all set bits of ``(v, n)``, and which view and threshold each belongs to: ``view * 10 + bit``."""
    rows, levels = [], []
    for view, own in enumerate(bits):
        some = np.flatnonzero(own)
        for level in range(_LEVELS):
            rows.append(some[own[some] >> level & 1 == 1])
            levels.append(np.full(len(rows[-1]), view * _LEVELS + level))
    return np.concatenate(rows), np.concatenate(levels)


def _reached_by_hits(wanted: Counts) -> tuple[Floats, Counts]:
    """How many of ``RECALLS`` 0, 1, ... hits reach, of everything that is to be found in turn; where each begins."""
    size = wanted.ravel() + 1
    start = np.cumsum(size) - size
    recall = (np.arange(size.sum()) - np.repeat(start, size)) / np.repeat(np.maximum(wanted.ravel(), 1), size)
    near = (recall * (len(RECALLS) - 1)).astype(np.int32)  # its hundredfold, which rounding may miss by one
    reached = near + (RECALLS[near] <= recall) + (_NEXT_RECALL[near] <= recall)
    return reached.astype(np.float64), start.astype(np.int32).reshape(wanted.shape)


def _per_group(weights: Counts, group: Ints, groups: int) -> Counts:
    """``(b, groups)``: sums of ``(b, m)`` by ascending ``group`` ``(m,)``."""
    return np.diff(_sums(weights)[:, np.searchsorted(group, np.arange(groups + 1))], axis=1)


def _sums(values: Counts) -> Counts:
    """``(b, n + 1)``: sums of the first 0, 1, ... n of each row of ``(b, n)``."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=np.int32)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
