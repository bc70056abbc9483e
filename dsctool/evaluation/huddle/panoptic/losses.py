"""How much panoptic fusion loses: true things that an instance has, and the fused result has no more.

A true thing is *found* where an instance of its category that scores ``min_score`` or more matches it: IoU above 0.5,
void taken off the union as for PQ. After fusion it is *kept* where a segment matches it. Else it is *dropped* where the
instance of the largest IoU has no segment at all, because better ones cover too much of it, and *cut* where it has one
that is too small now.

Stuff takes no pixel from an instance, so that things are fused without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsctool.data.panoptic import Ids, PanopticFile, PanopticImage, Segment, places_of
from dsctool.data.panoptic_rules import ImageId
from dsctool.errors import DataError
from dsctool.evaluation.huddle.panoptic.measuring import numbers_of
from dsctool.evaluation.huddle.panoptic.schema import FusionReport, OverlapLosses, PixelLosses
from dsctool.evaluation.huddle.panoptic.things import FoundThings, instances_of, thing_ids
from dsctool.evaluation.panoptic import MATCHED_ABOVE, pair_iou, pair_segments
from dsctool.evaluation.tables import Bools, Floats, Ints, TruthTable
from dsctool.models.panoptic import Fused, FusionSettings, Stuff, Things, fuse
from dsctool.terms import PixelRule, Progress

_NO_STUFF = Stuff([], lambda index: np.zeros((0, 0), dtype=np.bool_))


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Of the ``m`` things of an image, under a pixel rule: which an instance matches, and whether the best of these has
    a segment, each ``(m,)``. fused: what the result has of them."""

    found: Bools
    there: Bools
    fused: FoundThings


def fusion_losses(
    truth: PanopticFile,
    table: TruthTable,
    overlaps: Floats,
    instances: Callable[[ImageId], Things],
    *,
    settings: FusionSettings,
    above: Sequence[float],
    pixels: Sequence[PixelRule] = ("score",),
    progress: Progress | None = None,
) -> FusionReport:
    """Fuse the instances of every image, one by one, and count what became of the true things.

    table: of the true things; overlaps: ``(m,)``, the largest of each. instances: of an image, in the map's size; they
    know their probabilities where ``pixels``, the rules to measure, has ``probability``. above: ascending overlaps that
    divide the things.

    Raises:
        DataError: the ground truth's PNG is broken, or an area in its file cannot be.
    """
    things = thing_ids(truth)
    outcomes: dict[PixelRule, list[_Outcome]] = {pixel: [] for pixel in pixels}
    for number, (image_id, entry) in enumerate(truth.entries.items(), start=1):
        ids = truth.ids(entry)
        try:
            image = _Image.of(entry, ids, instances(image_id), things, settings.min_score)
            for pixel in pixels:
                outcomes[pixel].append(image.fused(replace(settings, pixel=pixel)))
        except DataError as error:
            raise DataError(f"{truth.path}: image {image_id}: {error}") from None
        if progress is not None:
            progress("fusing instances", number, len(truth.entries))
    return FusionReport(
        rule=settings.rule,
        min_score=settings.min_score,
        overlap=settings.overlap,
        losses=[_losses(pixel, each, table, overlaps, things, above) for pixel, each in outcomes.items()],
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """An image before fusion. places: of its things among the segments. best: ``(m,)``, the instance that matches each
    best, or -1."""

    entry: PanopticImage
    ids: Ids
    instances: Things
    things: Ints
    places: list[int]
    best: Ints

    @classmethod
    def of(cls, entry: PanopticImage, ids: Ids, instances: Things, things: Ints, min_score: float) -> _Image:
        segments = entry.segments
        places = instances_of(entry, things)
        where = places_of(ids, [each.id for each in segments])
        best = np.full(len(segments), -1)
        most = np.full(len(segments), MATCHED_ABOVE)
        for row, (score, category) in enumerate(zip(instances.scores, instances.categories, strict=True)):
            if score < min_score:
                continue
            shared = np.bincount(where[instances.mask(row)], minlength=2 + len(segments))[:, None]
            near = np.array([each for each in places if segments[each].category_id == category and shared[2 + each]])
            near = near.astype(np.int64)
            iou = pair_iou(segments, np.pad(shared, ((0, 0), (2, 0))), near, np.zeros_like(near))
            better = near[iou > most[near]]
            best[better], most[better] = row, iou[iou > most[near]]
        return cls(entry, ids, instances, things, places, best[places])

    def fused(self, settings: FusionSettings) -> _Outcome:
        """What becomes of it. Instances are fused with their numbers for categories, by which segments name them."""
        numbered = replace(self.instances, categories=range(len(self.instances.scores)))
        result: Fused = fuse(self.ids.shape, numbered, _NO_STUFF, settings)
        segments = [Segment(each.id, self.instances.categories[each.category]) for each in result.segments]
        pairs = pair_segments(self.entry.segments, self.ids, segments, result.ids)
        there = np.isin(self.best, [each.category for each in result.segments])
        return _Outcome(self.best >= 0, there, FoundThings.of(pairs, self.places, self.things))


def _losses(
    pixel: PixelRule,
    outcomes: Sequence[_Outcome],
    table: TruthTable,
    overlaps: Floats,
    things: Ints,
    above: Sequence[float],
) -> PixelLosses:
    none = np.zeros(0, dtype=bool)
    found = np.concatenate([none, *(each.found for each in outcomes)])
    there = np.concatenate([none, *(each.there for each in outcomes)])
    fused = FoundThings.join([each.fused for each in outcomes], things)
    matched = ~np.isnan(fused.iou)
    counts = fused.counts(table, np.ones(len(overlaps), dtype=bool))

    def row(low: float, high: float | None) -> OverlapLosses:
        its = (overlaps > low) & (overlaps <= (np.inf if high is None else high))

        def count(which: Bools) -> int:
            return int(np.count_nonzero(which & its))

        return OverlapLosses(
            above=low,
            up_to=high,
            true=count(its),
            found=count(found),
            kept=count(found & matched),
            dropped=count(found & ~matched & ~there),
            cut=count(found & ~matched & there),
            gained=count(~found & matched),
        )

    rows = [row(low, high) for low, high in zip(above, [*above[1:], None], strict=True)]
    return PixelLosses(pixel=pixel, things=numbers_of(counts.sum(axis=0)), overlaps=rows)
