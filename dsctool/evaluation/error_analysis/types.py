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

from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, ErrorType
from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches
from dsctool.evaluation.pairing import Overlapping, overlapping
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.structures import Kind

FOREGROUND_IOU = float(IOU_THRESHOLDS[0])
BACKGROUND_IOU = 0.1

CODES: dict[ErrorType, int] = {name: code for code, name in enumerate(ERROR_TYPES)}
NO_ERROR = -1


@dataclass(frozen=True)
class Surroundings:
    """What every detection overlaps most among the instances of its image that should be found.

    own, other: ``(n,)`` rows of the ground truth of the detection's category and of other ones, -1 where none reaches
    the background IoU; with their IoU, ``own_iou`` and ``other_iou``. crossed: all pairs of different categories that
    reach the foreground IoU.
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


def surroundings(truth: TruthTable, detections: DetectionTable, kind: Kind) -> Surroundings:
    """Ordinary IoU as pycocotools has it; crowds and areas out of COCO's range are no instances."""
    near = overlapping(truth, detections, kind, among=truth.wanted, same_category=False, at_least=BACKGROUND_IOU)
    same = detections.category[near.detection] == truth.category[near.truth]
    own, own_iou = _nearest(near, same, len(detections.image))
    other, other_iou = _nearest(near, ~same, len(detections.image))
    crossed = np.flatnonzero(~same & (near.iou >= FOREGROUND_IOU))
    return Surroundings(
        own, own_iou, other, other_iou, Overlapping(near.detection[crossed], near.truth[crossed], near.iou[crossed])
    )


def _nearest(near: Overlapping, chosen: Bools, count: int) -> tuple[Ints, Floats]:
    """``(count,)``: the annotation of highest IoU, the first of equals, of every detection; and this IoU."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((-near.iou[rows], near.detection[rows]))]
    rows = rows[np.diff(near.detection[rows], prepend=-1) > 0]
    annotation, iou = np.full(count, -1, dtype=np.int64), np.zeros(count)
    annotation[near.detection[rows]] = near.truth[rows]
    iou[near.detection[rows]] = near.iou[rows]
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
