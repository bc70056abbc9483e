"""Average precision over any images, and with any weights of images, from one matching.

The numbers are pycocotools': precision at 101 recalls, made monotonous, with its own rounding. It goes through all
detections; here only true positives are looked at, where alone precision rises, and the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsctool.evaluation.matching import ALL_BITS, IOU_THRESHOLDS, Bits, Matches, View
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's, computed as pycocotools computes them."""
_SAMPLES = 8  # rows of weights at a time: memory and speed, not results, depend on it
_AT_ONCE = 1 << 17  # numbers in an array that the processor's cache should hold
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

    A curve is what one view, threshold and group have. Only true positives are looked at, since precision rises only
    there; the other detections are counted. levels: how many of the thresholds are asked for, from the lowest on.
    """

    def __init__(self, ranking: Ranking, *, levels: int = len(IOU_THRESHOLDS)) -> None:
        self._ranking = ranking
        self._levels = levels
        found, ignored = _by_level(ranking.found, levels), _by_level(ranking.ignored, levels)
        starts = np.searchsorted(ranking.group, np.arange(ranking.groups + 1))
        self._places = np.unique(np.concatenate([starts, found.rows + 1]))  # between detections
        self._ignored_image = ranking.image[ignored.rows]
        self._batches = list(_batches(ranking, levels, found, ignored, self._places))

    def average_precision(self, weights: NDArray[np.integer]) -> Floats:
        """``(b, views, thresholds, groups)`` for ``b`` rows of weights ``(b, images)``, whole numbers.

        An image of weight 2 counts like two copies of it. -1 where a group has nothing to find.
        """
        parts = [weights[first : first + _SAMPLES].astype(np.int32) for first in range(0, len(weights), _SAMPLES)]
        return np.concatenate([self._part(part) for part in parts])

    def _part(self, weights: Counts) -> Floats:
        ranking, views = self._ranking, len(self._ranking.found)
        truth = zip(ranking.truth_image, ranking.truth_group, strict=True)
        wanted = np.stack([_per_group(weights[:, image], group, ranking.groups) for image, group in truth], axis=1)
        counted = _Counted(
            np.pad(weights, ((0, 0), (0, 1))),
            _sums(weights.take(ranking.image, axis=1)).take(self._places, axis=1),
            _sums(weights.take(self._ignored_image, axis=1)),
            *_reached_by_hits(wanted),
        )
        areas = np.zeros((len(weights), views * self._levels * ranking.groups))
        for batch in self._batches:
            step = max(1, _AT_ONCE // batch.images.size)
            for first in range(0, len(weights), step):
                rows = slice(first, first + step)
                areas[rows, batch.curves] = batch.areas(counted.of(rows))
        return np.where(wanted[:, :, None] > 0, areas.reshape(len(weights), views, self._levels, ranking.groups), -1.0)


@dataclass(frozen=True, eq=False)
class _Counted:
    """What ``b`` rows of weights add up to.

    weights: ``(b, images + 1)``, how often each image counts, and 0. seen: ``(b, places)``, how often all detections
    before a place do. ignored: ``(b, ...)``, how often the first 0, 1, ... ignored ones do. reached, offsets: as
    :func:`_reached_by_hits` gives them.
    """

    weights: Counts
    seen: Counts
    ignored: Counts
    reached: Floats
    offsets: Ints

    def of(self, rows: slice) -> _Counted:
        """Some of the rows."""
        return _Counted(self.weights[rows], self.seen[rows], self.ignored[rows], self.reached, self.offsets[rows])


@dataclass(frozen=True, eq=False)
class _Batch:
    """``c`` curves with up to ``n`` true positives each.

    curves: ``(c,)``, which ones. group: ``(c,)``, of ``views * groups``. images: ``(c, n)``, of the true positives;
    where a curve has fewer, then the one behind the last, which has no weight. start, until: ``(c,)`` and ``(c, n)``,
    the places before each curve's first detection and behind its true positives. ignored_start, ignored_until: the
    same among the ignored detections; None where no curve has some of them.
    """

    curves: Ints
    group: Ints
    images: Ints
    start: Ints
    until: Ints
    ignored_start: Ints
    ignored_until: Ints | None

    def areas(self, weighed: _Counted) -> Floats:
        """``(b, c)``, under precision made monotonous."""
        hits = weighed.weights.take(self.images, axis=1, mode="clip")
        np.cumsum(hits, axis=-1, out=hits)
        counted = weighed.seen.take(self.until, axis=1, mode="clip")
        counted -= weighed.seen.take(self.start, axis=1)[..., None]
        if self.ignored_until is not None:
            counted -= weighed.ignored.take(self.ignored_until, axis=1, mode="clip")
            counted += weighed.ignored.take(self.ignored_start, axis=1)[..., None]
        precision = counted + np.spacing(1)
        np.divide(hits, precision, out=precision)
        # Floats from 0 on are in the order of their bits, of which processors find the largest much faster.
        bits = precision.view(np.int64)[..., ::-1]
        np.maximum.accumulate(bits, axis=-1, out=bits)
        # Each true positive stands for the recalls that it is the first to reach.
        hits += weighed.offsets.take(self.group, axis=1)[..., None]
        until = weighed.reached.take(hits, mode="clip")
        areas = precision[..., 0] * until[..., 0]
        areas += np.einsum("...n,...n->...", precision[..., 1:], until[..., 1:] - until[..., :-1])
        return areas / len(RECALLS)


def _batches(ranking: Ranking, levels: int, found: _Marked, ignored: _Marked, places: Ints) -> Iterator[_Batch]:
    """All curves that have true positives, those of few together. places: ascending; those that are looked at."""
    curve = found.level * ranking.groups + ranking.group[found.rows]
    edges = np.append(np.flatnonzero(np.diff(curve, prepend=-1)), len(curve))
    curves = curve[edges[:-1]]
    level, group = curves // max(ranking.groups, 1), curves % max(ranking.groups, 1)
    begin = np.searchsorted(ranking.group, group)
    # Places in the list of ignored detections: of each true positive, and of each curve's beginning.
    step = len(ranking.group) + 1
    keys = ignored.level * step + ignored.rows
    ignored_until = np.searchsorted(keys, found.level * step + found.rows)
    ignored_start = np.searchsorted(keys, level * step + begin)
    start, until = np.searchsorted(places, begin), np.searchsorted(places, found.rows + 1)
    order = np.argsort(np.diff(edges), kind="stable")
    sizes = np.diff(edges)[order]
    first, room = 0, _AT_ONCE // _SAMPLES
    while first < len(sizes):
        taken = sizes[first : first + room + 1]
        count = max(1, int(np.searchsorted(taken * np.arange(1, len(taken) + 1), room, side="right")))
        chosen, size = order[first : first + count], sizes[first : first + count, None]
        first += count
        place = np.arange(size[-1, 0])
        inside, entries = place < size, np.minimum(edges[chosen, None] + place, len(curve) - 1)
        ends = np.where(inside, ignored_until[entries], 0)
        yield _Batch(
            curves=curves[chosen],
            group=level[chosen] // levels * ranking.groups + group[chosen],
            images=np.where(inside, ranking.image[found.rows[entries]], ranking.images),
            start=start[chosen],
            until=np.where(inside, until[entries], len(places) - 1),
            ignored_start=ignored_start[chosen],
            ignored_until=ends if (ends > ignored_start[chosen, None]).any() else None,
        )


def mean_precision(values: Floats) -> NDArray[np.float64]:
    """``(...)``: the mean over thresholds and groups of ``(..., thresholds, groups)`` without -1; -1 without others."""
    defined = values > -1
    counts = defined.sum(axis=(-2, -1))
    sums = np.where(defined, values, 0.0).sum(axis=(-2, -1))
    return np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)


class _Marked(NamedTuple):
    """Rows with a bit. level: of each, ``view * levels + bit``, ascending."""

    rows: Ints
    level: Ints


def _by_level(bits: Bits, levels: int) -> _Marked:
    """All set bits of ``(views, n)``."""
    rows = []
    for own in bits:
        some = np.flatnonzero(own)
        rows += [some[own[some] >> level & 1 == 1] for level in range(levels)]
    return _Marked(np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(each) for each in rows]))


def _reached_by_hits(wanted: Counts) -> tuple[Floats, Ints]:
    """How many of ``RECALLS`` 0, 1, ... hits reach, for every number of what is to be found.

    And where each of ``wanted`` ``(b, views, groups)`` begins: ``(b, views * groups)``.
    """
    numbers, place = np.unique(wanted, return_inverse=True)
    size = numbers + 1
    start = np.cumsum(size) - size
    recall = (np.arange(size.sum()) - np.repeat(start, size)) / np.repeat(np.maximum(numbers, 1), size)
    near = (recall * (len(RECALLS) - 1)).astype(np.int32)  # its hundredfold, which rounding may miss by one
    reached = near + (RECALLS[near] <= recall) + (_NEXT_RECALL[near] <= recall)
    return reached.astype(np.float64), start[place].reshape(len(wanted), -1)


def _per_group(weights: Counts, group: Ints, groups: int) -> Counts:
    """``(b, groups)``: sums of ``(b, m)`` by ascending ``group`` ``(m,)``."""
    return np.diff(_sums(weights)[:, np.searchsorted(group, np.arange(groups + 1))], axis=1)


def _sums(values: Counts) -> Counts:
    """``(b, n + 1)``: sums of the first 0, 1, ... n of each row of ``(b, n)``."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=np.int32)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
