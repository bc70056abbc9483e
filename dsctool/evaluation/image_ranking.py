"""Which images to annotate next: where a model is least certain, or two models disagree most.

**Uncertainty** of an image: if a score is the probability that an instance is right, keeping those from 0.5 on makes
``sum(min(s, 1 - s))`` mistakes. This is divided by the number of instances to expect, ``sum(s)``, or by 1 where that is
less: from 0, all scores near 0 or 1, to 1. Scores below a floor do not count.

**Disagreement** of two models: ``1 - sum(IoU of pairs) / (pairs + (alone in one + alone in the other) / 2)``, of
instances that score at least a threshold, paired one to one where class and place agree (IoU from 0.5): 1 less the
panoptic quality of one against the other. From 0, the same masks, to 1, nothing in common; 0 where neither finds any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np

from dsctool.entries import Entries, read_list
from dsctool.errors import DataError
from dsctool.evaluation.instance_matching import InstanceColumns, match_instances
from dsctool.evaluation.numbering import numbering_of
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth, load_ground_truth, load_predictions
from dsctool.files import read_json
from dsctool.rle import Floats, Ints

FLOOR = 0.1
"""Detectors give many results of lower scores, which say nothing."""
THRESHOLD = 0.3
"""Score of what is said to be found."""
PAIRED = 0.5
"""IoU of a pair."""


@dataclass(frozen=True, eq=False)
class FoundInImages:
    """What a model found. table: the images and the classes, without annotations."""

    table: GroundTruth
    predictions: Predictions

    @classmethod
    def of(
        cls, images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], results: Sequence[Any]
    ) -> Self:
        """Entries of COCO files, and a model's results."""
        table = load_ground_truth({"images": images, "annotations": [], "categories": categories})
        return cls(table, load_predictions(results, table))

    @classmethod
    def read(cls, path: Path, table: Path | None = None) -> Self:
        """A COCO results file. table: a COCO file with its images; None: ``images.json`` beside it, where that is.

        Without either, images and classes are called by their ids.

        Raises:
            DataError: a file cannot be read, or the table lacks images that the results are about.
        """
        results = read_list(path)
        if not isinstance(results, Sequence) or isinstance(results, str):
            raise DataError(f"{path}: is no COCO results file, which holds a list")
        named = table or numbering_of(path)
        if named is None:
            entries = [entry for entry in Entries(results) if isinstance(entry, Mapping)]
            sizes = {entry.get("image_id"): _size(entry) for entry in entries}
            kinds = {entry.get("category_id") for entry in entries}
            images: Any = [{"id": id_, "file_name": str(id_), **size} for id_, size in sizes.items()]
            categories: Any = [{"id": id_, "name": str(id_)} for id_ in kinds]
        else:
            content = read_json(named)
            content = content if isinstance(content, Mapping) else {}
            images, categories = content.get("images", []), content.get("categories", [])
        known = load_ground_truth({"images": images, "annotations": [], "categories": categories})
        return cls(known, load_predictions(path, replace(known, name=str(named or path))))


def _size(entry: Mapping[str, Any]) -> dict[str, object]:
    mask = entry.get("segmentation")
    size = mask.get("size") if isinstance(mask, Mapping) else None
    return {"height": size[0], "width": size[1]} if isinstance(size, list) and len(size) == 2 else {}


@dataclass(frozen=True)
class RankedImage:
    """An image. score: by which it was ranked. instances, against: what each model finds in it."""

    file_name: str
    id: int | str
    score: float
    uncertainty: float
    disagreement: float | None
    instances: int
    against: int | None


def rank_images(
    found: FoundInImages, against: FoundInImages | None = None, *, floor: float = FLOOR, threshold: float = THRESHOLD
) -> list[RankedImage]:
    """All images, those to look at first: by disagreement where there is another model, else by uncertainty.

    Raises:
        DataError: the two know no image in common.
    """
    images = found.table.images
    uncertain = uncertainties(found.predictions, len(images), floor=floor)
    counts = _counts(found.predictions, len(images), threshold)
    others, disagree, rows = None, None, list(range(len(images)))
    if against is not None:
        place = _places(found.table, against.table)
        rows_there = np.asarray([place.get(row, -1) for row in rows])
        others = _counts(against.predictions, len(against.table.images), threshold)
        disagree = disagreements(found, against, rows_there, threshold=threshold)
        rows = [row for row in rows if row in place]
    ranked = [
        RankedImage(
            file_name=images[row].file_name,
            id=images[row].id,
            score=round(float((uncertain if disagree is None else disagree)[row]), 4),
            uncertainty=round(float(uncertain[row]), 4),
            disagreement=None if disagree is None else round(float(disagree[row]), 4),
            instances=int(counts[row]),
            against=None if others is None else int(others[rows_there[row]]),
        )
        for row in rows
    ]
    return sorted(ranked, key=lambda image: (-image.score, -image.uncertainty, image.file_name))


def uncertainties(found: Predictions, images: int, *, floor: float = FLOOR) -> Floats:
    """``(images,)``, as defined above."""
    rows = found.score >= floor
    score, image = found.score[rows], found.image[rows]
    mistakes = np.bincount(image, weights=np.minimum(score, 1 - score), minlength=images)
    return mistakes / np.maximum(np.bincount(image, weights=score, minlength=images), 1)


def disagreements(ours: FoundInImages, theirs: FoundInImages, places: Ints, *, threshold: float = THRESHOLD) -> Floats:
    """``(images,)`` of ours, as defined above. places: ``(images,)``, which image of theirs each is, or -1."""
    names = list(dict.fromkeys(each.name for side in (ours, theirs) for each in side.table.categories))
    images = np.full(len(theirs.table.images), -1)
    images[places[places >= 0]] = np.flatnonzero(places >= 0)
    numbers = np.where(places >= 0, np.arange(len(places)), -1), images
    sides = [_columns(side, number, names, threshold) for side, number in zip((ours, theirs), numbers, strict=True)]
    matches = match_instances(*sides, at_least=PAIRED, same_class=True)
    count = len(places)
    overlap = np.bincount(sides[0].image[matches.ours], weights=matches.iou, minlength=count)
    total = sum(np.bincount(side.image, minlength=count) for side in sides) / 2  # a pair is in both
    return 1 - np.divide(overlap, total, out=np.ones(count), where=total > 0)


def _columns(side: FoundInImages, image: Ints, names: Sequence[str], threshold: float) -> InstanceColumns:
    """What scores enough in the images that both know, in common numbers of images and classes."""
    found = side.predictions
    rows = np.flatnonzero((found.score >= threshold) & (image[found.image] >= 0))
    columns = InstanceColumns.of_predictions(found, rows)
    label = np.asarray([names.index(each.name) for each in side.table.categories], dtype=np.int64)
    return replace(columns, image=image[columns.image], label=label[columns.label])


def _counts(found: Predictions, images: int, threshold: float) -> Ints:
    return np.bincount(found.image[found.score >= threshold], minlength=images)


def _places(ours: GroundTruth, theirs: GroundTruth) -> dict[int, int]:
    """Which image of theirs each of ours is: by file name, without folders where no whole name is common."""
    for name in (lambda path: path, lambda path: PurePath(path).name):
        known = {name(info.file_name): row for row, info in enumerate(theirs.images)}
        found = {
            row: known[name(info.file_name)] for row, info in enumerate(ours.images) if name(info.file_name) in known
        }
        if found:
            return found
    raise DataError("the two have no image in common, by file name: run both on the same images")
