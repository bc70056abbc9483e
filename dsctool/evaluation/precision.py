"""Average precision over any images, and with any weights of images, from one matching.

The numbers are pycocotools': precision at 101 recalls, made monotonous, with its own rounding. It goes through all
detections; here only true positives are looked at, where alone precision rises, and the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.matching import ALL_BITS, IOU_THRESHOLDS, Bits, Matches, View
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's, computed as pycocotools computes them."""
_SAMPLES = 8  # rows of weights at a time: memory and speed, not results, depend on it
_AT_ONCE = 1 << 16  # numbers in an array that the processor's cache should hold
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

    A curve is what one view, threshold and group have. Only detections that are right or ignored somewhere are looked
    at, since precision rises only at the former; the others are counted. levels: how many of the thresholds are asked
    for, from the lowest on.
    """

    def __init__(self, ranking: Ranking, *, levels: int = len(IOU_THRESHOLDS)) -> None:
        self._ranking = ranking
        self._levels = levels
        marked = np.bitwise_or.reduce(ranking.found | ranking.ignored) & ((1 << levels) - 1)
        self._batches = list(_batches(ranking, np.flatnonzero(marked), levels))

    def average_precision(self, weights: NDArray[np.integer]) -> Floats:
        """``(b, views, thresholds, groups)`` for ``b`` rows of weights ``(b, images)``, whole numbers.

        An image of weight 2 counts like two copies of it. -1 where a group has nothing to find.
        """
        parts = [weights[first : first + _SAMPLES].astype(np.int32) for first in range(0, len(weights), _SAMPLES)]
        return np.concatenate([self._part(part) for part in parts])

    def _part(self, weights: Counts) -> Floats:
        ranking = self._ranking
        truth = zip(ranking.truth_image, ranking.truth_group, strict=True)
        wanted = np.stack([_per_group(weights[:, image], group, ranking.groups) for image, group in truth], axis=1)
        count = len(ranking.image)
        drawn = np.zeros((len(weights), count + 1), dtype=np.int32)
        weights.take(ranking.image, axis=1, out=drawn[:, :count], mode="clip")
        seen = drawn.cumsum(axis=1, dtype=np.int32)
        areas = np.zeros((len(weights), len(ranking.found), self._levels, ranking.groups))
        for batch in self._batches:
            step = max(1, _AT_ONCE // batch.found.size)
            for first in range(0, len(weights), step):
                rows = slice(first, first + step)
                own = batch.areas(drawn[rows], seen[rows], wanted[rows][..., batch.groups])
                areas[rows][..., batch.groups] = own
        return np.where(wanted[:, :, None] > 0, areas, -1.0)


@dataclass(frozen=True, eq=False)
class _Batch:
    """``g`` groups with up to ``n`` marked detections each.

    groups: ``(g,)``, which ones. start: ``(g,)``, the first row of each in the ranking. rows: ``(g, n)``,
    the marked ones; where a group has fewer, then the row behind the last one of all, which has no weight. found,
    ignored: ``(views, thresholds, g, n)``, 0 or 1; ignored is None where it is 0.
    """

    groups: Ints
    start: Ints
    rows: Ints
    found: Counts
    ignored: Counts | None

    def areas(self, drawn: Counts, seen: Counts, wanted: Counts) -> Floats:
        """``(b, views, thresholds, g)``, under precision made monotonous.

        drawn, seen: ``(b, all + 1)``, of all detections: how often each counts, and how often it and those before it.
        wanted: ``(b, views, g)``, how many instances there are to find.
        """
        before = seen.take(self.start, axis=1) - drawn.take(self.start, axis=1)
        counted = (seen.take(self.rows, axis=1) - before[..., None])[:, None, None]
        weights = drawn.take(self.rows, axis=1)[:, None, None]
        hits = (weights * self.found).cumsum(axis=-1, dtype=np.int32)
        if self.ignored is not None:
            counted = counted - (weights * self.ignored).cumsum(axis=-1, dtype=np.int32)
        precision = hits / (counted + np.spacing(1))
        # Floats from 0 on are in the order of their bits, of which processors find the largest much faster.
        bits = precision.view(np.int64)[..., ::-1]
        np.maximum.accumulate(bits, axis=-1, out=bits)
        # Each true positive stands for the recalls that it is the first to reach.
        reached, offsets = _reached_by_hits(wanted)
        hits += offsets[:, :, None, :, None]
        until = reached.take(hits, mode="clip")
        areas = precision[..., 0] * until[..., 0]
        areas += np.einsum("...n,...n->...", precision[..., 1:], until[..., 1:] - until[..., :-1])
        return areas / len(RECALLS)


def _batches(ranking: Ranking, marked: Ints, levels: int) -> Iterator[_Batch]:
    """All groups that have marked rows, those of few rows together."""
    edges = np.searchsorted(ranking.group[marked], np.arange(ranking.groups + 1))
    starts = np.searchsorted(ranking.group, np.arange(ranking.groups))
    order = np.argsort(np.diff(edges), kind="stable")
    sizes = np.diff(edges)[order]
    views, shift = len(ranking.found), np.arange(levels, dtype=np.int16)[:, None, None]
    room = _AT_ONCE // (views * levels * _SAMPLES)
    first = int(np.searchsorted(sizes, 1))
    while first < len(sizes):
        count = max(1, int(np.searchsorted(sizes[first:] * np.arange(1, len(sizes) - first + 1), room, side="right")))
        groups, size = order[first : first + count], sizes[first : first + count, None]
        first += count
        place = np.arange(size[-1, 0])
        inside = place < size
        rows = np.full(inside.shape, len(ranking.group))
        rows[inside] = marked[(edges[groups, None] + place)[inside]]
        found, ignored = np.zeros((2, views, *inside.shape), dtype=np.int16)
        found[:, inside], ignored[:, inside] = ranking.found[:, rows[inside]], ranking.ignored[:, rows[inside]]
        planes = [(bits[:, None] >> shift & 1).astype(np.int32) for bits in (found, ignored)]
        yield _Batch(groups, starts[groups], rows, planes[0], planes[1] if planes[1].any() else None)


def mean_precision(values: Floats) -> NDArray[np.float64]:
    """``(...)``: the mean over thresholds and groups of ``(..., thresholds, groups)`` without -1; -1 without others."""
    defined = values > -1
    counts = defined.sum(axis=(-2, -1))
    sums = np.where(defined, values, 0.0).sum(axis=(-2, -1))
    return np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)


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
