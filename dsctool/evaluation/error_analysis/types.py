"""Why detections are wrong and instances are missed: the types of TIDE (Bolya et al., 2020, section 2.2).

A detection that is wrong at IoU 0.5 gets the first type that fits, as TIDE's own program decides it. *Own* IoU is the
largest one with an instance of its category, *other* IoU with an instance of another one:

- ``localisation``: own IoU from 0.1 to below 0.5.
- ``classification``: other IoU of 0.5 or more.
- ``duplicate``: own IoU of 0.5 or more: a better detection has the instance.
- ``background``: both below 0.1.
- ``both``: what is left; other IoU from 0.1 to below 0.5.

An instance is ``missed`` when it is not found and no localisation or classification error is about it.

Where only some instances count (a size, the huddled ones), the types speak of these: a wrong detection about one of
the others is ``elsewhere``. Background errors are about no instance and count everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, ErrorType
from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches
from dsctool.evaluation.pairing import Overlapping, overlapping, united
from dsctool.evaluation.tables import Bools, Floats, Ints, TruthTable
from dsctool.terms import Kind

FOREGROUND_IOU = float(IOU_THRESHOLDS[0])
BACKGROUND_IOU = 0.1
_NEVER = 2.0  # no IoU reaches it

CODES: dict[ErrorType, int] = {name: code for code, name in enumerate(ERROR_TYPES)}
NO_ERROR = -1


@dataclass(frozen=True)
class Surroundings:
    """What every detection overlaps most among the instances of its image that should be found.

    own, other: ``(n,)`` rows of the ground truth of the detection's category and of other ones, -1 for none; with their
    IoU, ``own_iou`` and ``other_iou``. Only what can decide on a type was looked for: IoUs from the background's on,
    and others from the foreground's on where the own IoU is no background. crossed: all pairs of different categories
    that reach the foreground IoU.
    """

    own: Ints
    own_iou: Floats
    other: Ints
    other_iou: Floats
    crossed: Overlapping


@dataclass(frozen=True)
class TypedErrors:
    """code: ``(n,)``, of ``CODES``, or ``NO_ERROR``. about: ``(n,)``, the row of the instance in question, or -1.

    found, missed: ``(m,)``. Instances that are neither, and count, are what classification and localisation errors are
    about.
    """

    code: Ints
    about: Ints
    found: Bools
    missed: Bools


def surroundings(comparison: Comparison, kind: Kind) -> Surroundings:
    """Ordinary IoU as pycocotools has it; crowds and areas out of COCO's range are no instances."""
    truth, detections = comparison.truth, comparison.detections
    near = comparison.near(kind)
    find = partial(overlapping, truth, detections, kind, among=truth.wanted)
    own = near.take(np.flatnonzero(truth.wanted[near.truth]))
    settled = np.zeros(len(detections.image), dtype=bool)
    settled[own.detection[own.iou >= FOREGROUND_IOU]] = True
    weak = find(categories="same", at_least=np.where(settled, _NEVER, BACKGROUND_IOU))
    own_rows, own_iou = _nearest([own, weak], len(settled))
    others = find(categories="other", at_least=np.where(own_iou < BACKGROUND_IOU, BACKGROUND_IOU, FOREGROUND_IOU))
    crossed = others.take(np.flatnonzero(others.iou >= FOREGROUND_IOU))
    return Surroundings(own_rows, own_iou, *_nearest([others], len(settled)), crossed)


def _nearest(parts: Sequence[Overlapping], count: int) -> tuple[Ints, Floats]:
    """``(count,)``: the annotation of highest IoU, the first of equals, of every detection; and this IoU."""
    near = united(parts)
    near = near.take(np.flatnonzero(near.iou > 0))
    near = near.take(np.lexsort((near.truth, -near.iou, near.detection)))
    near = near.take(np.flatnonzero(np.diff(near.detection, prepend=-1)))
    annotation, iou = np.full(count, -1, dtype=np.int64), np.zeros(count)
    annotation[near.detection], iou[near.detection] = near.truth, near.iou
    return annotation, iou


def type_errors(truth: TruthTable, around: Surroundings, matches: Matches, *, counted: Bools) -> TypedErrors:
    """The errors of a matching at the foreground IoU. counted: ``(m,)``, the instances that it was about."""
    wrong = (matches.found | matches.ignored) & 1 == 0
    own, other = around.own_iou, around.other_iou
    # The first that fits.
    tests: list[tuple[ErrorType, Bools, Ints | None]] = [
        ("localisation", (own >= BACKGROUND_IOU) & (own < FOREGROUND_IOU), around.own),
        ("classification", other >= FOREGROUND_IOU, around.other),
        ("duplicate", own >= FOREGROUND_IOU, around.own),
        ("background", np.maximum(own, other) < BACKGROUND_IOU, None),
        ("both", np.ones(len(own), dtype=bool), around.other),
    ]
    code = np.full(len(own), NO_ERROR, dtype=np.int64)
    about = np.full(len(own), -1, dtype=np.int64)
    for name, fits, rows in tests:
        new = wrong & fits & (code == NO_ERROR)
        code[new] = CODES[name]
        if rows is not None:
            about[new] = rows[new]
    having = np.flatnonzero(about >= 0)
    code[having[~counted[about[having]]]] = CODES["elsewhere"]
    found = (matches.taken & 1 == 1) & truth.counted & counted
    mendable = np.zeros(len(counted), dtype=bool)
    mendable[about[(code == CODES["classification"]) | (code == CODES["localisation"])]] = True
    return TypedErrors(code, about, found, missed=counted & ~found & ~mendable)
