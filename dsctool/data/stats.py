"""What a split holds, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from dsctool.data.faults import exclusions
from dsctool.data.layout import SplitFiles
from dsctool.data.records import AnnotationFile, read_annotation_file
from dsctool.data.rules import check_records
from dsctool.ops.boxes import box_iou
from dsctool.structures import LARGE_AREA, MEDIUM_AREA

OVERLAPS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""An instance is counted when its largest box IoU with another one of its image is greater than this."""


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
    overlapping: number of instances per value of :data:`OVERLAPS`, any class.
    overlapping_same_class: the same, counting only other ones of an instance's own class.
    faults: entries left out, or crippled.
    """

    name: str
    images: int
    images_without_instances: int
    instances: int
    crowds: int
    small: int
    medium: int
    large: int
    instances_per_image: Spread
    widths: Spread
    heights: Spread
    landscape_images: int
    overlapping: list[int]
    overlapping_same_class: list[int]
    classes: list[ClassCount]
    faults: int


def describe(files: SplitFiles) -> SplitStats:
    """Count what a split holds; the image files are not opened.

    Raises:
        DataError: the annotation file cannot be used at all.
    """
    content = read_annotation_file(files.annotations)
    faults = check_records(content, masks=False)
    left_out = exclusions(faults, "skip")
    images = [entry for index, entry in enumerate(content.images) if index not in left_out.images]
    groups: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in images}
    crowds = 0
    for index, entry in enumerate(content.annotations):
        if index in left_out.annotations or entry["image_id"] not in groups:
            continue
        if entry["iscrowd"]:
            crowds += 1
        else:
            groups[entry["image_id"]].append(entry)
    areas = [entry["area"] for group in groups.values() for entry in group]
    return SplitStats(
        name=files.images.name,
        images=len(images),
        images_without_instances=sum(not group for group in groups.values()),
        instances=len(areas),
        crowds=crowds,
        small=sum(area < MEDIUM_AREA for area in areas),
        medium=sum(MEDIUM_AREA <= area < LARGE_AREA for area in areas),
        large=sum(area >= LARGE_AREA for area in areas),
        instances_per_image=_spread([len(group) for group in groups.values()]),
        widths=_spread([entry["width"] for entry in images]),
        heights=_spread([entry["height"] for entry in images]),
        landscape_images=sum(entry["width"] > entry["height"] for entry in images),
        overlapping=_overlapping(groups.values(), same_class=False),
        overlapping_same_class=_overlapping(groups.values(), same_class=True),
        classes=_classes(content, groups),
        faults=len(faults),
    )


def _spread(values: list[int]) -> Spread:
    return Spread(min(values, default=0), median(values) if values else 0, max(values, default=0))


def _overlapping(groups: Iterable[list[dict[str, Any]]], *, same_class: bool) -> list[int]:
    counts = [0] * len(OVERLAPS)
    for group in groups:
        if len(group) < 2:
            continue
        boxes = torch.tensor([entry["bbox"] for entry in group], dtype=torch.float64)
        boxes[:, 2:] += boxes[:, :2]
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
        if same_class:
            ids = torch.tensor([entry["category_id"] for entry in group])
            overlaps *= ids[:, None] == ids[None]
        largest = overlaps.amax(dim=1)
        counts = [count + int((largest > limit).sum()) for count, limit in zip(counts, OVERLAPS, strict=True)]
    return counts


def _classes(content: AnnotationFile, groups: dict[int, list[dict[str, Any]]]) -> list[ClassCount]:
    instances = Counter(entry["category_id"] for group in groups.values() for entry in group)
    images = Counter(id_ for group in groups.values() for id_ in {entry["category_id"] for entry in group})
    names = {entry["id"]: entry["name"] for entry in content.categories}
    return [ClassCount(id_, names[id_], instances[id_], images[id_]) for id_ in sorted(names)]
