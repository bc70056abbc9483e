"""Panoptic fusion: instances and stuff, which overlap, become one map in which every pixel belongs to one segment.

The published heuristic (Kirillov et al. 2019, and ``combine_semantic_and_instance_predictions.py`` of COCO's panoptic
API, by which DetectoRS was measured): instances by descending score, each in the pixels that no better one has, unless
too much of it is covered; then stuff in what is left, unless too little of it is left. The rest is void.

Masks are asked for one by one, so that one of them is held beside the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from dsctool.terms import FusionRule, PixelRule, Size

VOID = 0
"""The id of pixels that belong to no segment."""
MMDET_NMS_IOU = 0.5
MMDET_INSTANCES = 100
_MMDET_EPSILON = 1e-5  # pixels added to the area of a mask

Bitmap = NDArray[np.bool_]
"""``(h, w)``, true where a mask is."""


@dataclass(frozen=True)
class FusionSettings:
    """The constants of the heuristic.

    rule: ``published``. ``detectron2``: stuff by ascending category, not as given. ``mmdet``: only instances that score
        more than ``min_score``, of these the best 100 after one box NMS (IoU 0.5) over all classes.
    min_score: the least score of an instance.
    overlap: an instance is left out when better ones cover more than this share of it.
    stuff_area: stuff with fewer pixels left is void.
    pixel: what gives a pixel to one of the accepted instances that claim it: the higher score, or the larger mask
        probability there.
    """

    rule: FusionRule = "published"
    min_score: float = 0.5
    overlap: float = 0.5
    stuff_area: int = 64 * 64
    pixel: PixelRule = "score"


MIN_SCORES: dict[FusionRule, float] = {"published": 0.5, "detectron2": 0.5, "mmdet": 0.6}
"""``min_score`` of the published variants; their other constants are the same."""


@dataclass(frozen=True)
class Things:
    """The instances of one image.

    scores, categories: of each. boxes: ``(n, 4)``, xyxy in pixels. mask: gives the bitmap of the i-th. probability:
    gives its ``(h, w)`` float32, how probable it is in each pixel; needed for ``pixel: probability`` only.
    """

    scores: Sequence[float]
    categories: Sequence[int]
    boxes: NDArray[np.float32]
    mask: Callable[[int], Bitmap]
    probability: Callable[[int], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Stuff:
    """The stuff of one image. categories: each once. mask: gives the bitmap of the i-th."""

    categories: Sequence[int]
    mask: Callable[[int], Bitmap]


@dataclass(frozen=True)
class FusedSegment:
    """A segment. id: its value in the map. category: of the panoptic categories. score: None for stuff."""

    id: int
    category: int
    score: float | None


@dataclass(frozen=True)
class Fused:
    """A panoptic result.

    ids: ``(h, w)`` int32, the segment of each pixel, or 0. segments: all that have a pixel, numbered from 1 in the
    order in which they were written.
    """

    ids: NDArray[np.int32]
    segments: tuple[FusedSegment, ...]


def labelled_stuff(labels: NDArray[np.integer], categories: Sequence[int]) -> Stuff:
    """Of a map ``(h, w)`` of places in ``categories``; other values, also those behind the last, are no stuff."""
    there = [value for value in np.unique(labels).tolist() if 0 <= value < len(categories)]
    return Stuff([categories[value] for value in there], lambda index: labels == there[index])


def fuse(size: Size, things: Things, stuff: Stuff, settings: FusionSettings) -> Fused:
    """One image's instances and stuff, with masks of ``size`` ``(h, w)``, as one map."""
    ids = np.zeros(size, dtype=np.int32)
    written: list[tuple[int, float | None]] = []
    most = np.zeros(size if settings.pixel == "probability" else (0, 0), dtype=np.float32)
    for row in _candidates(things, settings):
        mask = things.mask(row)
        area = np.count_nonzero(mask)
        if area == 0:
            continue
        covered = np.count_nonzero(mask & (ids != VOID))
        if covered / (area + (_MMDET_EPSILON if settings.rule == "mmdet" else 0)) > settings.overlap:
            continue
        free = ids == VOID
        if settings.pixel == "probability":
            assert things.probability is not None
            probability = things.probability(row)
            free |= probability > most
            np.copyto(most, probability, where=mask & free)
        written.append((things.categories[row], things.scores[row]))
        ids[mask & free] = len(written)
    order = range(len(stuff.categories))
    for row in sorted(order, key=lambda row: stuff.categories[row]) if settings.rule == "detectron2" else order:
        left = stuff.mask(row) & (ids == VOID)
        if np.count_nonzero(left) >= max(settings.stuff_area, 1):
            written.append((stuff.categories[row], None))
            ids[left] = len(written)
    return _numbered(ids, written)


def _candidates(things: Things, settings: FusionSettings) -> list[int]:
    """The instances that are looked at, the best first; among equals, as given."""
    order = sorted(range(len(things.scores)), key=lambda row: -things.scores[row])
    if settings.rule != "mmdet":
        return [row for row in order if things.scores[row] >= settings.min_score]
    order = [row for row in order if things.scores[row] > settings.min_score]
    boxes = torch.from_numpy(things.boxes[order].astype(np.float32))
    falling = -torch.arange(len(order), dtype=torch.float32)  # in this order, whatever the scores' last digits
    return [order[place] for place in nms(boxes, falling, MMDET_NMS_IOU).tolist()][:MMDET_INSTANCES]


def _numbered(ids: NDArray[np.int32], written: Sequence[tuple[int, float | None]]) -> Fused:
    """Without segments of which later ones took every pixel."""
    there = np.flatnonzero(np.bincount(ids.ravel(), minlength=len(written) + 1)[1:]).tolist()
    segments = tuple(FusedSegment(number, *written[place]) for number, place in enumerate(there, start=1))
    if len(there) < len(written):
        numbers = np.zeros(len(written) + 1, dtype=np.int32)
        numbers[np.array(there, dtype=np.int64) + 1] = np.arange(1, len(there) + 1)
        ids = numbers[ids]
    return Fused(ids, segments)
