"""Panoptic quality, as panopticapi counts it.

A segment of the ground truth and one of the results match where they are of one category and their IoU is above 0.5,
so that every segment has one partner at most. Of a category, PQ is the sum of the matches' IoU over
``TP + FP / 2 + FN / 2``; SQ is the mean IoU of the matches, and RQ is ``TP`` over the same. PQ = SQ * RQ holds for one
category, not for means over several.

What panopticapi does where several ways were possible:

- the area of a true segment is what its JSON file says; that of a predicted one is counted in the PNG;
- void of the ground truth is taken off the union, pixels of crowds are not;
- a prediction without partner is no FP where more than half of it is void or a crowd of its category; of several
  crowds of one category in an image, only the last of the file counts;
- pixels of the ground truth with an id that its file does not list are neither void nor a segment's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dsctool.cores import on_all_cores
from dsctool.data.panoptic import (
    Ids,
    PanopticCategory,
    PanopticFile,
    Segment,
    places_of,
    read_panoptic,
    run_starts,
)
from dsctool.data.panoptic_rules import ImageId
from dsctool.errors import DataError
from dsctool.terms import Progress

MATCHED_ABOVE = 0.5
"""IoU of a match; and the share of void and crowd above which a prediction without partner is left out."""

_WORTH = 10
"""Images for which a further process pays."""
_TOGETHER = 250
"""Images between two words of progress: seconds on one core."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class CategoryQuality:
    """What was found of a category: matches, segments without partner, and the sum of the matches' IoU."""

    id: int
    name: str
    is_thing: bool
    tp: int
    fp: int
    fn: int
    iou: float

    @property
    def counted(self) -> bool:
        """Whether there is something to measure."""
        return self.tp + self.fp + self.fn > 0

    @property
    def pq(self) -> float:
        """Panoptic quality, 0 to 1; -1 where there is nothing to measure."""
        return self.iou / self._segments if self.counted else -1.0

    @property
    def sq(self) -> float:
        """Segmentation quality, the same way; 0 where nothing matches."""
        return self.iou / max(self.tp, 1) if self.counted else -1.0

    @property
    def rq(self) -> float:
        """Recognition quality, the same way."""
        return self.tp / self._segments if self.counted else -1.0

    @property
    def _segments(self) -> float:
        return self.tp + self.fp / 2 + self.fn / 2


@dataclass(frozen=True)
class GroupQuality:
    """Means over the ``n`` categories that have something to measure, 0 to 1; -1 where ``n`` is 0."""

    pq: float
    sq: float
    rq: float
    n: int

    @classmethod
    def of(cls, categories: Iterable[CategoryQuality]) -> Self:
        """The means of those that have something to measure."""
        counted = [each for each in categories if each.counted]
        if not counted:
            return cls(-1.0, -1.0, -1.0, 0)
        pq, sq, rq = np.array([(each.pq, each.sq, each.rq) for each in counted]).mean(0).tolist()
        return cls(pq, sq, rq, len(counted))


@dataclass(frozen=True)
class PanopticQuality:
    """Everything one evaluation gives.

    categories: all of the ground truth's, by ascending id. images: how many were compared. notes: what is odd, for
    people.
    """

    all: GroupQuality
    things: GroupQuality
    stuff: GroupQuality
    categories: tuple[CategoryQuality, ...]
    images: int
    notes: tuple[str, ...]


def evaluate_panoptic(
    ground_truth: str | Path, predictions: str | Path, *, progress: Progress | None = None
) -> PanopticQuality:
    """PQ, SQ and RQ of results, exactly panopticapi's.

    Both are JSON files of COCO's panoptic format, each with its PNGs in the folder of the same name. Every image that
    is annotated must be in the results; others in the results are not looked at.

    Raises:
        DataError: a file is missing or broken; an image has no prediction, or one of another size; a predicted segment
            has no pixels, pixels have an id that no segment has, or a category is unknown. The message names the file,
            the image and the segment.
    """
    truth = read_panoptic(Path(ground_truth))
    found = read_panoptic(Path(predictions), results=True)
    check_results(truth, found)
    ids = list(truth.entries)
    parts = []
    for first in range(0, len(ids), _TOGETHER):
        some = ids[first : first + _TOGETHER]
        parts += on_all_cores(partial(_match_images, truth, found, some), len(some), worth=_WORTH)
        if progress is not None:
            progress("comparing images", first + len(some), len(ids))
    unused = len(found.entries.keys() - truth.entries.keys())
    notes = [f"{found.path}: {unused} images are not in the ground truth, and not looked at"] if unused else []
    return quality_of(truth, Matching.join(parts), notes=notes)


# --- matching ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Matching:
    """What came of the segments of some images, by category id, in the order of the images.

    tp: ``(m,)`` categories of the matches. iou: ``(m,)``. fp, fn: categories of predicted and of true segments without
    partner. other_areas: how many true segments have another area in their file than in their PNG. unlisted: how many
    pixels of the ground truth have an id that their file does not list.
    """

    tp: Ints
    iou: Floats
    fp: Ints
    fn: Ints
    other_areas: int
    unlisted: int

    @classmethod
    def of(cls, pairs: SegmentPairs) -> Self:
        """What came of one image."""
        return cls(
            tp=pairs.category[pairs.rows],
            iou=pairs.iou,
            fp=pairs.found_category[pairs.alone],
            fn=pairs.category[pairs.missed],
            other_areas=pairs.other_areas,
            unlisted=pairs.unlisted,
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(
            tp=np.concatenate([nothing, *(part.tp for part in parts)]),
            iou=np.concatenate([np.empty(0), *(part.iou for part in parts)]),
            fp=np.concatenate([nothing, *(part.fp for part in parts)]),
            fn=np.concatenate([nothing, *(part.fn for part in parts)]),
            other_areas=sum(part.other_areas for part in parts),
            unlisted=sum(part.unlisted for part in parts),
        )


@dataclass(frozen=True, eq=False)
class SegmentPairs:
    """The segments of an image, ``m`` true and ``n`` found ones, and which of them match.

    category, found_category: ``(m,)`` and ``(n,)`` category ids. rows, columns, iou: ``(p,)``, places of the true and
    of the found segment of each match, and its IoU. missed, alone: ``(m,)`` and ``(n,)``, which true segment is an FN,
    and which found one an FP. other_areas, unlisted: as in :class:`Matching`.
    """

    category: Ints
    found_category: Ints
    rows: Ints
    columns: Ints
    iou: Floats
    missed: Bools
    alone: Bools
    other_areas: int
    unlisted: int


def pair_segments(truth: Sequence[Segment], truth_ids: Ids, found: Sequence[Segment], found_ids: Ids) -> SegmentPairs:
    """Match the segments of an image. The maps are ``(h, w)``, as :func:`dsctool.data.panoptic.read_ids` gives them.

    Raises:
        DataError: the results' map and list disagree, or an area of the ground truth cannot be; the message names the
            segment alone.
    """
    pixels = _overlaps(truth, truth_ids, found, found_ids)
    _check_pixels(found, found_ids, pixels.sum(0))
    shared, void, found_area = pixels[2:, 2:], pixels[1, 2:], pixels[:, 2:].sum(0)
    crowd = np.array([segment.is_crowd for segment in truth], dtype=np.bool_)
    category, found_category = _categories(truth), _categories(found)

    rows, columns = np.nonzero((shared > 0) & (category[:, None] == found_category) & ~crowd[:, None])
    iou = pair_iou(truth, pixels, rows, columns)
    matched = iou > MATCHED_ABOVE
    rows, columns = rows[matched], columns[matched]

    missed = ~crowd
    missed[rows] = False
    last_crowd = {category[row]: row for row in np.flatnonzero(crowd)}
    ignored = void.copy()
    for column, each in enumerate(found_category):
        if each in last_crowd:
            ignored[column] += shared[last_crowd[each], column]
    alone = ignored / found_area <= MATCHED_ABOVE
    alone[columns] = False
    return SegmentPairs(
        category=category,
        found_category=found_category,
        rows=rows,
        columns=columns,
        iou=iou[matched],
        missed=missed,
        alone=alone,
        other_areas=int(np.count_nonzero(pixels[2:].sum(1) != [segment.area for segment in truth])),
        unlisted=int(pixels[0].sum()),
    )


def pair_iou(truth: Sequence[Segment], pixels: Ints, rows: Ints, columns: Ints) -> Floats:
    """``(p,)``: IoU of true and found segments, void taken off the union.

    pixels: ``(2 + m, 2 + n)``, what they share; before the segments come unlisted ids, and void. rows, columns:
    ``(p,)`` places of segments that share pixels.

    Raises:
        DataError: an area of the ground truth cannot be.
    """
    area = np.array([segment.area for segment in truth], dtype=np.float64)
    inter = pixels[2:, 2:][rows, columns]
    union = pixels[:, 2:].sum(0)[columns] + area[rows] - inter - pixels[1, 2:][columns]
    for row in rows[union <= 0]:
        raise DataError(f"segment {truth[row].id} of the ground truth has more pixels than its area, {truth[row].area}")
    return np.asarray(inter / union)


def _overlaps(truth: Sequence[Segment], truth_ids: Ids, found: Sequence[Segment], found_ids: Ids) -> Ints:
    """``(2 + m, 2 + n)`` pixels that a true and a found segment share; before the segments unlisted ids, and void."""
    starts = run_starts(truth_ids, found_ids)
    lengths = np.diff(starts, append=truth_ids.size)
    rows = places_of(truth_ids.ravel()[starts], [segment.id for segment in truth])
    columns = places_of(found_ids.ravel()[starts], [segment.id for segment in found])
    shape = (2 + len(truth), 2 + len(found))
    counts = np.bincount(rows * shape[1] + columns, weights=lengths, minlength=shape[0] * shape[1])
    return counts.astype(np.int64).reshape(shape)


def _categories(segments: Sequence[Segment]) -> Ints:
    return np.array([segment.category_id for segment in segments], dtype=np.int64)


def _check_pixels(found: Sequence[Segment], ids: Ids, pixels: Ints) -> None:
    if pixels[0]:
        unlisted = ids[places_of(ids.ravel(), [segment.id for segment in found]).reshape(ids.shape) == 0][0]
        raise DataError(f"segment {unlisted} is in the PNG, and not in segments_info")
    for segment, count in zip(found, pixels[2:], strict=True):
        if not count:
            raise DataError(f"segment {segment.id} is in segments_info, and has no pixels in the PNG: leave it out")


def _match_images(truth: PanopticFile, found: PanopticFile, ids: Sequence[ImageId], part: slice) -> Matching:
    return Matching.join([Matching.of(pair_image(truth, found, image_id)) for image_id in ids[part]])


def pair_image(truth: PanopticFile, found: PanopticFile, image_id: ImageId) -> SegmentPairs:
    """Match the segments of an image of two files that :func:`check_results` found to fit; raises as that does."""
    result = found.entries[image_id]
    ids = found.ids(result)
    return pair_result(truth, image_id, result.segments, ids, png=found.folder / result.file_name, where=found.path)


def pair_result(
    truth: PanopticFile, image_id: ImageId, segments: Sequence[Segment], ids: Ids, *, png: object, where: object
) -> SegmentPairs:
    """Match the segments that were found in an image, and their map ``(h, w)``, with its truth.

    png, where: what errors call the map, and what they begin with.

    Raises:
        DataError: the map has another size, or :func:`pair_segments` refuses it.
    """
    entry = truth.entries[image_id]
    truth_ids = truth.ids(entry)
    if truth_ids.shape != ids.shape:
        (height, width), (other_height, other_width) = truth_ids.shape, ids.shape
        raise DataError(
            f"{png}: is {other_width} x {other_height} pixels, the ground truth of image "
            f"{image_id} is {width} x {height} (width x height)"
        )
    try:
        return pair_segments(entry.segments, truth_ids, segments, ids)
    except DataError as error:
        raise DataError(f"{where}: image {image_id}: {error}") from None


# --- results ----------------------------------------------------------------------------------------


def check_results(truth: PanopticFile, found: PanopticFile) -> None:
    """Refuse results that lack an image of the ground truth or know other categories, by :class:`DataError`."""
    known = {category.id for category in truth.categories}
    for image_id in truth.entries:
        if image_id not in found.entries:
            raise DataError(f"{found.path}: image {image_id} of {truth.path} has no entry in annotations")
        for segment in found.entries[image_id].segments:
            if segment.category_id not in known:
                raise DataError(
                    f"{found.path}: image {image_id}: segment {segment.id}: unknown category: category_id "
                    f"{segment.category_id} is no category of {truth.path}"
                )


def quality_of(truth: PanopticFile, matching: Matching, *, notes: Sequence[str] = ()) -> PanopticQuality:
    """The numbers of all images of ``truth``, matched. notes: what else is odd."""
    categories = tuple(_category_quality(category, matching) for category in truth.categories)
    things = GroupQuality.of(each for each in categories if each.is_thing)
    stuff = GroupQuality.of(each for each in categories if not each.is_thing)
    empty = [f"no segment of {name} counts" for name, each in (("things", things), ("stuff", stuff)) if not each.n]
    return PanopticQuality(
        all=GroupQuality.of(categories),
        things=things,
        stuff=stuff,
        categories=categories,
        images=len(truth.entries),
        notes=(*(f"-1: {each}" for each in empty), *_notes(truth, matching), *notes),
    )


def _category_quality(category: PanopticCategory, matching: Matching) -> CategoryQuality:
    its = matching.tp == category.id
    return CategoryQuality(
        id=category.id,
        name=category.name,
        is_thing=category.is_thing,
        tp=int(np.count_nonzero(its)),
        fp=int(np.count_nonzero(matching.fp == category.id)),
        fn=int(np.count_nonzero(matching.fn == category.id)),
        iou=float(matching.iou[its].sum()),
    )


def _notes(truth: PanopticFile, matching: Matching) -> Iterable[str]:
    if matching.other_areas:
        yield (
            f"{truth.path}: {matching.other_areas} segments have another area in the file than in their PNG; "
            "the file's counts, as in COCO's evaluation"
        )
    if matching.unlisted:
        yield f"{truth.path}: {matching.unlisted} pixels of its PNGs have ids that the file does not list"
