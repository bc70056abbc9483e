"""What the entries of an annotation file must be.

Numbers must be finite JSON numbers; ids whole numbers, each used once. A box may stick out of its image
by one pixel, since annotation tools round; one that sticks out by a few (see :func:`border_limit`) is clipped, with a
warning, and one that is further out a fault. A box of width or height zero, which COCO itself has, is a
warning: training leaves such annotations out, as the published recipes do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from dsctool.data.faults import Fault, Subject
from dsctool.data.records import LARGEST_NUMBER, AnnotationFile, json_kind
from dsctool.data.segmentations import NO_PIXELS, Problem, segmentation_problem
from dsctool.terms import Size

BOX_TOLERANCE = 1.0
"""How far a box may stick out of its image, in pixels, without a word."""
FEW_PIXELS = 5.0
"""How far a box that is clipped may stick out of its image, in pixels; or, of large images,"""
FEW_SHARE = 0.01
"""this share of the longer side."""
OUTSIDE, BORDER, ZERO_SIZE = "box outside", "border", "zero size"
"""Kinds of the problems of boxes that are numbers."""

LARGEST_ID = 2**63 - 1
"""numpy and pycocotools keep ids in 64 bits."""

_LONGEST_VALUE = 500  # in characters; a whole list of coordinates may stand where a number belongs

Entry = Mapping[str, Any]
Rule = Callable[[Entry], Iterator[Problem]]


@dataclass(frozen=True)
class Needs:
    """What entries must have.

    masks: a segmentation. pictures: all that training needs: images have names and sizes, categories names, ids are
    whole numbers, boxes lie inside their images, masks have pixels, and no area is negative. Without, ids may be any
    numbers, or texts, and sizes are needed for masks only: what COCO's evaluation makes sense of.
    """

    masks: bool = True
    pictures: bool = True


@dataclass(frozen=True)
class Checked:
    """The entries of a list by id, the first of each, with their places in it; and the faults of all."""

    by_id: dict[Any, Entry]
    places: dict[Any, int]
    faults: list[Fault]

    @property
    def faultless(self) -> dict[Any, Entry]:
        """The entries without errors."""
        wrong = {fault.index for fault in self.faults if fault.severity == "error"}
        return {id_: entry for id_, entry in self.by_id.items() if self.places[id_] not in wrong}


def check_categories(file: AnnotationFile, needs: Needs) -> Checked:
    """The categories, and whether there are any."""
    checked = _check_entries(file, "category", file.categories, partial(_category_problems, needs=needs), needs)
    if not file.categories:
        checked.faults.append(Fault(file.path, "file", None, None, "no categories", "has no categories"))
    checked.faults.extend([*_mixed_ids(file, "categories", checked), *_repeated_names(file)])
    return checked


def check_images(file: AnnotationFile, needs: Needs) -> Checked:
    """The entries of images, not their files."""
    checked = _check_entries(file, "image", file.images, partial(_image_problems, needs=needs), needs)
    if not file.images:
        checked.faults.append(Fault(file.path, "file", None, None, "no images", "has no images"))
    checked.faults.extend(_mixed_ids(file, "images", checked))
    return checked


def _mixed_ids(file: AnnotationFile, key: str, checked: Checked) -> Iterator[Fault]:
    if len({isinstance(id_, str) for id_ in checked.by_id}) > 1:  # which cannot be put in order
        message = f"some ids of {key!r} are numbers and some are text: make them all numbers"
        yield Fault(file.path, "file", None, None, "mixed ids", message)


def _check_entries(file: AnnotationFile, subject: Subject, entries: Sequence[Any], rule: Rule, needs: Needs) -> Checked:
    checked = Checked({}, {}, [])
    for index, entry in enumerate(entries):
        if isinstance(entry, Mapping):
            problems = [*id_problems(entry, checked.by_id, needs), *rule(entry)]
            if is_id(entry.get("id"), needs):
                checked.places.setdefault(entry["id"], index)
                checked.by_id.setdefault(entry["id"], entry)
        else:
            problems = [Problem("wrong type", f"must be an object, not {json_kind(entry)}")]
        checked.faults.extend(faults_of(file, subject, entry, index, problems))
    return checked


def faults_of(
    file: AnnotationFile, subject: Subject, entry: object, index: int, problems: Iterable[Problem]
) -> list[Fault]:
    """What is wrong with an entry, as faults of its file. index: its place in its list."""
    id_ = entry.get("id") if isinstance(entry, Mapping) else None
    shown = id_ if id_ is None or _is_whole(id_) else _shown(id_)
    return [Fault(file.path, subject, shown, index, p.kind, p.message, p.severity) for p in problems]


def is_id(value: object, needs: Needs) -> bool:
    """Whether a value can be an id of an image or a category."""
    return _is_whole(value) or (not needs.pictures and (isinstance(value, str) or _is_number(value)))


def id_problems(entry: Entry, used: Container[Any], needs: Needs = Needs()) -> Iterator[Problem]:
    """What is wrong with an entry's id. used: ids of earlier entries."""
    if "id" not in entry:
        yield Problem("missing key", "missing key 'id'")
    elif not is_id(entry["id"], needs):
        what = "a whole number" if needs.pictures else "a number or a text"
        yield Problem("number", f"id must be {what}, not {_shown(entry['id'])}")
    elif _is_whole(entry["id"]) and abs(entry["id"]) > LARGEST_ID:
        yield Problem("number", f"id is too large for 64 bits: {_shown(entry['id'])}")
    elif entry["id"] in used:
        yield Problem("duplicate id", "duplicate id: an earlier entry has it too")


def _category_problems(entry: Entry, needs: Needs) -> Iterator[Problem]:
    if not needs.pictures:
        return
    yield from _missing(entry, "name")
    if "name" in entry and not (isinstance(entry["name"], str) and entry["name"].strip()):
        yield Problem("name", f"name must be text, not {_shown(entry['name'])}")


def _repeated_names(file: AnnotationFile) -> Iterator[Fault]:
    """Categories that only their ids tell apart: people, and models of other data with other ids, can't."""
    first: dict[str, tuple[object, str]] = {}
    for index, entry in enumerate(file.categories):
        name, id_ = (entry.get("name"), entry.get("id")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(name, str) or not _is_whole(id_):
            continue
        other, spelled = first.setdefault(" ".join(name.split()).casefold(), (id_, name))
        if other != id_:
            but = "" if name == spelled else " but for blanks or letter case"
            message = f"has the name of category {other}{but}, {_shown(name)}: give it another, or make the two one"
            yield Fault(file.path, "category", id_, index, "duplicate name", message, "warning")


def _image_problems(entry: Entry, needs: Needs) -> Iterator[Problem]:
    if not needs.pictures:
        return
    yield from _missing(entry, "file_name", "width", "height")
    for key in ("width", "height"):
        if key in entry and not _is_side(entry[key]):
            yield Problem("number", f"{key} must be a whole number of pixels above 0, not {_shown(entry[key])}")
    name = entry.get("file_name", "x")
    if not (isinstance(name, str) and name.strip()) or "\0" in name:
        yield Problem("file name", f"file_name must be a path, not {_shown(name)}")
    elif escapes(name):
        yield Problem("file name", f"file_name {_shown(name)} leads out of the image folder")


def annotation_problems(
    entry: Entry, categories: Container[Any], sizes: Mapping[Any, Size | None], needs: Needs
) -> Iterator[Problem]:
    """What is wrong with an annotation, but for its id. sizes: of the images by id, None where they are unknown.

    ``area`` and ``iscrowd`` may be missing, or null, and so may ``bbox`` where there is a segmentation.
    """
    yield from _missing(entry, "image_id", "category_id")
    yield from _reference_problems(entry, "image_id", "image", sizes, needs)
    yield from _reference_problems(entry, "category_id", "category", categories, needs)
    yield from _scalar_problems(entry, needs)
    image_id = entry.get("image_id")
    size = sizes.get(image_id) if is_id(image_id, needs) else None
    box = _box_problem(entry["bbox"], size if needs.pictures else None) if entry.get("bbox") is not None else None
    if box is not None:
        yield box
    shape = None if size is None else shape_problem(entry.get("segmentation"), size, needs)
    if entry.get("bbox") is None and (shape is not None or not entry.get("segmentation")):
        yield from _missing({}, "bbox")
    left_out = box is not None and box.kind == ZERO_SIZE
    if not needs.masks or left_out:
        return
    if size is None and is_id(image_id, needs) and image_id in sizes:
        yield Problem("number", "its image has no whole height and width, which masks need")
    if "segmentation" not in entry:
        yield from _missing(entry, "segmentation")
    elif shape is not None:
        yield shape


def shape_problem(segmentation: object, size: Size, needs: Needs) -> Problem | None:
    """What is wrong with a segmentation; nothing of a mask without pixels is learnt, but COCO counts it."""
    problem = segmentation_problem(segmentation, size)
    return None if problem is not None and problem.kind == NO_PIXELS and not needs.pictures else problem


def _reference_problems(entry: Entry, key: str, what: str, known: Container[Any], needs: Needs) -> Iterator[Problem]:
    if key not in entry:
        return
    if not is_id(entry[key], needs):
        yield Problem("number", f"{key} must be a whole number, not {_shown(entry[key])}")
    elif entry[key] not in known:
        other = _of_other_type(entry[key])
        hint = f", {_shown(other)} is: write all ids alike" if other is not None and other in known else ""
        message = f"unknown {what}: {key} {_shown(entry[key])} is in no entry of the file{hint}"
        yield Problem(f"unknown {what}", message)


def _of_other_type(value: object) -> object:
    """A number written as text, and the other way round; None where there is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
    return str(value) if _is_whole(value) else None


def _scalar_problems(entry: Entry, needs: Needs) -> Iterator[Problem]:
    crowd, area = entry.get("iscrowd"), entry.get("area")
    if crowd is not None and not (isinstance(crowd, Real) and crowd in (0, 1)):
        yield Problem("number", f"iscrowd must be 0 or 1, not {_shown(crowd)}")
    if area is not None and not _is_number(area):
        yield Problem("number", f"area must be a finite number, not {_kind(area)}")
    elif area is not None and area < 0 and needs.pictures:
        yield Problem("number", "area is negative")


def _box_problem(box: object, size: Size | None) -> Problem | None:
    """What is wrong with ``[x, y, width, height]``; ``size`` of the image is None when unknown."""
    if not isinstance(box, list | tuple):
        return Problem("box", f"bbox must be a list of 4 numbers, not {json_kind(box)}")
    if len(box) != 4:
        return Problem("box", f"bbox must have 4 numbers (x, y, width, height), not {len(box)}")
    for value in box:
        if not _is_number(value):
            return Problem("number", f"bbox must hold finite numbers, not {_kind(value)}")
    width, height = box[2:]
    if width < 0 or height < 0:
        return Problem("box", f"bbox has a negative size: {width} x {height}")
    if size is not None and (problem := _border_problem(box, size)) is not None:
        return problem
    if width == 0 or height == 0:
        message = f"bbox has a zero size: {width} x {height} (training leaves it out)"
        return Problem(ZERO_SIZE, message, severity="warning")
    return None


def _border_problem(box: Sequence[float], size: Size) -> Problem | None:
    x, y, width, height = box
    excess = max(-x, -y, x + width - size[1], y + height - size[0])
    if excess <= BOX_TOLERANCE:
        return None
    named = f"the image, which is {size[1]} x {size[0]} (width x height)"
    touches = x < size[1] and y < size[0] and x + width > 0 and y + height > 0
    if excess > border_limit(size) or not touches:
        return Problem(OUTSIDE, f"bbox {list(box)} is outside {named}")
    return Problem(BORDER, f"bbox sticks out of {named}, by up to {math.ceil(excess)} pixels: clipped", "warning")


def border_limit(size: Size) -> float:
    """How far a box may stick out of an image to be clipped, in pixels: further out it is of another image."""
    return max(FEW_PIXELS, FEW_SHARE * max(size))


def _missing(entry: Entry, *keys: str) -> Iterator[Problem]:
    for key in keys:
        if key not in entry:
            yield Problem("missing key", f"missing key '{key}'")


def known_size(entry: Entry) -> Size | None:
    """Height and width of an image, where its entry has them."""
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if _is_side(height) and _is_side(width) else None


def _is_side(value: object) -> TypeGuard[int]:
    return _is_whole(value) and 0 < value <= LARGEST_NUMBER


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER  # type: ignore[operator]


def escapes(name: str) -> bool:
    """Whether a file name leads out of the folder that it is in."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"


def _kind(value: object) -> str:
    """What stands in place of a number, without what it says: many that are wrong alike share a line."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return str(value) if value != value or abs(value) == math.inf else "one beyond any image"
    return json_kind(value)


def _shown(value: object) -> str:
    """A JSON value for a message, short."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
