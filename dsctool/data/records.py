"""Reading COCO JSON files: the outermost structure, and what one entry holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from dsctool.data.faults import Exclusions
from dsctool.errors import DataError
from dsctool.files import read_json


class Rle(TypedDict):
    """A run-length encoded mask, column by column, starting with background.

    size: ``[height, width]``.
    counts: run lengths, or their compressed text.
    """

    size: list[int]
    counts: list[int] | str


LARGEST_NUMBER = 1e12
"""No coordinate or area of an image reaches this; JSON's integers have no end."""

Segmentation = list[list[float]] | Rle
"""Polygons ``[[x1, y1, x2, y2, ...], ...]`` in pixels, or a run-length encoded mask."""


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


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated instance, or a crowd region.

    label: 0-based contiguous class.
    box: ``(x1, y1, x2, y2)`` in pixels of the original image.
    segmentation: None in data that has boxes only.
    """

    id: int
    label: int
    box: tuple[float, float, float, float]
    crowd: bool
    segmentation: Segmentation | None


@dataclass(frozen=True)
class AnnotationFile:
    """The three lists of a COCO file as JSON values; their entries are not checked yet."""

    path: Path
    images: Sequence[Any]
    annotations: Sequence[Any]
    categories: Sequence[Any]

    def without(self, exclude: Exclusions) -> AnnotationFile:
        """The entries that are not left out."""
        return replace(
            self,
            images=[entry for index, entry in enumerate(self.images) if index not in exclude.images],
            annotations=[entry for index, entry in enumerate(self.annotations) if index not in exclude.annotations],
        )


LISTS = ("images", "annotations", "categories")
"""Of a COCO file."""


def read_annotation_file(path: Path, *, needed: Sequence[str] = LISTS) -> AnnotationFile:
    """Read a COCO JSON file and check its outermost structure: the one place where annotations are read.

    needed: lists that must be there; others may be missing, as in COCO's ``image_info`` files.

    Raises:
        DataError: the file is missing, empty, cut, not an object, or lacks a list.
    """
    return annotation_file(read_json(path), path, needed=needed)


def annotation_file(content: object, path: Path, *, needed: Sequence[str] = LISTS) -> AnnotationFile:
    """What is in a COCO file, its outermost structure checked. path: for messages."""
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: must hold a JSON object with images, annotations and categories, not {json_kind(content)}"
        )
    lists = {}
    for key in LISTS:
        if key not in content and key in needed:
            raise DataError(f"{path}: missing key '{key}'")
        lists[key] = content.get(key, [])
        if not isinstance(lists[key], Sequence) or isinstance(lists[key], str):
            raise DataError(f"{path}: '{key}' must be a list, not {json_kind(lists[key])}")
    return AnnotationFile(path, **lists)


def json_kind(value: object) -> str:
    """What a JSON value is, in words for messages."""
    if isinstance(value, bool):
        return "a boolean"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
