"""What is wrong with an entry of a panoptic file; the functions yield messages, without the place of the entry.

One fault is all that a reader looks at: what comes after the first may rely on what it was about.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from dsctool.data.records import LARGEST_NUMBER, json_kind
from dsctool.data.rules import escapes

VOID = 0
"""The id of pixels that belong to no segment."""
LARGEST_SEGMENT = 2**24 - 1
"""An id has the 24 bits of a pixel."""

ImageId = int | str
"""COCO numbers its images; Cityscapes' panoptic files name them."""


def category_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry of ``categories`` that has an id."""
    if not _is_whole(entry["id"]):
        yield f"id must be a whole number, not {shown(entry['id'])}"
    if "isthing" not in entry:
        yield "missing key 'isthing', which says whether it is a thing (1) or stuff (0)"
    elif entry["isthing"] not in (0, 1):
        yield f"isthing must be 0 or 1, not {shown(entry['isthing'])}"
    for key in ("name", "supercategory"):
        if not isinstance(entry.get(key, ""), str):
            yield f"{key} must be text, not {shown(entry[key])}"
    color = entry.get("color")
    if color is not None and not (
        isinstance(color, Sequence) and len(color) == 3 and all(_is_whole(each) and 0 <= each <= 255 for each in color)
    ):
        yield f"color must be three whole numbers from 0 to 255, not {shown(color)}"


def entry_problems(item: object, images: Container[object] | None) -> Iterator[str]:
    """What is wrong with an entry of ``annotations``, but for its segments. images: ids; None where any will do."""
    if not isinstance(item, Mapping):
        yield f"must be an object, not {json_kind(item)}"
        return
    for key in ("image_id", "file_name", "segments_info"):
        if key not in item:
            yield f"missing key '{key}'"
    if not is_image_id(item["image_id"]):
        yield f"image_id must be a whole number or a text, not {shown(item['image_id'])}"
    if images is not None and item["image_id"] not in images:
        yield "unknown image: image_id is in no entry of 'images'"
    if (problem := name_problem(item["file_name"])) is not None:
        yield problem
    if not isinstance(item["segments_info"], Sequence) or isinstance(item["segments_info"], str):
        yield f"segments_info must be a list, not {json_kind(item['segments_info'])}"


def name_problem(name: object) -> str | None:
    """What is wrong with a ``file_name``."""
    if not isinstance(name, str) or not PurePosixPath(name.strip()).name or "\0" in name:
        return f"file_name must be a path, not {shown(name)}"
    return f"file_name {shown(name)} leads out of its folder" if escapes(name) else None


def segments_problems(segments: Sequence[object], categories: Container[object] | None) -> Iterator[str]:
    """What is wrong with the segments of an image. categories: None for results, which need no areas either."""
    seen: set[int] = set()
    for index, segment in enumerate(segments):
        if not isinstance(segment, Mapping):
            yield f"segments_info[{index}] must be an object, not {json_kind(segment)}"
            return
        for message in _segment_problems(segment, categories):
            yield f"segments_info[{index}] (id {shown(segment.get('id'))}): {message}"
        if segment["id"] in seen:
            yield f"segments_info[{index}] (id {segment['id']}): duplicate id: an earlier segment has it too"
        seen.add(segment["id"])


def _segment_problems(segment: Mapping[str, Any], categories: Container[object] | None) -> Iterator[str]:
    for key in ("id", "category_id") if categories is None else ("id", "category_id", "area"):
        if key not in segment:
            yield f"missing key '{key}'"
    id_, category = segment["id"], segment["category_id"]
    if not _is_whole(id_) or not VOID < id_ <= LARGEST_SEGMENT:
        yield f"id must be a whole number from 1 to {LARGEST_SEGMENT}"
    if not _is_whole(category):
        yield f"category_id must be a whole number, not {shown(category)}"
    if categories is None:
        return
    if category not in categories:
        yield f"unknown category: category_id {category} is in no entry of the file"
    if not _is_number(segment["area"]) or segment["area"] < 0:
        yield f"area must be a number of pixels, not {shown(segment['area'])}"
    if segment.get("iscrowd") not in (None, 0, 1):
        yield f"iscrowd must be 0 or 1, not {shown(segment['iscrowd'])}"
    box = segment.get("bbox")
    if box is not None and not (isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box))):
        yield f"bbox must be four numbers, not {shown(box)}"


def is_image_id(value: object) -> TypeGuard[ImageId]:
    """Whether a JSON value can be an image's id."""
    return _is_whole(value) or isinstance(value, str)


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type]


def shown(value: object) -> str:
    """A JSON value for a message, short."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
