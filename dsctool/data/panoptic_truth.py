"""Panoptic ground truth beside a data set's instances: its faults, and what it holds in numbers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsctool.data.faults import Fault
from dsctool.data.panoptic import Ids, PanopticFile, PanopticImage, read_panoptic
from dsctool.data.panoptic_rules import VOID
from dsctool.errors import DataError
from dsctool.terms import Progress

_PREFIX = "panoptic_"


@dataclass(frozen=True)
class CategoryCount:
    """How often a category occurs, crowds not counted. share: of all pixels, 0 to 1, with crowds."""

    id: int
    name: str
    is_thing: bool
    segments: int
    images: int
    share: float


@dataclass(frozen=True)
class PanopticStats:
    """A panoptic file in numbers.

    things, stuff, crowds: segments. void: share of the pixels that belong to none, 0 to 1.
    """

    name: str
    images: int
    things: int
    stuff: int
    crowds: int
    void: float
    categories: list[CategoryCount]


def panoptic_files(root: Path) -> list[Path]:
    """The panoptic files of a standard layout: ``annotations/panoptic_*.json``, by name."""
    return sorted((root / "annotations").glob(f"{_PREFIX}*.json"))


def panoptic_beside(annotations: Path) -> Path:
    """The panoptic file of the split that has these annotations: beside them, called ``panoptic_`` for ``instances_``.

    Raises:
        DataError: there is none.
    """
    path = annotations.with_name(_PREFIX + annotations.name.removeprefix("instances_"))
    if not path.is_file():
        raise DataError(f"{path}: no such file: panoptic truth of the split lies beside {annotations.name}")
    return path


def split_name(path: Path) -> str:
    """The split that a panoptic file of a standard layout is of."""
    return path.stem.removeprefix(_PREFIX)


def check_panoptic(path: Path, *, progress: Progress | None = None) -> list[Fault]:
    """Faults of a panoptic file and of its PNGs, every one decoded; of entries only the first is told.

    A PNG may be missing, broken or of another size, hold ids that the file lacks or lack ids that the file has, and
    areas may disagree. Stuff marked as a crowd is a warning: it is counted as if it were not.
    """
    try:
        truth = read_panoptic(path)
    except DataError as error:
        return [Fault(path, "file", None, None, "panoptic", str(error).removeprefix(f"{path}: "))]
    entries = list(truth.entries.values())

    def problems(place: int) -> list[Fault]:
        entry = entries[place]
        found = _problems(truth, entry)
        return [Fault(path, "image", entry.image_id, place, kind, said) for kind, said in found]

    things = {category.id for category in truth.categories if category.is_thing}
    faults = [
        Fault(path, "image", image_id, None, "panoptic", "has no entry in annotations, so it cannot be measured")
        for image_id in truth.images.keys() - truth.entries.keys()
    ]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16)) as pool:
        for done, found in enumerate(pool.map(problems, range(len(entries))), start=1):
            faults += found
            if progress is not None:
                progress(path.stem, done, len(entries))
    for place, entry in enumerate(entries):
        for segment in entry.segments:
            if segment.is_crowd and segment.category_id not in things:
                said = f"segment {segment.id}: is stuff and a crowd; only things come in crowds"
                faults.append(Fault(path, "image", entry.image_id, place, "crowd", said, "warning"))
    return faults


def describe_panoptic(path: Path) -> PanopticStats:
    """Count what a panoptic file holds; every PNG is read.

    Raises:
        DataError: the file or a PNG cannot be used.
    """
    truth = read_panoptic(path)
    segments, images, pixels = Counter[int](), Counter[int](), Counter[int]()
    crowds = 0
    for entry in truth.entries.values():
        areas = _areas(truth.ids(entry))
        pixels[VOID] += areas.pop(VOID, 0)
        for segment in entry.segments:
            pixels[segment.category_id] += areas.get(segment.id, 0)
        single = [segment.category_id for segment in entry.segments if not segment.is_crowd]
        crowds += len(entry.segments) - len(single)
        segments.update(single)
        images.update(set(single))
    total = max(pixels.total(), 1)
    counts = [
        CategoryCount(each.id, each.name, each.is_thing, segments[each.id], images[each.id], pixels[each.id] / total)
        for each in truth.categories
    ]
    return PanopticStats(
        name=split_name(path),
        images=len(truth.entries),
        things=sum(each.segments for each in counts if each.is_thing),
        stuff=sum(each.segments for each in counts if not each.is_thing),
        crowds=crowds,
        void=pixels[VOID] / total,
        categories=counts,
    )


def _problems(truth: PanopticFile, entry: PanopticImage) -> Iterator[tuple[str, str]]:
    """Kind and message."""
    try:
        areas = _areas(truth.ids(entry))
    except DataError as error:
        yield "panoptic map", str(error)
        return
    areas.pop(VOID, None)
    png = truth.folder / entry.file_name
    listed = {segment.id: segment for segment in entry.segments}
    for id_ in sorted(areas.keys() - listed.keys()):
        yield "panoptic ids", f"{png}: segment {id_} is in the pixels, and not in segments_info"
    for id_, segment in listed.items():
        if id_ not in areas:
            yield "panoptic ids", f"{png}: segment {id_} is in segments_info, and not in the pixels"
        elif segment.area != areas[id_]:
            said = f"{png}: segment {id_} has {areas[id_]} pixels, and area says {segment.area:g}"
            yield "panoptic area", said


def _areas(ids: Ids) -> dict[int, int]:
    """Pixels of every id that occurs."""
    found, counts = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
