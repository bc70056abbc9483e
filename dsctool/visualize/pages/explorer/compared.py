"""Results beside their truth, as the explorer shows them: what is wrong with a detection, and what was not found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dsctool.data.images import shown_image
from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.error_analysis.costs import diagnose
from dsctool.evaluation.error_analysis.types import CODES, FOREGROUND_IOU, surroundings
from dsctool.evaluation.matching import Matches
from dsctool.evaluation.tables import Ints
from dsctool.terms import Kind
from dsctool.visualize.pages.explorer.page import LOWEST, Looked, Thing, shown_as


def compared_pictures(compared: Comparison, folder: Path) -> Iterator[Looked]:
    """All images of the ground truth, whose files are in ``folder``, by ascending id.

    Errors are those of masks, where there are masks, at IoU 0.5.

    Raises:
        DataError: a file cannot be read.
    """
    truth, detections, kind = compared.truth, compared.detections, compared.kinds[-1]
    (diagnosis,) = diagnose(compared, kind, surroundings(compared, kind), [compared.everything])
    finders = finders_of(compared, kind, diagnosis.matches)
    names = {code: name for name, code in CODES.items()}
    for number, image in enumerate(compared.source.images):
        found = np.flatnonzero((detections.image == number) & (detections.score >= LOWEST)).tolist()
        place = {row: index for index, row in enumerate(found)}
        things = [
            Thing(
                int(detections.category[row]),
                float(detections.score[row]),
                _box(detections.boxes[row]),
                None if detections.masks is None else detections.masks[row],
                names.get(int(diagnosis.errors.code[row])),
            )
            for row in found
        ]
        known = [
            Thing(
                int(truth.category[row]),
                None,
                _box(truth.boxes[row]),
                None if truth.masks is None else truth.masks[row],
                finder=place.get(int(finders[row])),
            )
            for row in np.flatnonzero((truth.image == number) & truth.wanted).tolist()
        ]
        pixels = shown_image(folder / image.file_name)
        shown = shown_as(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
        yield Looked(image.file_name, image.size, shown, things, known)


def finders_of(compared: Comparison, kind: Kind, matches: Matches) -> Ints:
    """``(m,)``: the row of the detection that found each annotation at IoU 0.5, or -1.

    As COCO matches them: best score first, each takes the annotation of highest IoU that is left.
    """
    near, standing = compared.near(kind), compared.detections.standing
    near = near.take(np.flatnonzero((near.iou >= FOREGROUND_IOU) & (matches.found[near.detection] & 1 == 1)))
    near = near.take(np.lexsort((-near.truth, -near.iou, standing[near.detection])))
    finders = np.full(len(compared.truth.image), -1, dtype=np.int64)
    done = set[int]()
    for detection, annotation in zip(near.detection.tolist(), near.truth.tolist(), strict=True):
        if detection not in done and finders[annotation] < 0 and compared.truth.wanted[annotation]:
            finders[annotation] = detection
            done.add(detection)
    return finders


def _box(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float, float]:
    x, y, width, height = values.tolist()
    return x, y, width, height
