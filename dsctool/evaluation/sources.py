"""Ground truth and results in COCO format: read and checked, once for all analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from dsctool.cores import Later, beside
from dsctool.data.columns import Annotations, Reading, has_segmentations, read_columns
from dsctool.data.faults import refuse_faults, warnings_of
from dsctool.data.records import AnnotationFile, Category, ImageInfo, annotation_file, json_kind, read_annotation_file
from dsctool.data.rules import Needs
from dsctool.entries import Entries, read_list
from dsctool.errors import DataError
from dsctool.evaluation.numbering import check_numbering
from dsctool.evaluation.predictions import Predictions, Reference, read_predictions
from dsctool.rle import Bools, Ints, PackedRles


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The parts of a COCO annotation file that evaluation uses.

    name: the file, for messages. images, categories: by ascending id. annotations: of both, in the order of the file.
    has_masks: whether masks can be compared: all annotations have one. notes: what was left out, or taken from other
    values, for people.
    """

    name: str
    images: tuple[ImageInfo, ...]
    categories: tuple[Category, ...]
    annotations: Annotations
    has_masks: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, reading: Reading, *, left_out: frozenset[int] = frozenset()) -> Self:
        """What was read. left_out: places of images in the file's list that are not looked at."""
        kept = [row for row, place in enumerate(reading.places) if place not in left_out]
        kept.sort(key=lambda row: reading.images[row].id)
        number = np.full(len(reading.images), -1)
        number[kept] = np.arange(len(kept))
        annotations = reading.annotations.renumbered(number)
        unused = annotations.image < 0
        empty = ~unused & ~annotations.shapes.given if reading.needs.masks else np.zeros_like(unused)
        return cls(
            name=str(reading.path),
            images=tuple(reading.images[row] for row in kept),
            categories=tuple(reading.categories),
            annotations=annotations.take(~(unused | empty)),
            has_masks=reading.needs.masks or not len(annotations),
            notes=tuple(
                f"{reading.path}: {note}" for note in (*reading.notes, *_empty(empty), *_nothing(annotations, unused))
            ),
        )

    @cached_property
    def sizes(self) -> Ints:
        """``(images, 2)``: height and width, 0 where the file has none."""
        return np.asarray([(info.height, info.width) for info in self.images], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def masks(self) -> PackedRles:
        """Of all annotations; there must be masks."""
        return self._drawn.result()

    @cached_property
    def _drawn(self) -> Later[PackedRles]:
        shapes, sizes = self.annotations.shapes, self.sizes[self.annotations.image]
        return beside(lambda: shapes.rles(np.arange(len(sizes)), sizes))

    def begin_masks(self) -> Self:
        """Have them drawn beside other work, where there are some."""
        if self.has_masks:
            self._drawn  # noqa: B018  # begins with the first look at it
        return self

    @cached_property
    def reference(self) -> Reference:
        """What results can be about."""
        return Reference(
            name=self.name,
            images={info.id: row for row, info in enumerate(self.images)},
            categories={category.id: row for row, category in enumerate(self.categories)},
            sizes=self.sizes,
        )


GroundTruthSource = str | Path | Mapping[str, Any] | AnnotationFile | GroundTruth
"""A COCO annotation file, what is in it, or what was loaded of it."""
PredictionsSource = str | Path | Sequence[Mapping[str, Any]] | Predictions
"""A COCO results file, the list in it, or what was loaded of it."""


def load_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Reads and checks ground truth, once; ``DataError`` names the file and the entries, as ``dsctool data check``."""
    if isinstance(source, GroundTruth):
        return source
    file = _annotation_file(source)
    reading = read_columns(file, Needs(masks=has_segmentations(file), pictures=False))
    refuse_faults([fault for fault in reading.faults if fault.kind not in _NO_MATTER])
    truth = GroundTruth.of(reading)
    return replace(truth, notes=(*warnings_of(reading.faults), *truth.notes))


_NO_MATTER = ("no images", "no categories")  # then there is nothing to measure, and the numbers say so


def load_predictions(source: PredictionsSource, truth: GroundTruth) -> Predictions:
    """Reads and checks results against the ground truth, once; ``DataError`` names the file and the index."""
    if isinstance(source, Predictions):
        return source
    if isinstance(source, str | Path):
        return read_results(Path(source), truth.images, truth.reference)
    return _predictions(source, truth.reference, "predictions")


def read_results(path: Path, images: Sequence[ImageInfo], reference: Reference) -> Predictions:
    """Reads and checks a results file. images: what is known of those of the ground truth, to tell other numbers by."""
    check_numbering(path, images, reference.name)
    return _predictions(read_list(path), reference, str(path))


def load_both(ground_truth: GroundTruthSource, predictions: PredictionsSource) -> tuple[GroundTruth, Predictions]:
    """The same as one after the other, but files of both are read at the same time where there are cores for it."""
    if isinstance(ground_truth, GroundTruth) or not isinstance(predictions, str | Path):
        truth = load_ground_truth(ground_truth).begin_masks()
        return truth, load_predictions(predictions, truth)
    loading = beside(lambda: load_ground_truth(ground_truth))
    data: object = None
    with suppress(DataError):  # which is raised once the ground truth is known to be in order
        data = read_list(Path(predictions))
    truth = loading.result().begin_masks()
    if data is None:
        return truth, load_predictions(predictions, truth)
    check_numbering(Path(predictions), truth.images, truth.name)
    return truth, _predictions(data, truth.reference, str(predictions))


def _predictions(data: object, reference: Reference, name: str) -> Predictions:
    if not isinstance(data, Sequence) or isinstance(data, str):
        held = [key for key in _LISTS if isinstance(data, Mapping) and isinstance(data.get(key), list)]
        hint = f": write the list that is its {held[0]!r}, alone" if held else ""
        raise DataError(f"{name}: a COCO results file holds a list, this holds {json_kind(data)}{hint}")
    return read_predictions(Entries(data), reference, name)


_LISTS = ("annotations", "results", "predictions", "detections")
"""Where other tools put results in an object."""


def _nothing(annotations: Annotations, unused: Bools) -> list[str]:
    left = annotations.crowd[~unused]
    if not len(left):
        return ["there are no annotations: nothing is measured"]
    return [f"all {len(left)} annotations are crowds (iscrowd is 1): nothing is measured"] if left.all() else []


def _empty(rows: Bools) -> list[str]:
    count = np.count_nonzero(rows)
    return [f"annotations left out, without a mask and with a box without area: {count}"] if count else []


def _annotation_file(source: str | Path | Mapping[str, Any] | AnnotationFile) -> AnnotationFile:
    if isinstance(source, AnnotationFile):
        return source
    if isinstance(source, str | Path):
        return read_annotation_file(Path(source))
    return annotation_file(source, Path("ground truth"))
