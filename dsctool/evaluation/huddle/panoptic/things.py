"""The things of panoptic files: as a table, for what is defined over tables, and which of them results found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from dsctool.cores import on_all_cores
from dsctool.data.panoptic import PanopticFile, PanopticImage, Segment, segment_entries
from dsctool.data.panoptic_rules import ImageId
from dsctool.evaluation.panoptic import SegmentPairs, check_results, pair_image
from dsctool.evaluation.tables import Bools, Floats, Ints, TruthTable
from dsctool.terms import Progress

_WORTH = 10  # images for which a further process pays
_TOGETHER = 250  # images between two words of progress


def thing_ids(truth: PanopticFile) -> Ints:
    """Category ids, ascending."""
    return np.array([each.id for each in truth.categories if each.is_thing], dtype=np.int64)


def instances_of(entry: PanopticImage, things: Ints) -> list[int]:
    """Places of the segments that are things and no crowds, by category, then as in the file."""
    known = set(things.tolist())
    own = [place for place, each in enumerate(entry.segments) if each.category_id in known and not each.is_crowd]
    return sorted(own, key=lambda place: entry.segments[place].category_id)


def things_table(truth: PanopticFile) -> TruthTable:
    """All things that are no crowds, image by image as in the file, each in the order of :func:`instances_of`.

    Boxes are the file's; where an image has a thing without, they are counted in its PNG. There are no masks.
    """
    things = thing_ids(truth)
    names = {each.id: each.name for each in truth.categories}
    entries = list(truth.entries.values())
    places = [instances_of(entry, things) for entry in entries]
    segments = [entry.segments[place] for entry, own in zip(entries, places, strict=True) for place in own]
    boxes = [box for entry, own in zip(entries, places, strict=True) for box in _boxes(truth, entry, own)]
    return TruthTable(
        name=str(truth.path),
        images=tuple(truth.entries),
        categories=tuple(things.tolist()),
        names=tuple(names[each] for each in things.tolist()),
        ids=tuple(each.id for each in segments),
        image=np.repeat(np.arange(len(entries)), [len(own) for own in places]),
        category=np.searchsorted(things, np.array([each.category_id for each in segments], dtype=np.int64)),
        crowd=np.zeros(len(segments), dtype=bool),
        area=np.array([each.area for each in segments], dtype=np.float64),
        counted=np.ones(len(segments), dtype=bool),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        masks=None,
    )


def _boxes(truth: PanopticFile, entry: PanopticImage, places: Sequence[int]) -> Iterable[object]:
    segments = [entry.segments[place] for place in places]
    if all(each.bbox is not None for each in segments):
        return [each.bbox for each in segments]
    counted = _counted_boxes(truth, entry, segments)
    return [counted.get(each.id, (0.0, 0.0, 0.0, 0.0)) for each in segments]


def _counted_boxes(truth: PanopticFile, entry: PanopticImage, segments: Sequence[Segment]) -> dict[object, object]:
    ids = truth.ids(entry)
    own = np.where(np.isin(ids, [each.id for each in segments]), ids, 0)
    listed = [(each.id, each.category_id) for each in segments]
    return {each["id"]: each["bbox"] for each in segment_entries(own, listed, where=f"image {entry.image_id}:")}


@dataclass(frozen=True, eq=False)
class FoundThings:
    """What results found of a table's ``m`` things, and what else.

    iou: ``(m,)``, of the match; NaN without one. wrong: ``(images, categories)``, predicted things that are FP.
    """

    iou: Floats
    wrong: Ints

    @classmethod
    def of(cls, pairs: SegmentPairs, places: Sequence[int], things: Ints) -> Self:
        """In one image, whose things are at ``places`` of its segments. things: category ids."""
        iou = np.full(len(pairs.category), np.nan)
        iou[pairs.rows] = pairs.iou
        alone = pairs.found_category[pairs.alone]
        return cls(iou[list(places)], np.count_nonzero(alone[:, None] == things, axis=0)[None])

    @classmethod
    def join(cls, parts: Sequence[Self], things: Ints) -> Self:
        """One image after the other."""
        nothing = np.zeros((0, len(things)), dtype=np.int64)
        return cls(
            iou=np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
            wrong=np.concatenate([nothing, *(part.wrong for part in parts)]),
        )

    def counts(self, table: TruthTable, wanted: Bools) -> Floats:
        """``(images, categories, 4)``: TP, FP, FN and the sum of IoU, of the things ``wanted`` ``(m,)`` alone.

        The others count neither way, nor does what matches one of them. What matches nothing is FP.
        """
        shape = self.wrong.shape
        key = table.image * shape[1] + table.category

        def summed(rows: Bools, weights: Floats | None = None) -> Floats:
            sums = np.bincount(key[rows], None if weights is None else weights[rows], minlength=shape[0] * shape[1])
            return sums.reshape(shape).astype(np.float64)

        matched = ~np.isnan(self.iou)
        right = wanted & matched
        return np.stack([summed(right), self.wrong, summed(wanted & ~matched), summed(right, self.iou)], axis=-1)


def find_things(truth: PanopticFile, found: PanopticFile, tell: Progress) -> FoundThings:
    """Match the segments of all images, as ``eval --panoptic`` does.

    Raises:
        DataError: as :func:`dsctool.evaluation.panoptic.evaluate_panoptic`.
    """
    check_results(truth, found)
    ids, things = list(truth.entries), thing_ids(truth)
    parts: list[FoundThings] = []
    for first in range(0, len(ids), _TOGETHER):
        some = ids[first : first + _TOGETHER]
        parts += on_all_cores(partial(_find, truth, found, things, some), len(some), worth=_WORTH)
        tell("comparing images", first + len(some), len(ids))
    return FoundThings.join(parts, things)


def _find(truth: PanopticFile, found: PanopticFile, things: Ints, ids: Sequence[ImageId], part: slice) -> FoundThings:
    each = [
        FoundThings.of(pair_image(truth, found, id_), instances_of(truth.entries[id_], things), things)
        for id_ in ids[part]
    ]
    return FoundThings.join(each, things)
