"""Annotation files mended where nothing has to be guessed.

Boxes and areas that are missing or do not belong to their masks are taken from the masks, boxes are cut at the border
of their image, stray parts, empty objects and repeated ones are left out, ``iscrowd`` is written out, ids become whole
numbers that are used once, and file names those of the files. All else stays as it is.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.data.agreement import BOX, FEW, MASK, NORMALISED, SHARE, areas_differ, boxes_fit
from dsctool.data.columns import Reading, has_segmentations, read_columns
from dsctool.data.extents import Extents
from dsctool.data.faults import Fault, Subject
from dsctool.data.file_names import image_path, only_file
from dsctool.data.images import image_size
from dsctool.data.layout import SplitFiles
from dsctool.data.mended_ids import Ids
from dsctool.data.records import annotation_file
from dsctool.data.rules import BORDER, Needs, annotation_problems, known_size
from dsctool.data.segmentations import is_flat, is_stray, segmentation_problem
from dsctool.data.shapes import Shapes, drawing_of
from dsctool.errors import DataError
from dsctool.files import read_json
from dsctool.rle import Rle
from dsctool.terms import Size

Entry = dict[str, Any]
Tell = Callable[[str], None]
"""Told what is done to an entry."""


@dataclass(frozen=True)
class Mended:
    """A mended file. changes: what was done, as notes that name file and id."""

    content: dict[str, Any]
    changes: list[Fault]


def mend(files: SplitFiles) -> Mended:
    """What the annotation file of a split holds, mended; the file itself stays as it is.

    Raises:
        DataError: it cannot be read, or is no COCO file.
    """
    content = read_json(files.annotations)
    file = annotation_file(content, files.annotations)
    assert isinstance(content, dict)
    reading = read_columns(file, Needs(masks=has_segmentations(file)))
    mender = _Mender(files, copy.deepcopy(content), reading)
    mender.categories()
    mender.images()
    mender.annotations()
    return Mended(mender.content, mender.changes)


@dataclass
class _Mender:
    files: SplitFiles
    content: dict[str, Any]
    reading: Reading
    changes: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = Counter(fault.kind for fault in self.reading.faults if fault.subject == "annotation")
        whole = {fault.kind for fault in self.reading.faults if fault.subject == "file"}
        count = max(len(self.reading.annotations), 1)
        self.doubtful = {fault.index for fault in self.reading.faults if fault.kind in (MASK, NORMALISED)}
        if kinds[BOX] >= max(FEW, SHARE * count):  # many that nothing explains
            self.doubtful.add(None)
        self.all_boxes = BOX in whole  # then those that fit by chance are no better
        self.all_areas = kinds["area"] >= SHARE * count

    def _tell(self, subject: Subject, entry: Mapping[str, Any], index: int) -> Tell:
        id_ = entry.get("id")

        def tell(what: str) -> None:
            self.changes.append(Fault(self.files.annotations, subject, id_, index, "mended", what, "note"))

        return tell

    def categories(self) -> None:
        """Whole numbers as ids; entries that are there twice once."""
        self.category_ids = self._renumbered("categories", "category")

    def images(self) -> None:
        """Whole numbers as ids, names of files, missing sizes; a file that has several ids has one."""
        self.image_ids = self._renumbered("images", "image")
        self.other_ids: dict[int, int] = {}
        first: dict[tuple[str, Size | None], int] = {}
        kept = []
        for index, entry in enumerate(self.content["images"]):
            if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
                kept.append(entry)
                continue
            tell = self._tell("image", entry, index)
            self._name(entry, tell)
            self._measure(entry, tell)
            key = entry["file_name"], known_size(entry)
            if type(entry.get("id")) is int and first.setdefault(key, entry["id"]) != entry["id"]:
                self.other_ids[entry["id"]] = first[key]
                tell(f"left out: of the file of image {first[key]}, which gets its annotations")
            else:
                kept.append(entry)
        self.content["images"] = kept
        self.sizes = {entry["id"]: self._size(entry) for entry in kept if _has_id(entry)}

    def _renumbered(self, key: str, subject: Subject) -> Ids:
        ids = Ids.of([entry.get("id") for entry in self.content[key] if isinstance(entry, dict)])
        first: dict[object, Entry] = {}
        kept = []
        for index, entry in enumerate(self.content[key]):
            kept.append(entry)
            if not isinstance(entry, dict) or ids.mended(entry.get("id")) is None:
                continue
            tell = self._tell(subject, dict(entry), index)
            if first.setdefault(entry["id"], entry) is not entry and first[entry["id"]] == entry:
                tell("left out: an earlier entry is equal")
                kept.pop()
        for index, entry in enumerate(kept):
            if (
                isinstance(entry, dict)
                and (id_ := ids.mended(entry.get("id"))) is not None
                and _differ(id_, entry["id"])
            ):
                self._tell(subject, dict(entry), index)(f"has id {id_} now: ids are whole numbers")
                entry["id"] = id_
        self.content[key] = kept
        return ids

    def _name(self, entry: Entry, tell: Tell) -> None:
        name = entry["file_name"]
        if not name.strip() or "\0" in name:
            return
        found = only_file(self.files.images, name)
        if found is not None and found != name:
            entry["file_name"] = found
            tell(f"file_name {name!r} is {found!r} now, the only file that fits")

    def _measure(self, entry: Entry, tell: Tell) -> None:
        """Sides that are missing, no numbers or no sides; never others than the file's."""
        if known_size(entry) is not None:
            return
        try:
            height, width = image_size(image_path(self.files.images, entry["file_name"]))
        except DataError:
            return  # which is a fault that stays
        if _side(entry.get("width")) in (None, width) and _side(entry.get("height")) in (None, height):
            entry["width"], entry["height"] = width, height
            tell(f"width and height are those of the file, {width} x {height}")

    def _size(self, entry: Entry) -> Size | None:
        """Of an image, unless its file has another one: then nothing is known of what its annotations mean."""
        size, name = known_size(entry), entry.get("file_name")
        if size is None or not isinstance(name, str) or "\0" in name:
            return size
        path = image_path(self.files.images, name)
        try:
            image_size(path)
        except DataError:
            return size
        try:
            return image_size(path, size)
        except DataError:
            return None

    def annotations(self) -> None:
        """One after the other; then those that are there twice."""
        ids = Ids.of([entry.get("id") for entry in self.content["annotations"] if isinstance(entry, dict)])
        used: set[int] = set()
        seen: dict[object, int] = {}
        kept = []
        for index, entry in enumerate(self.content["annotations"]):
            if not isinstance(entry, dict):
                kept.append(entry)
                continue
            tell = self._tell("annotation", dict(entry), index)
            self._refer(entry, tell)
            _mend_crowd(entry, tell)
            # Where boxes do not fit and the masks may be wrong, nothing is taken from them.
            mask = None if self.doubtful & {index, None} else self._mend_shape(entry, tell)
            if self._is_empty(entry):
                tell("left out: an object without a mask and with a box without area")
                continue
            if (first := _repeated(entry, mask, seen)) is not None:
                tell(f"left out: repeats annotation {first}")
                continue
            self._identify(entry, ids, used, tell)
            if (key := _key(entry, mask)) is not None:
                seen.setdefault(key, entry["id"])
            kept.append(entry)
        self.content["annotations"] = kept

    def _identify(self, entry: Entry, ids: Ids, used: set[int], tell: Tell) -> None:
        id_ = ids.mended(entry.get("id"))
        taken = id_ in used
        why = ": an earlier one has its id" if taken else ": COCO's evaluator takes 0 for none" if id_ == 0 else ""
        if not id_ or taken:
            id_ = ids.free()
        if "id" not in entry or _differ(id_, entry["id"]):
            tell(f"has id {id_} now{why}")
            entry["id"] = id_
        used.add(id_)

    def _refer(self, entry: Entry, tell: Tell) -> None:
        """Ids of the image and the category, as these have them now."""
        for key, ids in (("image_id", self.image_ids), ("category_id", self.category_ids)):
            if key not in entry or (id_ := ids.referred(entry[key])) is None:
                continue
            id_ = self.other_ids.get(id_, id_) if key == "image_id" else id_
            if _differ(id_, entry[key]):
                tell(f"{key} is {id_} now, not {entry[key]!r}")
                entry[key] = id_

    def _mend_shape(self, entry: Entry, tell: Tell) -> Rle | None:
        """Mask, box and area; the mask, where there is a good one."""
        image = entry.get("image_id")
        size = self.sizes.get(image) if type(image) is int else None
        if size is None:
            return None
        _drop_parts(entry, tell)
        segmentation = entry.get("segmentation")
        problem = segmentation_problem(segmentation, size) if segmentation else None
        if not segmentation or (problem is not None and problem.severity == "error"):
            _cut_box(entry, size, tell)
            return None
        polygons, text = drawing_of(segmentation, size)
        shapes = Shapes.of([polygons], [text])
        mask = shapes.rle(0, size)
        crowd = bool(entry.get("iscrowd"))
        self._box_from_mask(entry, shapes, size, tell, crowd=crowd)
        _cut_box(entry, size, tell)
        self._area_from_mask(entry, float(coco_mask.area(mask)), tell, crowd=crowd)
        return mask

    def _box_from_mask(self, entry: Entry, shapes: Shapes, size: Size, tell: Tell, *, crowd: bool) -> None:
        corners = Extents.of(shapes, np.asarray([size])).corners
        spanned = np.clip(corners, 0, np.asarray([size[1], size[0]] * 2))[0]
        x1, y1, x2, y2 = np.round(spanned, 2).tolist()
        box, old = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)], entry.get("bbox")
        if box[2] <= 0 or box[3] <= 0:
            return
        wrong = old is None or _is_wrong(entry, size)
        if not wrong and not crowd:
            given = np.asarray([old], dtype=np.float64)
            fits = boxes_fit(given, corners, np.asarray([size]))[0]
            wrong = not fits or (self.all_boxes and bool(np.abs(given[0] - box).max() > 1))
        if wrong:
            tell("bbox is that of the mask now" + (f", {box}" if old is None else f", {box}, not {old}"))
            entry["bbox"] = box

    def _area_from_mask(self, entry: Entry, covered: float, tell: Tell, *, crowd: bool) -> None:
        old = entry.get("area")
        number = isinstance(old, int | float) and not isinstance(old, bool) and bool(np.isfinite(old)) and old >= 0
        if number and (crowd or not (self.all_areas or areas_differ(np.asarray(old), np.asarray(covered)))):
            return
        if covered and old != covered:
            tell(f"area is that of the mask now, {covered:g}" + ("" if old is None else f", not {old}"))
            entry["area"] = covered

    def _is_empty(self, entry: Entry) -> bool:
        """Nothing to learn, and nothing to find: no mask, and a box without area."""
        box, shape = entry.get("bbox"), entry.get("segmentation", "")
        flat = isinstance(box, list) and len(box) == 4 and (box[2] == 0 or box[3] == 0)
        undrawn = shape in ({}, None) or (isinstance(shape, list) and all(part == [] for part in shape))
        return undrawn and (flat or box is None or box == [])


def _mend_crowd(entry: Entry, tell: Tell) -> None:
    crowd = entry.get("iscrowd")
    if crowd is None or isinstance(crowd, bool) or crowd in ("0", "1"):
        entry["iscrowd"] = int(crowd or 0)
        tell(f"iscrowd is {entry['iscrowd']} now" + ("" if crowd is None else f", not {json.dumps(crowd)}"))


def _drop_parts(entry: Entry, tell: Tell) -> None:
    parts = entry.get("segmentation")
    if not isinstance(parts, list):
        return
    for drops, what in ((is_stray, "of fewer than 3 points"), (is_flat, "without an area")):
        kept = [part for part in parts if not drops(part)]
        if kept and len(kept) < len(parts):
            tell(f"polygons {what} left out: {len(parts) - len(kept)} of {len(parts)}")
            entry["segmentation"] = parts = kept


def _is_wrong(entry: Entry, size: Size) -> bool:
    """Whether the box alone is a fault, or without area."""
    return any(problem != BORDER for problem in _box_problems(entry, size))


def _box_problems(entry: Entry, size: Size) -> list[str]:
    alone = {"image_id": 0, "category_id": 0, "bbox": entry.get("bbox")}
    return [each.kind for each in annotation_problems(alone, {0}, {0: size}, Needs(masks=False))]


def _cut_box(entry: Entry, size: Size, tell: Tell) -> None:
    """A box that sticks out by a few pixels."""
    if entry.get("bbox") is None or _box_problems(entry, size) != [BORDER]:
        return
    x, y, width, height = entry["bbox"]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size[1]), min(y + height, size[0])
    entry["bbox"] = [left, top, right - left, bottom - top]
    tell(f"bbox is cut at the border of the image, {[round(each, 2) for each in entry['bbox']]}")


def _repeated(entry: Entry, mask: Rle | None, seen: Mapping[object, int]) -> int | None:
    key = _key(entry, mask)
    return None if key is None else seen.get(key)


def _key(entry: Entry, mask: Rle | None) -> object:
    """Equal for annotations of one image, one class and one shape; None for crowds."""
    box = entry.get("bbox")
    if entry.get("iscrowd") or (mask is None and not (isinstance(box, list) and len(box) == 4)):
        return None
    try:
        shape = tuple(box) if mask is None and isinstance(box, list) else mask and mask["counts"]
        key = (entry.get("image_id"), entry.get("category_id"), shape)
        hash(key)
    except TypeError:
        return None  # ids that are lists, say
    return key


def _side(value: object) -> int | None:
    """The whole number that a side is, also where it is written as 160.0 or '160'; None where it says nothing."""
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return None
    return int(number) if number > 0 and number.is_integer() else None


def _has_id(entry: object) -> bool:
    return isinstance(entry, dict) and type(entry.get("id")) is int


def _differ(id_: int, old: object) -> bool:
    return type(old) is not int or id_ != old
