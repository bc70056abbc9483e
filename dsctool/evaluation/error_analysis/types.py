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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, ErrorType
from dsctool.evaluation.matching import IOU_THRESHOLDS, Matches
from dsctool.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable
from dsctool.terms import Kind

FOREGROUND_IOU = float(IOU_THRESHOLDS[0])
BACKGROUND_IOU = 0.1

CODES: dict[ErrorType, int] = {name: code for code, name in enumerate(ERROR_TYPES)}
NO_ERROR = -1


@dataclass(frozen=True)
class Surroundings:
    """What every detection overlaps most among the instances of its image that should be found.

    own, other: ``(n,)`` rows of the ground truth of the detection's category and of other ones, -1 for none; with their
    IoU, ``own_iou`` and ``other_iou``. crossed: detections, annotations and IoUs of all pairs of different categories
    that reach the foreground IoU, ``(p,)`` each.
    """

    own: Ints
    own_iou: Floats
    other: Ints
    other_iou: Floats
    crossed: tuple[Ints, Ints, Floats]


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
    count = len(detections.image)
    rows = np.full((2, count), -1, dtype=np.int64)
    overlaps = np.zeros((2, count))
    nothing = np.zeros(0, dtype=np.int64)
    crossed: list[tuple[Ints, Ints, Floats]] = [(nothing, nothing, np.zeros(0))]
    for first, last, instances in _shared_images(truth, detections):
        iou = _overlaps(truth, detections, kind, first, last, instances)
        same = detections.category[first:last, None] == truth.category[instances]
        for side, fits in enumerate((same, ~same)):
            limited = np.where(fits, iou, -1.0)
            best = limited.argmax(axis=1)
            value = limited[np.arange(last - first), best]
            rows[side, first:last] = np.where(value > 0, instances[best], -1)
            overlaps[side, first:last] = np.maximum(value, 0.0)
        near = np.nonzero(~same & (iou >= FOREGROUND_IOU))
        crossed.append((near[0] + first, instances[near[1]], iou[near]))
    detection, annotation = (np.concatenate([each[part] for each in crossed]) for part in (0, 1))
    value = np.concatenate([each[2] for each in crossed])
    return Surroundings(rows[0], overlaps[0], rows[1], overlaps[1], (detection, annotation, value))


def _shared_images(truth: TruthTable, detections: DetectionTable) -> Iterator[tuple[int, int, Ints]]:
    """Rows ``[first, last)`` of the detections, and rows of the instances, of every image that has both."""
    instances = np.flatnonzero(~truth.ignored)
    edges = np.arange(len(truth.images) + 1)
    found = np.searchsorted(detections.image, edges)
    wanted = np.searchsorted(truth.image[instances], edges)
    for image in np.flatnonzero((np.diff(found) > 0) & (np.diff(wanted) > 0)):
        yield int(found[image]), int(found[image + 1]), instances[wanted[image] : wanted[image + 1]]


def _overlaps(
    truth: TruthTable, detections: DetectionTable, kind: Kind, first: int, last: int, instances: Ints
) -> Floats:
    """``(detections, instances)``."""
    alone = [0] * len(instances)  # no crowds
    if kind == "bbox":
        return np.asarray(coco_mask.iou(detections.boxes[first:last], truth.boxes[instances], alone))
    masks, truth_masks = detections.masks or [], truth.masks or []
    return np.asarray(coco_mask.iou(masks[first:last], [truth_masks[row] for row in instances], alone))


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
