"""What errors cost: AP50 without one type of error, minus AP50.

How each type is mended, as TIDE mends it:

- ``classification``, ``localisation``: the detection finds the instance that it is about, with its score. Where that is
  found already, or several mended detections are about it, all but the one of highest score are left out.
- ``both``, ``duplicate``, ``background``, ``elsewhere``: the detection is left out.
- ``missed``: the instance is not counted. A category of which nothing is left to find counts as 1.

No difference is negative, and with all types mended AP50 is 1. AP50 itself is pycocotools', and so is the matching.

Types and counts are those of TIDE's program (tidecv 1.0.1), and so are costs but for this:

- Which detection finds an instance is settled among those that are mended. The program settles it among all
  classification and localisation errors, so that mending one type may find nothing where an error of the other type has
  a higher score; the paper leaves out a detection only where there would be two.
- Where missed instances leave nothing of a category to find, the program counts it as 0.
- Categories without instances are not in the mean, detections that COCO ignores (on crowds, say) are no errors, and 100
  detections per image and category are looked at, all as in COCO; in the program, per image.
- An IoU of exactly 0.5 is a match, never a localisation error; one of exactly 0.1 is not background.
- By size, the program selects right detections by their instance and wrong ones by their own area; here, as in COCO,
  instances of other sizes and what matches them are ignored, and so is what matches nothing and has another size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, Cost, ErrorType, ErrorView
from dsctool.evaluation.error_analysis.types import CODES, NO_ERROR, Surroundings, TypedErrors, type_errors
from dsctool.evaluation.matching import Matches, View
from dsctool.evaluation.precision import Curves, Ranking
from dsctool.evaluation.tables import Bools, DetectionTable, Ints, TruthTable
from dsctool.terms import Kind


@dataclass(frozen=True)
class Diagnosis:
    """Results matched with the instances that count ``(m,)``, and their errors.

    In the columns of ``r`` rows are the detections that count, by category, then score.
    """

    truth: TruthTable
    detections: DetectionTable
    counted: Bools
    matches: Matches
    errors: TypedErrors

    @cached_property
    def ranked(self) -> Ints:
        """``(r,)``: which rows they are."""
        rows = self.detections.by_category
        return rows[self.matches.ignored[rows] & 1 == 0]

    @cached_property
    def found(self) -> Bools:
        """``(r,)``: which ones are right."""
        return self.matches.found[self.ranked] & 1 == 1

    @cached_property
    def code(self) -> Ints:
        """``(r,)``: their errors."""
        return self.errors.code[self.ranked]

    @cached_property
    def category(self) -> Ints:
        """``(r,)``"""
        return self.detections.category[self.ranked]


def diagnose(comparison: Comparison, kind: Kind, around: Surroundings, views: Sequence[View]) -> list[Diagnosis]:
    """Every view, matched at once."""
    truth, detections = comparison.truth, comparison.detections
    return [
        Diagnosis(truth, detections, view.wanted, matches, type_errors(truth, around, matches, counted=view.wanted))
        for view, matches in zip(views, comparison.matches(kind, views), strict=True)
    ]


def measure_costs(diagnosis: Diagnosis, name: str) -> ErrorView:
    """AP50, and how much of it each type of error costs."""
    errors, instances = diagnosis.errors, int(np.count_nonzero(diagnosis.counted))
    counts = {each: int(np.count_nonzero(errors.code == CODES[each])) for each in ERROR_TYPES}
    counts["missed"] = int(np.count_nonzero(errors.missed))
    if not instances:
        nothing = {each: Cost(count=counts[each], difference=None, share=None) for each in ERROR_TYPES}
        return ErrorView(name=name, instances=0, AP50=-1.0, errors=nothing, false_positives=None, false_negatives=None)
    start = mended_precision(diagnosis, ())
    lost = {each: mended_precision(diagnosis, (each,)) - start if counts[each] else 0.0 for each in ERROR_TYPES}
    total = sum(lost.values())
    costs = {
        each: Cost(count=counts[each], difference=lost[each], share=lost[each] / total if total > 0 else None)
        for each in ERROR_TYPES
    }
    false_positives, false_negatives = _one_sided(diagnosis)
    return ErrorView(
        name=name,
        instances=instances,
        AP50=start,
        errors=costs,
        false_positives=false_positives - start,
        false_negatives=false_negatives - start,
    )


def mended_precision(diagnosis: Diagnosis, types: Collection[ErrorType]) -> float:
    """AP50 with all errors of some types mended; there must be instances that count."""
    truth, errors = diagnosis.truth, diagnosis.errors
    mended = _has(diagnosis, types)
    turned = _turned(diagnosis, np.flatnonzero(mended & _has(diagnosis, ("classification", "localisation"))))
    found, kept, category = diagnosis.found.copy(), ~mended, diagnosis.category
    found[turned] = kept[turned] = True
    if "classification" in types:
        category = category.copy()
        category[turned] = truth.category[errors.about[diagnosis.ranked[turned]]]
    wanted = diagnosis.counted & ~errors.missed if "missed" in types else diagnosis.counted
    return _precision(diagnosis, kept, found, category, wanted)


def _has(diagnosis: Diagnosis, types: Collection[ErrorType]) -> Bools:
    """``(r,)``: which detections have errors of these types."""
    chosen = np.zeros(len(CODES) + 1, dtype=bool)  # the last one is for those without
    chosen[[CODES[each] for each in types]] = True
    return chosen[diagnosis.code]


def _turned(diagnosis: Diagnosis, places: Ints) -> Ints:
    """Those of the detections in some of the ``r`` places that find what they are about once they are mended."""
    errors, rows = diagnosis.errors, diagnosis.ranked[places]
    free = ~errors.found[errors.about[rows]]
    places, rows = places[free], rows[free]
    order = np.lexsort((rows, -diagnosis.detections.score[rows]))
    _, best = np.unique(errors.about[rows[order]], return_index=True)
    return places[order[best]]


def _one_sided(diagnosis: Diagnosis) -> tuple[float, float]:
    """AP50 without the wrong detections, and with only the found instances to be found."""
    everything = np.ones(len(diagnosis.ranked), dtype=bool)
    right = diagnosis.code == NO_ERROR
    return (
        _precision(diagnosis, right, diagnosis.found, diagnosis.category, diagnosis.counted),
        _precision(diagnosis, everything, diagnosis.found, diagnosis.category, diagnosis.errors.found),
    )


def _precision(diagnosis: Diagnosis, kept: Bools, found: Bools, category: Ints, wanted: Bools) -> float:
    """The mean over the categories with instances that count; 1 for those without instances that are wanted.

    kept, found, category: ``(r,)``. wanted: ``(m,)``.
    """
    truth, places = diagnosis.truth, np.flatnonzero(kept)
    if category is not diagnosis.category:
        standing = diagnosis.detections.standing
        key = category[places] * len(standing) + standing[diagnosis.ranked[places]]
        places = places[np.argsort(key, kind="stable")]
    wanted_category = np.sort(truth.category[wanted])
    bits = found[None, places].astype(np.int16)
    ranking = Ranking(
        groups=len(truth.categories),
        images=1,
        image=np.zeros_like(places),
        group=category[places],
        found=bits,
        ignored=np.zeros_like(bits),
        truth_image=[np.zeros_like(wanted_category)],
        truth_group=[wanted_category],
    )
    values = Curves(ranking, levels=1).average_precision(np.ones((1, 1), dtype=np.int32))[0, 0, 0]
    measured = np.bincount(truth.category[diagnosis.counted], minlength=ranking.groups) > 0
    return float(np.where(values < 0, 1.0, values)[measured].mean())
