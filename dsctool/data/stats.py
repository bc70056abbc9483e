"""What a split holds, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from dsctool.data.columns import Annotations, has_segmentations, read_columns
from dsctool.data.faults import exclusions
from dsctool.data.layout import SplitFiles
from dsctool.data.object_sizes import ObjectSizes, Resize
from dsctool.data.records import Category, read_annotation_file
from dsctool.data.rules import Needs
from dsctool.data.usage import Usage
from dsctool.ops.boxes import box_iou
from dsctool.terms import LARGE_AREA, MEDIUM_AREA

OVERLAPS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""An instance is counted when its largest box IoU with another one of its image is greater than this."""


CANVASES: dict[str, Resize] = {"published": (800, 1333), "tiny": (256, 426)}
"""Limits of the shorter and longer side to which configurations resize images, in pixels."""


@dataclass(frozen=True)
class ClassCount:
    """How often a category occurs, crowd regions not counted."""

    id: int
    name: str
    instances: int
    images: int


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some numbers."""

    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class SplitStats:
    """A split in numbers; faulty entries are left out.

    instances: annotations that are not crowds. crowds: crowd regions.
    small, medium, large: instances by area, with COCO's limits of 32 x 32 and 96 x 96 pixels.
    below_8_pixels: instances that training uses and that are too small to be found well, by canvas of :data:`CANVASES`.
    canvas_for_8_pixels: limits of the same ratio with which nine of ten are not.
    overlapping: number of instances per value of :data:`OVERLAPS`, any class.
    overlapping_same_class: the same, counting only other ones of an instance's own class.
    faults: entries left out, or crippled.
    unused: instances that training leaves out: without area, narrower than a pixel, or outside their image.
    """

    name: str
    images: int
    images_without_instances: int
    instances: int
    crowds: int
    small: int
    medium: int
    large: int
    below_8_pixels: dict[str, int]
    canvas_for_8_pixels: dict[str, Resize]
    instances_per_image: Spread
    widths: Spread
    heights: Spread
    landscape_images: int
    overlapping: list[int]
    overlapping_same_class: list[int]
    classes: list[ClassCount]
    faults: int
    unused: int


def describe(files: SplitFiles) -> SplitStats:
    """Count what a split holds; the image files are not opened.

    Raises:
        DataError: the annotation file cannot be used at all.
    """
    content = read_annotation_file(files.annotations)
    reading = read_columns(content, Needs(masks=has_segmentations(content)))
    exclusions(reading.faults, "skip")
    images, every = reading.images, reading.annotations
    rows = every.take(~every.crowd)
    counts = np.bincount(rows.image, minlength=len(images))
    areas, sizes = rows.area, ObjectSizes.of(reading)
    return SplitStats(
        name=files.images.name,
        images=len(images),
        images_without_instances=int(np.count_nonzero(counts == 0)),
        instances=len(rows),
        crowds=len(every) - len(rows),
        small=int(np.count_nonzero(areas < MEDIUM_AREA)),
        medium=int(np.count_nonzero((areas >= MEDIUM_AREA) & (areas < LARGE_AREA))),
        large=int(np.count_nonzero(areas >= LARGE_AREA)),
        below_8_pixels={name: sizes.small(resize) for name, resize in CANVASES.items()},
        canvas_for_8_pixels={name: sizes.enough(resize) for name, resize in CANVASES.items()},
        instances_per_image=_spread(counts.tolist()),
        widths=_spread([info.width for info in images]),
        heights=_spread([info.height for info in images]),
        landscape_images=sum(info.width > info.height for info in images),
        overlapping=_overlapping(rows, same_class=False),
        overlapping_same_class=_overlapping(rows, same_class=True),
        classes=_classes(reading.categories, rows),
        faults=sum(fault.subject != "file" for fault in reading.faults),
        unused=len(rows) - int(Usage.of(reading).instances.sum()),
    )


def _spread(values: list[int]) -> Spread:
    return Spread(min(values, default=0), median(values) if values else 0, max(values, default=0))


def _overlapping(rows: Annotations, *, same_class: bool) -> list[int]:
    counts = [0] * len(OVERLAPS)
    order = np.argsort(rows.image, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(rows.image[order])) + 1):
        if len(group) < 2:
            continue
        boxes = torch.from_numpy(rows.box[group])
        boxes[:, 2:] += boxes[:, :2]
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
        if same_class:
            labels = torch.from_numpy(rows.label[group])
            overlaps *= labels[:, None] == labels[None]
        largest = overlaps.amax(dim=1)
        counts = [count + int((largest > limit).sum()) for count, limit in zip(counts, OVERLAPS, strict=True)]
    return counts


def _classes(categories: Sequence[Category], rows: Annotations) -> list[ClassCount]:
    instances = np.bincount(rows.label, minlength=len(categories)).tolist()
    labels = np.unique(np.stack([rows.label, rows.image]), axis=1)[0]
    images = np.bincount(labels, minlength=len(categories)).tolist()
    return [
        ClassCount(each.id, each.name, *counts)
        for each, counts in zip(categories, zip(instances, images, strict=True), strict=True)
    ]
