"""Faults that only several values show together: of one annotation, or of all annotations of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsctool.data.agreement import MASK, NORMALISED, Columns, disagreements
from dsctool.data.duplicates import duplicates
from dsctool.data.extents import Extents
from dsctool.data.faults import MANY, Fault
from dsctool.data.records import AnnotationFile
from dsctool.data.segmentations import Problem
from dsctool.data.shapes import Shapes, drawing_of
from dsctool.rle import Ints

if TYPE_CHECKING:
    from dsctool.data.columns import Annotations


def joint_faults(
    file: AnnotationFile,
    annotations: Annotations,
    sizes: Ints,
    outside: Sequence[Mapping[str, Any]],
    rows: Mapping[Any, int],
) -> list[Fault]:
    """Boxes, areas and masks that do not agree, coordinates from 0 to 1, and objects that are there twice.

    annotations: faultless ones. sizes: ``(images, 2)``. outside: entries whose boxes alone are a fault, since they lie
    outside their images. rows: images by id.
    """
    chosen = annotations.take(~annotations.crowd)
    extents = Extents.of(chosen.shapes, sizes[chosen.image])
    found = disagreements(_columns(chosen, sizes, extents, outside, rows))
    repeated: list[tuple[int, Problem]] = []
    if not {problem.kind for problem in found.whole} & {MASK, NORMALISED}:  # of wrong masks many are alike
        twice = duplicates(chosen, sizes[chosen.image], extents)
        for text, rows_of in ((_REPEATS, twice.exact), (_NEARLY, twice.near), (_OTHER_CLASS, twice.other_class)):
            repeated += [(row, Problem("duplicate", _named(chosen, text, rows_of, row), "warning")) for row in rows_of]
    faults = [Fault(file.path, "file", None, None, each.kind, each.message, each.severity) for each in found.whole]
    for row, problem in [*found.each, *sorted(repeated, key=lambda item: item[0])]:
        where = int(chosen.id[row]), int(chosen.place[row])
        faults.append(Fault(file.path, "annotation", *where, problem.kind, problem.message, problem.severity))
    return faults


_REPEATS = "repeats {}: the same class and shape in the same image"
_OTHER_CLASS = "has just the shape of {}, and another class: one of the two is wrong, or one thing has two classes"
_NEARLY = "nearly repeats {}: the same class, and masks with an IoU of 0.9 or more"


def _named(annotations: Annotations, text: str, repeated: Mapping[int, int], row: int) -> str:
    """Where there are many, they share a line that names no others."""
    few = len(repeated) < MANY
    return text.format(f"annotation {annotations.id[repeated[row]]}" if few else "an earlier annotation")


def _columns(
    annotations: Annotations,
    sizes: Ints,
    extents: Extents,
    outside: Sequence[Mapping[str, Any]],
    rows: Mapping[Any, int],
) -> Columns:
    """Faultless annotations, and those with boxes outside their images where these have sizes and no crowds."""
    entries = [each for each in outside if each.get("image_id") in rows and not each.get("iscrowd")]
    image = np.asarray([rows[each["image_id"]] for each in entries], dtype=np.int64)
    size = sizes[image]
    drawings = [
        drawing_of(each.get("segmentation"), (height, width))
        for each, (height, width) in zip(entries, size.tolist(), strict=True)
    ]
    shapes = Shapes.of([polygons for polygons, _ in drawings], [text for _, text in drawings])
    more = Extents.of(shapes, size)
    faulty = np.concatenate([np.zeros(len(annotations), dtype=bool), np.ones(len(entries), dtype=bool)])
    return Columns(
        box=np.concatenate([annotations.box, np.asarray([each["bbox"] for each in entries], float).reshape(-1, 4)]),
        area=np.concatenate([annotations.area, np.zeros(len(entries))]),
        image=np.concatenate([annotations.image, image]),
        size=np.concatenate([sizes[annotations.image], size]),
        faulty=faulty,
        shapes=annotations.shapes if not entries else Shapes.join([annotations.shapes, shapes]),
        extents=Extents(np.concatenate([extents.corners, more.corners]), np.concatenate([extents.area, more.area])),
    )
