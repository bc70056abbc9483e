"""The one reader of COCO annotations: columns of what is faultless, and the faults of the rest.

Entries that are certainly in order are recognised many at once, and become numbers in arrays; each of the others is
looked at by the rules in words (:mod:`dsctool.data.rules`), which alone decide what a fault is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Self, TypeGuard

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from pycocotools import mask as coco_mask

from dsctool.cores import without_collection
from dsctool.data.faults import Fault
from dsctool.data.joint import joint_faults
from dsctool.data.proofs import proved_boxes, proved_polygons, proved_runs
from dsctool.data.records import LARGEST_NUMBER, AnnotationFile, Category, ImageInfo, json_kind
from dsctool.data.rules import (
    LARGEST_ID,
    OUTSIDE,
    Checked,
    Needs,
    annotation_problems,
    check_categories,
    check_images,
    faults_of,
    id_problems,
    known_size,
    shape_problem,
)
from dsctool.data.segmentations import Problem
from dsctool.data.shapes import Floats, Shapes, drawing_of
from dsctool.rle import Bools, Ints
from dsctool.terms import Progress, Size

_CHUNK = 20_000  # annotations that are Python objects at one time


@dataclass(frozen=True, eq=False)
class Annotations:
    """Faultless annotations of faultless images: ``m`` rows, in the order of the file.

    place: ``(m,)``, in the file's list. id: ``(m,)``. image: ``(m,)``, which image of the reading. label: ``(m,)``,
    which category. box: ``(m, 4)``, x, y, width, height in pixels. area: ``(m,)``. crowd: ``(m,)``. shapes: the
    segmentations of all rows, without those of a file that is read for boxes only.
    """

    place: Ints
    id: Ints
    image: Ints
    label: Ints
    box: Floats
    area: Floats
    crowd: Bools
    shapes: Shapes

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        flat = [each.name for each in fields(cls) if each.name != "shapes"]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in flat}
        return cls(**arrays, shapes=Shapes.join([part.shapes for part in parts]))

    def take(self, rows: Ints | Bools) -> Self:
        """Only these rows."""
        flat = [each.name for each in fields(self) if each.name != "shapes"]
        return replace(self, **{name: getattr(self, name)[rows] for name in flat}, shapes=self.shapes.take(rows))

    def renumbered(self, number: Ints) -> Self:
        """The same with other places of images: ``number`` of each place there is."""
        return replace(self, image=number[self.image]) if len(self) else self

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Reading:
    """What an annotation file holds.

    categories: by ascending id; a label is an index. images: faultless ones, in the order of the file, with their
    ``places`` in its list; width and height 0 where the file has none and needs none. faults: of everything else.
    derived: how many values were taken from others, by key.
    """

    path: Path
    needs: Needs
    categories: list[Category]
    images: list[ImageInfo]
    places: list[int]
    annotations: Annotations
    faults: list[Fault]
    derived: Mapping[str, int]

    @cached_property
    def sizes(self) -> Ints:
        """``(images, 2)``: heights and widths."""
        return np.asarray([info.size for info in self.images], dtype=np.int64).reshape(-1, 2)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was derived, for people, in one line that does not name the file."""
        parts = [f"{count} x {key} {_SOURCES[key]}" for key, count in self.derived.items() if count]
        return (f"annotations lack values: {', '.join(parts)}",) if parts else ()


_SOURCES = {"area": "(counted in the mask or box)", "bbox": "(taken from the mask)", "iscrowd": "(taken as 0)"}


@without_collection()
def read_columns(file: AnnotationFile, needs: Needs, progress: Progress | None = None) -> Reading:
    """Check every entry, and keep the faultless ones. progress: told how many annotations are read."""
    categories, images = check_categories(file, needs), check_images(file, needs)
    kept, labels = images.faultless, _ordered(categories.faultless)
    reader = _Reader(file, needs, images, categories, {id_: row for row, id_ in enumerate(kept)}, labels)
    done = 0
    while done < len(file.annotations):
        done = reader.read(done)
        if progress is not None:
            progress("annotations", done, len(file.annotations))
    annotations = reader.columns()
    joint = joint_faults(file, annotations, reader.sizes, reader.outside, reader.rows)
    return Reading(
        path=file.path,
        needs=needs,
        categories=[Category(id_, str(categories.by_id[id_].get("name", id_))) for id_ in labels],
        images=[_info(entry) for entry in kept.values()],
        places=[images.places[id_] for id_ in kept],
        annotations=annotations,
        faults=[*categories.faults, *images.faults, *reader.faults, *joint],
        derived=reader.derived,
    )


def has_segmentations(file: AnnotationFile) -> bool:
    """Whether any annotation has one that is not empty."""
    return any(isinstance(entry, Mapping) and entry.get("segmentation") for entry in file.annotations)


def _ordered(entries: Mapping[Any, Any]) -> dict[Any, int]:
    """Labels by id; ids of numbers and text, which are a fault, have no order of their own."""
    return {id_: label for label, id_ in enumerate(sorted(entries, key=lambda id_: (isinstance(id_, str), id_)))}


def _info(entry: Mapping[str, Any]) -> ImageInfo:
    height, width = known_size(entry) or (0, 0)
    name = entry.get("file_name")
    return ImageInfo(entry["id"], name if isinstance(name, str) else "", width, height)


# --- annotations ----------------------------------------------------------------------------------

_Id = Annotated[int, Meta(ge=-LARGEST_ID, le=LARGEST_ID)]
_Side = Annotated[int, Meta(ge=0, le=int(LARGEST_NUMBER))]
_Box = tuple[float, float, float, float]


class _Runs(msgspec.Struct, gc=False):
    size: tuple[_Side, _Side]
    counts: str | list[int]


class _BoxAnnotation(msgspec.Struct, gc=False):
    """An annotation that may well be in order, for who needs no masks."""

    id: _Id
    image_id: int | str
    category_id: int | str
    bbox: _Box | UnsetType | None = UNSET
    area: float | UnsetType | None = UNSET
    iscrowd: int | bool | UnsetType | None = UNSET


class _Annotation(_BoxAnnotation, gc=False):
    """The same with its mask."""

    segmentation: list[list[float]] | _Runs | UnsetType | None = UNSET


_NOTHING = _Annotation(id=0, image_id="", category_id="")
_UNKNOWN = (np.nan,) * 4
_CROWD: dict[Any, int] = {0: 0, 1: 1, None: 0, UNSET: 0}


@dataclass
class _Reader:
    """Reads annotations, some at a time.

    images, categories: all of the file, faulty ones too. rows, labels: of the faultless ones, by id.
    """

    file: AnnotationFile
    needs: Needs
    images: Checked
    categories: Checked
    rows: Mapping[Any, int]
    labels: Mapping[Any, int]
    parts: list[Annotations] = field(default_factory=list)
    ids: list[Ints] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    outside: list[Mapping[str, Any]] = field(default_factory=list)  # which have no other fault than their boxes
    derived: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.known_sizes = {id_: known_size(entry) for id_, entry in self.images.by_id.items()}
        sizes = [self.known_sizes[id_] or (0, 0) for id_ in self.rows]
        self.sizes = np.asarray([*sizes, (0, 0)], dtype=np.int64)  # the last one is of unknown images

    def read(self, first: int) -> int:
        """The annotations from ``first`` on; where the next ones begin."""
        entries = self.file.annotations[first : first + _CHUNK]
        typed: Sequence[_Annotation | _BoxAnnotation | None]
        typed = entries.typed(_Annotation) if self.needs.masks else entries.typed(_BoxAnnotation)
        chunk = _Chunk(typed, self.rows, self.labels, self.sizes, self.needs)
        for row in np.flatnonzero(~chunk.proved()).tolist():
            entry = entries[row]
            problems = list(self._problems(entry))
            self.faults += faults_of(self.file, "annotation", entry, first + row, problems)
            errors = [problem.kind for problem in problems if problem.severity == "error"]
            if errors:
                if errors == [OUTSIDE] and len(self.outside) < _CHUNK:
                    self.outside.append(entry)
                chunk.drop(row, entry)
            else:
                chunk.accept(row, entry)
        self.ids.append(chunk.id)
        self.parts.append(chunk.columns(first, self.derived))
        return first + len(entries)

    def _problems(self, entry: object) -> Iterator[Problem]:
        if not isinstance(entry, Mapping):
            yield Problem("wrong type", f"must be an object, not {json_kind(entry)}")
            return
        yield from id_problems(entry, ())
        yield from annotation_problems(entry, self.categories.by_id, self.known_sizes, self.needs)

    def columns(self) -> Annotations:
        """All that was read, without entries whose id an earlier one has: these are faults."""
        joined = Annotations.join(self.parts or [_Chunk([], {}, {}, self.sizes, self.needs).columns(0, Counter())])
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *self.ids])
        places = np.flatnonzero(ids != _NO_ID)
        _, first = np.unique(ids[places], return_index=True)
        repeated = np.delete(places, first)
        if not len(repeated):
            return joined
        for place in repeated.tolist():
            entry = self.file.annotations[place]
            problems = id_problems(entry, {entry["id"]})
            self.faults += faults_of(self.file, "annotation", entry, place, problems)
        self.faults.sort(key=lambda fault: fault.index or 0)
        return joined.take(~np.isin(joined.place, repeated))


_NO_ID = np.iinfo(np.int64).min


class _Chunk:
    """Annotations on their way into columns; those that could not be read as ``_Annotation`` are None."""

    def __init__(
        self,
        entries: Sequence[_Annotation | _BoxAnnotation | None],
        rows: Mapping[Any, int],
        labels: Mapping[Any, int],
        sizes: Ints,
        needs: Needs,
    ) -> None:
        self._rows, self._labels, self._needs = rows, labels, needs
        self._typed = np.asarray([each is not None for each in entries], dtype=bool)
        every = [each or _NOTHING for each in entries]
        self.id = _whole(each.id for each in every)
        self.id[~self._typed] = _NO_ID
        self._image = _whole(rows.get(each.image_id, -1) for each in every)
        self._label = _whole(labels.get(each.category_id, -1) for each in every)
        self._sizes = sizes
        self._no_box = np.asarray([not each.bbox for each in every], dtype=bool)
        self._no_area = np.asarray([each.area is None or each.area is UNSET for each in every], dtype=bool)
        self._no_crowd = np.asarray([each.iscrowd is None or each.iscrowd is UNSET for each in every], dtype=bool)
        self._box = np.asarray([each.bbox or _UNKNOWN for each in every], dtype=np.float64).reshape(-1, 4)
        self._area = np.asarray([each.area or 0.0 for each in every], dtype=np.float64)
        self._crowd = _whole(_CROWD.get(each.iscrowd, 2) for each in every)
        given = [each.segmentation if isinstance(each, _Annotation) else None for each in every]
        self._drawings: list[list[list[float]]] = [each if isinstance(each, list) else [] for each in given]
        self._texts = [_text(each) for each in given]
        self._run_sizes = np.asarray(
            [each.size if isinstance(each, _Runs) else (0, 0) for each in given], dtype=np.int64
        )

    @property
    def _size(self) -> Ints:
        return self._sizes[self._image]

    def proved(self) -> Bools:
        """``(n,)``: which entries are certainly without a fault."""
        size = self._size
        proved = self._typed & (self._image >= 0) & (self._label >= 0) & (self._crowd < 2)
        proved &= (self._area >= 0) & (self._area <= LARGEST_NUMBER)
        bounds = size if self._needs.pictures else np.zeros_like(size)
        proved &= self._no_box | proved_boxes(self._box, bounds)
        if not self._needs.masks:
            return proved & ~self._no_box & ~self._no_area  # what is missing is taken from a mask, if there is one
        shapes = Shapes.of(self._drawings, self._texts)
        outlined = proved_polygons(shapes, size)
        runs = (self._run_sizes.reshape(-1, 2) == size).all(axis=1) & proved_runs(shapes, size)
        return proved & np.where(shapes.letters_of > 0, runs, outlined)

    def drop(self, row: int, entry: object) -> None:
        """Leave out an entry with an error; what id it has counts."""
        identity = entry.get("id") if isinstance(entry, Mapping) else None
        self.id[row] = int(identity) if _is_id(identity) else _NO_ID
        self._image[row] = -1

    def accept(self, row: int, entry: Mapping[str, Any]) -> None:
        """Take an entry that the rules found faultless."""
        self.id[row] = entry["id"]
        self._image[row] = self._rows.get(entry["image_id"], -1)
        self._label[row] = self._labels.get(entry["category_id"], -1)
        box, area, crowd = (entry.get(key) for key in ("bbox", "area", "iscrowd"))
        self._no_box[row], self._no_area[row], self._no_crowd[row] = box is None, area is None, crowd is None
        self._box[row] = _UNKNOWN if box is None else box
        self._area[row], self._crowd[row] = area or 0.0, bool(crowd)
        shape = entry.get("segmentation") if self._needs.masks or box is None or area is None else None
        size: Size = tuple(self._sizes[self._image[row]].tolist())
        problem = shape_problem(shape, size, self._needs)
        faulty = not shape or (problem is not None and problem.severity == "error")
        self._drawings[row], self._texts[row] = ([], b"") if faulty else drawing_of(shape, size)

    def columns(self, first: int, derived: Counter[str]) -> Annotations:
        """What is left. first: the place of the first entry. derived: counts what is taken from other values."""
        kept = np.flatnonzero((self._image >= 0) & (self._label >= 0))
        broken = np.delete(np.arange(len(self.id)), kept)
        for row in broken.tolist():
            self._drawings[row], self._texts[row] = [], b""
        shapes = Shapes.of(self._drawings, self._texts)
        self._derive(kept, shapes, derived)
        return Annotations(
            place=kept + first,
            id=self.id[kept],
            image=self._image[kept],
            label=self._label[kept],
            box=self._box[kept],
            area=self._area[kept],
            crowd=self._crowd[kept] == 1,
            shapes=shapes.take(kept),
        )

    def _derive(self, kept: Ints, shapes: Shapes, derived: Counter[str]) -> None:
        """Boxes from masks, and areas from masks, or else boxes."""
        size = self._size
        for row in kept[self._no_box[kept] | self._no_area[kept]].tolist():
            mask = shapes.rle(row, tuple(size[row].tolist())) if shapes.given[row] else None
            if self._no_box[row]:
                assert mask is not None
                self._box[row] = coco_mask.toBbox(mask)
            if self._no_area[row]:
                self._area[row] = self._box[row, 2] * self._box[row, 3] if mask is None else coco_mask.area(mask)
        for key, missing in (("area", self._no_area), ("bbox", self._no_box), ("iscrowd", self._no_crowd)):
            derived[key] += int(np.count_nonzero(missing[kept]))


def _text(segmentation: object) -> bytes:
    """Of compressed runs; there is none of lists, of which files have few: they are looked at alone."""
    counts = segmentation.counts if isinstance(segmentation, _Runs) else None
    return counts.encode(errors="surrogatepass") if isinstance(counts, str) else b""


def _whole(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) <= LARGEST_ID
