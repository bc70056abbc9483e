"""Which scores to count as found: precision, recall, F1 and error of counts over the threshold, and where it is best.

What is right is what AP50 counts as right: a better result never yields to a worse one, so one matching of all results
holds for every threshold. A threshold keeps the scores from it on; between two scores that occur all are the same, and
the one chosen lies in the middle between the lowest that it keeps and the highest that it leaves out.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.counts import uncut
from dsctool.evaluation.matching import match
from dsctool.evaluation.tables import Bools, Floats, Ints, places
from dsctool.terms import Kind

IOU = 0.5
"""From which on a result is right."""
THRESHOLDS: Floats = np.arange(101) / 100
"""Where curves have values."""
Best = Literal["f1", "count"]
"""Of thresholds, that of highest F1, or of smallest mean absolute error of counts per image."""


@dataclass(frozen=True)
class Quality:
    """At one threshold; None for a different one of every class.

    found: results that are kept. right: of them. precision: None where nothing is found. recall, f1: None where there
    is nothing to find. count_error: mean absolute error of counts per image. bias: its mean with the sign.
    """

    threshold: float | None
    found: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None
    count_error: float
    bias: float


@dataclass(frozen=True)
class Curve:
    """``(101,)`` each, over ``THRESHOLDS``; NaN where a value of :class:`Quality` is None."""

    precision: Floats
    recall: Floats
    f1: Floats
    count_error: Floats


@dataclass(frozen=True)
class ClassPoint:
    """A class, or all as one. at: with the threshold that is chosen, None where there is none.

    own: whether that is best for the class itself. Else it has no instances, or nothing of it is ever right, and the
    threshold is that of all as one.
    """

    id: Hashable
    name: str
    instances: int
    own: bool
    at: Quality | None
    curve: Curve


@dataclass(frozen=True)
class OperatingStudy:
    """kind: whether boxes or masks matched. overall: all classes as one, with one threshold.

    together: all classes, each with its threshold; None where there are none.
    """

    kind: Kind
    best: Best
    images: int
    overall: ClassPoint
    together: Quality | None
    classes: tuple[ClassPoint, ...]

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """By category of the ground truth; None where nothing is right, or nothing is to be found."""
        chosen = [each.at.threshold for each in self.classes if each.at is not None]
        found = [each for each in chosen if each is not None]
        return tuple(found) if len(found) == len(self.classes) and found else None


def study_operating_point(comparison: Comparison, best: Best = "f1") -> OperatingStudy:
    """Of masks, or of boxes where there are no masks; over all results, also those beyond the limit that AP has."""
    comparison = uncut(comparison)
    kind, truth, detections = comparison.kinds[-1], comparison.truth, comparison.detections
    (matches,) = match(comparison.pairs(kind), truth, detections, [comparison.everything])
    counts = matches.ignored & 1 == 0
    right = matches.found & 1 == 1
    images = max(len(truth.images), 1)

    def ranked(found: Bools, wanted: Bools) -> _Ranked:
        rows = np.flatnonzero(found & counts)
        rows = rows[np.argsort(detections.standing[rows])]
        instances = np.bincount(truth.image[wanted & truth.wanted], minlength=images)
        return _Ranked.of(detections.score[rows], right[rows], detections.image[rows], instances)

    every, all_wanted = np.ones(len(right), dtype=bool), np.ones(len(truth.image), dtype=bool)
    overall = ranked(every, all_wanted)
    spare = overall.best(best)
    classes = []
    for row, (identity, name) in enumerate(zip(truth.categories, truth.names, strict=True)):
        own = ranked(detections.category == row, truth.category == row)
        chosen = own.best(best)
        threshold = spare if chosen is None else chosen
        at = None if threshold is None else own.at(threshold)
        classes.append(ClassPoint(identity, name, own.total, chosen is not None, at, own.curve()))
    whole = ClassPoint(
        0, "all", overall.total, spare is not None, None if spare is None else overall.at(spare), overall.curve()
    )
    study = OperatingStudy(kind, best, len(truth.images), whole, None, tuple(classes))
    if (thresholds := study.thresholds) is None:
        return study
    kept = counts & (detections.score >= np.asarray(thresholds)[detections.category])
    together = overall.quality(
        None, int(kept.sum()), int((kept & right).sum()), np.bincount(detections.image[kept], minlength=images)
    )
    return OperatingStudy(kind, best, len(truth.images), whole, together, tuple(classes))


@dataclass(frozen=True)
class _Ranked:
    """Results by descending score. right: ``(n + 1,)``, of the first 0, 1, ... of them.

    off: ``(n + 1,)``, the sum over the images of how far the count is from the true one, of the first 0, 1, ...
    instances: ``(images,)``.
    """

    score: Floats
    right: Ints
    off: Ints
    instances: Ints

    @classmethod
    def of(cls, score: Floats, right: Bools, image: Ints, instances: Ints) -> _Ranked:
        """One more result in an image takes its count nearer to the true one until that is reached, then further."""
        order = np.argsort(image, kind="stable")
        place = np.empty(len(image), dtype=np.int64)
        place[order] = places(image[order])
        step = np.where(place < instances[image], -1, 1)
        return cls(score, np.cumsum([0, *right]), np.cumsum([instances.sum(), *step]), instances)

    @property
    def total(self) -> int:
        """Instances of all images."""
        return int(self.instances.sum())

    def best(self, by: Best) -> float | None:
        """The threshold; of equally good ones the highest. None where there are no instances, or no F1 above 0."""
        kept = np.append(0, np.flatnonzero(np.append(np.diff(self.score) < 0, [True] * (len(self.score) > 0))) + 1)
        if not self.total:
            return None
        if by == "f1":
            f1 = 2 * self.right[kept] / (kept + self.total)
            return None if f1.max() == 0 else self._between(int(kept[f1.argmax()]))
        bias = np.abs(kept - self.total)
        return self._between(int(kept[np.lexsort((bias, self.off[kept]))[0]]))

    def _between(self, kept: int) -> float:
        """A threshold that keeps so many results, with few digits where these tell the scores apart."""
        above = float(self.score[kept - 1]) if kept else 1.0
        below = float(self.score[kept]) if kept < len(self.score) else 0.0
        middle = (above + below) / 2
        return next((each for each in (round(middle, 4), middle) if below < each <= above), above)

    def at(self, threshold: float) -> Quality:
        """What the threshold keeps."""
        kept = self._kept(np.asarray([threshold]))[0]
        found = int(kept)
        return self._described(threshold, found, int(self.right[found]), float(self.off[found]))

    def quality(self, threshold: float | None, found: int, right: int, counts: Ints) -> Quality:
        """counts: ``(images,)``, what is kept of each."""
        return self._described(threshold, found, right, float(np.abs(counts - self.instances).sum()))

    def _described(self, threshold: float | None, found: int, right: int, off: float) -> Quality:
        total, images = self.total, len(self.instances)
        return Quality(
            threshold=threshold,
            found=found,
            right=right,
            precision=right / found if found else None,
            recall=right / total if total else None,
            f1=2 * right / (found + total) if total else None,
            count_error=off / images,
            bias=(found - total) / images,
        )

    def curve(self) -> Curve:
        """Values over ``THRESHOLDS``."""
        kept = self._kept(THRESHOLDS)
        right, total = self.right[kept].astype(np.float64), float(self.total or np.nan)
        precision = np.divide(right, kept, out=np.full(len(kept), np.nan), where=kept > 0)
        return Curve(precision, right / total, 2 * right / (kept + total), self.off[kept] / len(self.instances))

    def _kept(self, thresholds: Floats) -> Ints:
        """How many results score at least so much."""
        kept: Ints = np.searchsorted(-self.score, -thresholds, side="right")
        return kept
