"""Reading COCO JSON files: the outermost structure, and what one entry holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsctool.entries import Entries, read_lists
from dsctool.errors import DataError
from dsctool.terms import Size

LARGEST_NUMBER = 1e12
"""No coordinate or area of an image reaches this; JSON's integers have no end."""

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons ``[[x1, y1, x2, y2, ...], ...]`` in pixels, or a run-length encoding of either kind."""


@dataclass(frozen=True)
class Category:
    """A class: its id in the annotation file, and its name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image as the annotation file describes it; width and height in pixels."""

    id: int
    file_name: str
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated instance, or a crowd region. label: 0-based class. box: ``(x1, y1, x2, y2)`` in pixels."""

    id: int
    label: int
    box: tuple[float, float, float, float]
    crowd: bool


@dataclass(frozen=True)
class AnnotationFile:
    """The three lists of a COCO file; their entries are not checked yet."""

    path: Path
    images: Entries
    annotations: Entries
    categories: Entries


LISTS = ("images", "annotations", "categories")
"""Of a COCO file."""
IMAGES_ONLY = ("images", "categories")
"""Of those that COCO's ``image_info`` files have."""

_HINTS = {
    "annotations": "; images without annotations, as in COCO's image_info files, can be run by "
    "`dsctool eval CHECKPOINT --data DIR --test-dev --output DIR` and `dsctool predict`, but neither learnt from nor "
    "measured on"
}
"""What can be done without a list."""


def read_annotation_file(path: Path, *, needed: Sequence[str] = LISTS) -> AnnotationFile:
    """Read a COCO JSON file and check its outermost structure: the one place where annotations are read.

    needed: lists that must be there; others may be missing, as in COCO's ``image_info`` files.

    Raises:
        DataError: the file is missing, empty, cut, not an object, or lacks a list.
    """
    return annotation_file(read_lists(path, LISTS), path, needed=needed)


def annotation_file(content: object, path: Path, *, needed: Sequence[str] = LISTS) -> AnnotationFile:
    """What is in a COCO file, its outermost structure checked. path: for messages."""
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: must hold a JSON object with images, annotations and categories, not {json_kind(content)}"
        )
    lists = {}
    for key in LISTS:
        if key not in content and key in needed:
            raise DataError(f"{path}: missing key '{key}'{_HINTS.get(key, '')}")
        lists[key] = content.get(key, [])
        if not isinstance(lists[key], Sequence) or isinstance(lists[key], str):
            raise DataError(f"{path}: '{key}' must be a list, not {json_kind(lists[key])}")
    return AnnotationFile(path, **{key: Entries(entries) for key, entries in lists.items()})


def json_kind(value: object) -> str:
    """What a JSON value is, in words for messages."""
    if isinstance(value, bool):
        return "a boolean"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
