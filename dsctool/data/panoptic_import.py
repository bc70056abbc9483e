"""Panoptic truth as what training reads: instances, and stuff-and-thing maps with the names of their values."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.panoptic import Ids, PanopticCategory, PanopticFile, Segment, read_panoptic
from dsctool.data.panoptic_truth import panoptic_files, split_name
from dsctool.data.rules import escapes
from dsctool.data.semantic import SEMANTIC_IGNORED, semantic_map_path
from dsctool.errors import DataError
from dsctool.files import whole_file
from dsctool.terms import Progress

LARGEST_ID = SEMANTIC_IGNORED
"""Of a category: its value in a map of 8 bits is one less, and the last value says that nothing is labelled."""


def import_panoptic(root: Path, *, progress: Progress | None = None) -> list[Path]:
    """Write instances and maps beside every ``annotations/panoptic_<split>.json`` of a data set.

    ``annotations/instances_<split>.json`` gets the things, crowds included, as run-length encodings of their pixels.
    ``stuffthingmaps/<split>/`` gets maps whose values are category ids less 1, as COCO-Stuff's are, and 255 for void;
    ``stuffthingmaps/labels.txt`` names the values. What was written is returned. Nothing is written over: an instances
    file that is there already stays, since COCO's own has whole masks where panoptic truth has visible pixels alone.

    Raises:
        DataError: there is no panoptic file, or one cannot be used, or maps or names are there already; nothing is left
            half written.
    """
    files = panoptic_files(root)
    if not files:
        raise DataError(f"{root}: no annotations/panoptic_*.json")
    truths = [read_panoptic(path) for path in files]
    names = _names(truths)
    maps = root / "stuffthingmaps"
    taken = [path for path in (maps / "labels.txt", *(maps / split_name(path) for path in files)) if path.exists()]
    if taken:
        raise DataError(f"{taken[0]}: is there already; move it away, or train on it as it is")
    written = []
    for truth in truths:
        written += _import_split(root, truth, progress)
    with whole_file(maps / "labels.txt") as file:
        file.write("".join(f"{id_ - 1}: {name}\n" for id_, name in sorted(names.items())).encode())
    return [*written, maps / "labels.txt"]


def _names(truths: Sequence[PanopticFile]) -> dict[int, str]:
    """Of all categories, by id."""
    names: dict[int, str] = {}
    for truth in truths:
        for category in truth.categories:
            if not 1 <= category.id <= LARGEST_ID:
                raise DataError(f"{truth.path}: category {category.id}: maps of 8 bits hold ids from 1 to {LARGEST_ID}")
            if names.setdefault(category.id, category.name) != category.name:
                raise DataError(f"{truth.path}: category {category.id} is {category.name} here, and elsewhere another")
    return names


def _import_split(root: Path, truth: PanopticFile, progress: Progress | None) -> list[Path]:
    split = split_name(truth.path)
    instances, maps = root / "annotations" / f"instances_{split}.json", root / "stuffthingmaps" / split
    things = {category.id: category for category in truth.categories if category.is_thing}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    partial = maps.with_name(f".{split}.partial-{os.getpid()}")
    try:
        for done, entry in enumerate(truth.entries.values(), start=1):
            if (image := truth.images.get(entry.image_id)) is None:
                raise DataError(f"{truth.path}: image {entry.image_id} is in no entry of 'images', where its name is")
            if not image.file_name or escapes(image.file_name):
                raise DataError(f"{truth.path}: image {image.id}: file_name '{image.file_name}' is no name in a folder")
            ids = truth.ids(entry)
            path = semantic_map_path(partial, image)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_values(ids, entry.segments)).save(path)
            height, width = ids.shape
            images.append({"id": image.id, "file_name": image.file_name, "height": height, "width": width})
            for segment in entry.segments:
                if segment.category_id in things:
                    annotations.append(_annotation(len(annotations) + 1, image.id, ids, segment))
            if progress is not None:
                progress(truth.path.stem, done, len(truth.entries))
        if not instances.exists():
            _write_instances(instances, images, annotations, things)
        partial.replace(maps)
    except OSError as error:
        raise DataError(f"{maps}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [instances, maps]


def _values(ids: Ids, segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """``(h, w)``: category ids less 1, and 255 where there is no segment."""
    found, places = np.unique(ids, return_inverse=True)
    by_id = {segment.id: segment.category_id - 1 for segment in segments}
    values = np.array([by_id.get(id_, SEMANTIC_IGNORED) for id_ in found.tolist()], dtype=np.uint8)
    return values[places.reshape(ids.shape)]


def _annotation(number: int, image_id: object, ids: Ids, segment: Segment) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(ids == segment.id, dtype=np.uint8))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": segment.category_id,
        "segmentation": {"size": list(ids.shape), "counts": rle["counts"].decode("ascii")},
        "area": int(coco_mask.area(rle)),
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "iscrowd": int(segment.is_crowd),
    }


def _write_instances(
    path: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    things: Mapping[int, PanopticCategory],
) -> None:
    categories = [{"id": each.id, "name": each.name, "supercategory": each.supercategory} for each in things.values()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with whole_file(path) as file:
        file.write(json.dumps(content).encode())
