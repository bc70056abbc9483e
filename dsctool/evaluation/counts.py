"""How many instances are found against how many there are: errors of counts, by class and by density.

An instance is counted where a result scores at least its class's threshold, wherever it lies: counting asks for numbers
alone. Crowds have no number, so what matches one is left out on both sides, as for AP. All results count, also those
beyond the limit that AP has.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.matching import match
from dsctool.evaluation.protocol import up_to
from dsctool.evaluation.tables import Bools, Ints
from dsctool.terms import Kind

DENSITIES = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Where the bins of instances per image begin."""


@dataclass(frozen=True)
class CountErrors:
    """Of counts per image. error: found less true.

    images: that were counted. true, found: instances of all of them. mae: the mean of the errors without their sign.
    rmse: the root of the mean of their squares. bias: their mean; above 0 too many are found.
    """

    images: int
    true: int
    found: int
    mae: float
    rmse: float
    bias: float

    @classmethod
    def of(cls, true: Ints, found: Ints) -> CountErrors:
        """Of counts ``(images,)``; there is at least one image."""
        error = (found - true).astype(np.float64)
        return cls(
            images=len(true),
            true=int(true.sum()),
            found=int(found.sum()),
            mae=float(np.abs(error).mean()),
            rmse=float(np.sqrt((error**2).mean())),
            bias=float(error.mean()),
        )


@dataclass(frozen=True)
class ClassCounts:
    """Of one class, over all images. threshold: the lowest score that counts."""

    id: Hashable
    name: str
    threshold: float
    errors: CountErrors


@dataclass(frozen=True)
class DensityCounts:
    """Of all classes together, over the images with so many instances. high: the most, None for no end."""

    low: int
    high: int | None
    errors: CountErrors


@dataclass(frozen=True)
class CountStudy:
    """kind: what was found, boxes or masks. images: ids. true, found: ``(images, classes)``, counts.

    total: of all classes together. densities: only those that images have.
    """

    kind: Kind
    images: tuple[Hashable, ...]
    true: Ints
    found: Ints
    total: CountErrors | None
    classes: tuple[ClassCounts, ...]
    densities: tuple[DensityCounts, ...]


def study_counts(comparison: Comparison, thresholds: Sequence[float]) -> CountStudy:
    """thresholds: the lowest score that counts, by category of the ground truth."""
    comparison = uncut(comparison)
    truth, detections = comparison.truth, comparison.detections
    images, classes = len(truth.images), len(truth.categories)
    kept = counted(comparison) & (detections.score >= np.asarray(thresholds, dtype=np.float64)[detections.category])
    true = _table(truth.image[truth.wanted], truth.category[truth.wanted], images, classes)
    found = _table(detections.image[kept], detections.category[kept], images, classes)
    all_true, all_found = true.sum(axis=1), found.sum(axis=1)
    return CountStudy(
        kind=comparison.kinds[-1],
        images=truth.images,
        true=true,
        found=found,
        total=CountErrors.of(all_true, all_found) if images else None,
        classes=tuple(
            ClassCounts(identity, name, float(threshold), CountErrors.of(true[:, row], found[:, row]))
            for row, (identity, name, threshold) in enumerate(
                zip(truth.categories, truth.names, thresholds, strict=True)
            )
            if images
        ),
        densities=tuple(_densities(all_true, all_found)),
    )


def uncut(comparison: Comparison) -> Comparison:
    """The same with all results, where the protocol's limit left some out."""
    if len(comparison.detections.image) == len(comparison.results):
        return comparison
    protocol = replace(comparison.protocol, max_dets=up_to(len(comparison.results)))
    return compare(comparison.source, comparison.results, protocol=protocol)


def counted(comparison: Comparison) -> Bools:
    """``(n,)``: the results that count one way or the other: all but those that AP ignores, such as on crowds."""
    if comparison.truth.wanted.all():
        return np.ones(len(comparison.detections.image), dtype=bool)
    (matches,) = match(
        comparison.pairs(comparison.kinds[-1]), comparison.truth, comparison.detections, [comparison.everything]
    )
    return matches.ignored & 1 == 0


def _table(image: Ints, category: Ints, images: int, classes: int) -> Ints:
    """``(images, classes)``: how many rows each has."""
    counts: Ints = np.bincount(image * max(classes, 1) + category, minlength=images * classes)
    return counts.reshape(images, classes)


def _densities(true: Ints, found: Ints) -> list[DensityCounts]:
    bins = []
    for low, high in pairwise([*DENSITIES, None]):
        assert low is not None
        inside = (true >= low) & (true < (np.inf if high is None else high))
        if inside.any():
            errors = CountErrors.of(true[inside], found[inside])
            bins.append(DensityCounts(low, None if high is None else high - 1, errors))
    return bins
