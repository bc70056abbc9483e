"""What the entries of an annotation file must be.

Numbers must be finite JSON numbers; ids whole numbers, each used once. A box may stick out of its image
by one pixel, since annotation tools round. A box of width or height zero, which COCO itself has, is a
warning: training leaves such annotations out, as the published recipes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from dsctool.data.faults import Fault, Subject
from dsctool.data.records import LARGEST_NUMBER, AnnotationFile, json_kind
from dsctool.data.segmentations import Problem, segmentation_problem
from dsctool.structures import Size

BOX_TOLERANCE = 1.0
"""How far a box may stick out of its image, in pixels."""

_LARGEST_ID = 2**63 - 1  # numpy and pycocotools keep ids in 64 bits

_LONGEST_VALUE = 500  # in characters; a whole list of coordinates may stand where a number belongs

Entry = dict[str, Any]
Rule = Callable[[Entry], Iterator[Problem]]


def check_records(file: AnnotationFile, *, masks: bool = True) -> list[Fault]:
    """Faults of the JSON entries: categories first, then images, then annotations, each in file order.

    masks: every annotation needs a segmentation; False for detectors of boxes.
    """
    if not file.images:
        return [Fault(file.path, "file", None, None, "no images", "has no images")]
    faults: list[Fault] = []
    if not file.categories:
        faults.append(Fault(file.path, "file", None, None, "no categories", "has no categories"))
    categories = _check_entries(file, "category", file.categories, _category_problems, faults)
    faults += _repeated_names(file)
    images = _check_entries(file, "image", file.images, _image_problems, faults)
    sizes = {id_: _size(entry) for id_, entry in images.items()}
    rule = _annotation_rule(categories, sizes, masks)
    _check_entries(file, "annotation", file.annotations, rule, faults)
    return faults


def _check_entries(
    file: AnnotationFile, subject: Subject, entries: Sequence[Any], rule: Rule, faults: list[Fault]
) -> dict[int, Entry]:
    """Append the faults of a list's entries; the entries by id, the first of each."""
    by_id: dict[int, Entry] = {}
    for index, entry in enumerate(entries):
        id_ = None
        if isinstance(entry, dict):
            id_ = entry.get("id")
            problems = [*_id_problems(entry, by_id), *rule(entry)]
            if _is_whole(id_):
                by_id.setdefault(id_, entry)
        else:
            problems = [Problem("wrong type", f"must be an object, not {json_kind(entry)}")]
        shown = id_ if id_ is None or _is_whole(id_) else _shown(id_)
        faults += [Fault(file.path, subject, shown, index, p.kind, p.message, p.severity) for p in problems]
    return by_id


def _id_problems(entry: Entry, used: Mapping[int, Entry]) -> Iterator[Problem]:
    if "id" not in entry:
        yield Problem("missing key", "missing key 'id'")
    elif not _is_whole(entry["id"]):
        yield Problem("number", f"id must be a whole number, not {_shown(entry['id'])}")
    elif abs(entry["id"]) > _LARGEST_ID:
        yield Problem("number", f"id is too large for 64 bits: {_shown(entry['id'])}")
    elif entry["id"] in used:
        yield Problem("duplicate id", "duplicate id: an earlier entry has it too")


def _category_problems(entry: Entry) -> Iterator[Problem]:
    yield from _missing(entry, "name")
    if "name" in entry and not (isinstance(entry["name"], str) and entry["name"].strip()):
        yield Problem("name", f"name must be text, not {_shown(entry['name'])}")


def _repeated_names(file: AnnotationFile) -> Iterator[Fault]:
    """Categories that only their ids tell apart: people, and models of other data with other ids, can't."""
    first: dict[str, object] = {}
    for index, entry in enumerate(file.categories):
        name, id_ = (entry.get("name"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not _is_whole(id_):
            continue
        if first.setdefault(name, id_) != id_:
            message = f"has the name of category {first[name]}, {_shown(name)}: give it another"
            yield Fault(file.path, "category", id_, index, "duplicate name", message, "warning")


def _image_problems(entry: Entry) -> Iterator[Problem]:
    yield from _missing(entry, "file_name", "width", "height")
    for key in ("width", "height"):
        if key in entry and not _is_side(entry[key]):
            yield Problem("number", f"{key} must be a whole number of pixels above 0, not {_shown(entry[key])}")
    name = entry.get("file_name", "x")
    if not (isinstance(name, str) and name.strip()) or "\0" in name:
        yield Problem("file name", f"file_name must be a path, not {_shown(name)}")
    elif _escapes(name):
        yield Problem("file name", f"file_name {_shown(name)} leads out of the image folder")


def _annotation_rule(categories: Mapping[int, Entry], sizes: Mapping[int, Size | None], masks: bool) -> Rule:
    required = ("image_id", "category_id", "bbox", "area", "iscrowd", *(("segmentation",) if masks else ()))

    def problems(entry: Entry) -> Iterator[Problem]:
        yield from _missing(entry, *required)
        yield from _reference_problems(entry, "image_id", "image", sizes)
        yield from _reference_problems(entry, "category_id", "category", categories)
        yield from _scalar_problems(entry)
        image_id = entry.get("image_id")
        size = sizes.get(image_id) if _is_whole(image_id) else None
        box = _box_problem(entry["bbox"], size) if "bbox" in entry else None
        if box is not None:
            yield box
        left_out = box is not None and box.severity == "warning"
        if masks and size is not None and "segmentation" in entry and not left_out:
            problem = segmentation_problem(entry["segmentation"], size)
            if problem is not None:
                yield problem

    return problems


def _reference_problems(entry: Entry, key: str, what: str, known: Mapping[int, object]) -> Iterator[Problem]:
    if key not in entry:
        return
    if not _is_whole(entry[key]):
        yield Problem("number", f"{key} must be a whole number, not {_shown(entry[key])}")
    elif entry[key] not in known:
        yield Problem(f"unknown {what}", f"unknown {what}: {key} {_shown(entry[key])} is in no entry of the file")


def _scalar_problems(entry: Entry) -> Iterator[Problem]:
    if "iscrowd" in entry and not (_is_whole(entry["iscrowd"]) and entry["iscrowd"] in (0, 1)):
        yield Problem("number", f"iscrowd must be 0 or 1, not {_shown(entry['iscrowd'])}")
    if "area" in entry and not _is_number(entry["area"]):
        yield Problem("number", f"area must be a finite number, not {_shown(entry['area'])}")
    elif entry.get("area", 0) < 0:
        yield Problem("number", f"area is negative: {entry['area']}")


def _box_problem(box: object, size: Size | None) -> Problem | None:
    """What is wrong with ``[x, y, width, height]``; ``size`` of the image is None when unknown."""
    if not isinstance(box, list):
        return Problem("box", f"bbox must be a list of 4 numbers, not {json_kind(box)}")
    if len(box) != 4:
        return Problem("box", f"bbox must have 4 numbers (x, y, width, height), not {len(box)}")
    for value in box:
        if not _is_number(value):
            return Problem("number", f"bbox must hold finite numbers, not {_shown(value)}")
    x, y, width, height = box
    if width < 0 or height < 0:
        return Problem("box", f"bbox has a negative size: {width} x {height}")
    if size is not None:
        excess = max(-x, -y, x + width - size[1], y + height - size[0])
        if excess > BOX_TOLERANCE:
            return Problem("box", f"bbox {box} is outside the image, which is {size[1]} x {size[0]} (width x height)")
    if width == 0 or height == 0:
        return Problem("box", f"bbox has a zero size: {width} x {height} (training leaves it out)", severity="warning")
    return None


def _missing(entry: Entry, *keys: str) -> Iterator[Problem]:
    for key in keys:
        if key not in entry:
            yield Problem("missing key", f"missing key '{key}'")


def _size(entry: Entry) -> Size | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if _is_side(height) and _is_side(width) else None


def _is_side(value: object) -> TypeGuard[int]:
    return _is_whole(value) and 0 < value <= LARGEST_NUMBER


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type]


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"


def _shown(value: object) -> str:
    """A JSON value for a message, short."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
