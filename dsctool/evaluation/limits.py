"""What a limit of detections per image and category costs a perfect result."""

from __future__ import annotations

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.matching import ALL_BITS
from dsctool.evaluation.precision import Curves, Ranking, mean_precision
from dsctool.evaluation.tables import TruthTable, places


def limit_notes(comparison: Comparison) -> list[str]:
    """Where images have more instances of a category than are counted: how much AP can be at most, for people."""
    limit, most = comparison.protocol.limits[-1], comparison.truth.most_instances
    if most <= limit:
        return []
    best = perfect_precision(comparison.truth, limit)
    return [
        f"a perfect result would get AP {best:.3f} at {limit} detections per image and class: the ground truth has up "
        f"to {most} instances; --max-dets auto counts all"
    ]


def perfect_precision(truth: TruthTable, limit: int) -> float:
    """AP where the detections are the instances, each of them matched, and ``limit`` of an image and category count."""
    wanted = np.flatnonzero(truth.wanted)
    place = np.zeros(len(truth.image), dtype=np.int64)
    place[wanted] = places(truth.image[wanted] * len(truth.categories) + truth.category[wanted])
    wanted = wanted[np.argsort(truth.category[wanted], kind="stable")]
    found = wanted[place[wanted] < limit]
    bits = np.where(truth.counted[found], ALL_BITS, 0).astype(np.int16)[None]
    ranking = Ranking(
        groups=len(truth.categories),
        images=len(truth.images),
        image=truth.image[found],
        group=truth.category[found],
        found=bits,
        ignored=np.zeros_like(bits),
        truth_image=[truth.image[wanted]],
        truth_group=[truth.category[wanted]],
    )
    values = Curves(ranking).average_precision(np.ones((1, ranking.images), dtype=np.int32))
    return float(mean_precision(values[0, 0]))
