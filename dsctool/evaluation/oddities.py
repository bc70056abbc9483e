"""Results that are in order one by one, and all wrong together: in other conventions than COCO's, or there twice.

What other tools write so gives an AP near 0, or too low a one, and no error. The best results are read in each of the
usual ways; where nearly none overlaps an annotation as it is, and most do read otherwise, that is what they are.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from dsctool.data.conventions import READINGS, corners_of, iou
from dsctool.data.shapes import Floats
from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.tables import TruthTable
from dsctool.rle import Bools, Ints

LOOKED_AT = 1000
"""So many results, the best ones, are read in other ways."""
FEWEST = 10
"""So many show a way that is no chance."""
HIT = 0.5
"""Least IoU of a result that is on an annotation."""
FACTORS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 2, 2, 3, 4)
"""By which boxes of larger or smaller copies of images are read."""
FEW, MOST = 0.1, 0.5
"""Shares of results: what is meant fits most annotations, and what is not fits few."""


def odd_results(comparison: Comparison) -> list[str]:
    """What all results have in common that costs AP, for people."""
    truth, detections = comparison.truth, comparison.detections
    if not len(detections.image) or not truth.wanted.any():
        return []
    rows = np.flatnonzero(detections.standing < LOOKED_AT)
    notes = [*_conventions(comparison, rows)] if len(rows) >= FEWEST else []
    same = (np.diff(detections.image) == 0) & (np.diff(detections.category) == 0) & (np.diff(detections.score) == 0)
    twice = int(np.count_nonzero(same & (detections.boxes[1:] == detections.boxes[:-1]).all(axis=1)))
    if twice:
        what = "result repeats another" if twice == 1 else "results repeat others"
        notes.append(f"{twice} {what}, with the same image, class, score and box: each counts as a false one")
    if negative := int(np.count_nonzero((detections.boxes[:, 2:] < 0).any(axis=1))):
        notes.append(f"{negative} boxes have a negative width or height, and fit nothing")
    annotated = np.unique(truth.image[truth.wanted])
    without = len(annotated) - len(np.intersect1d(annotated, detections.image))
    if without >= max(FEW * len(annotated), 1):
        notes.append(f"{without} of {len(annotated)} images with annotations have no results")
    return [f"{comparison.results.name}: {note}" for note in notes]


def _conventions(comparison: Comparison, rows: Ints) -> list[str]:
    truth, detections = comparison.truth, comparison.detections
    box, size = detections.boxes[rows], comparison.source.sizes[detections.image[rows]]
    pairs = _pairs(truth, detections.image[rows])
    corners, annotated = corners_of(box), corners_of(truth.boxes)
    hits = _hits(corners, annotated, pairs)
    found = _share(pairs[hits, 0], len(rows))
    if found < FEW:
        readings = {name.partition(" (or")[0]: read(box, size) for name, read in READINGS.items()}
        readings |= {f"those of images {1 / factor:.3g} times as large": factor * corners for factor in FACTORS}
        shares = {name: _share(pairs[_hits(read, annotated, pairs), 0], len(rows)) for name, read in readings.items()}
        look = max(shares, key=lambda name: shares[name])
        if shares[look] >= MOST:
            return [
                f"the boxes look like {look}: so {_percent(shares[look])} of the best {len(rows)} lie on annotations, "
                f"and {_percent(found)} as they are. COCO's are x, y, width, height in pixels"
            ]
    if found >= MOST and (note := _classes(comparison, rows, pairs[hits])):
        return [note]
    if comparison.results.boxes is not None and detections.masks is not None:
        apart = iou(corners, corners_of(detections.masks.boxes(rows))) < HIT
        if apart.mean() >= MOST:
            return [f"{int(apart.sum())} of the best {len(rows)} masks do not fit the boxes of the same results"]
    return []


def _classes(comparison: Comparison, rows: Ints, hits: Ints) -> str:
    """Where results lie on annotations of other classes. hits: ``(p, 2)``, of ``rows`` and of annotations."""
    truth, category = comparison.truth, comparison.detections.category[rows]
    same = truth.category[hits[:, 1]] == category[hits[:, 0]]
    if _share(hits[same, 0], len(rows)) >= FEW:
        return ""
    met = Counter(zip(category[hits[:, 0]].tolist(), truth.category[hits[:, 1]].tolist(), strict=True))
    (theirs, ours), _ = met.most_common(1)[0]
    return (
        f"the boxes lie on annotations, but of other classes: those of category {truth.categories[theirs]} mostly on "
        f"category {truth.categories[ours]} ({truth.names[ours]}). Are the ids numbered otherwise?"
    )


def _pairs(truth: TruthTable, image: Ints) -> Ints:
    """``(p, 2)``: each result, by its image, with every annotation of that image that is no crowd."""
    wanted = np.flatnonzero(~truth.crowd)
    first = np.searchsorted(truth.image[wanted], image, side="left")
    count = np.searchsorted(truth.image[wanted], image, side="right") - first
    result = np.repeat(np.arange(len(image)), count)
    place = np.arange(len(result)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([result, wanted[np.repeat(first, count) + place]], axis=1)


def _hits(corners: Floats, annotated: Floats, pairs: Ints) -> Bools:
    hits: Bools = iou(corners[pairs[:, 0]], annotated[pairs[:, 1]]) >= HIT
    return hits


def _share(found: Ints, count: int) -> float:
    return len(np.unique(found)) / count


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
