"""Several annotation files as one: classes by name, every image once, ids from 1.

Images are the same where their names are, and their contents: bytes where both files are there, else sizes. Where
several sources have annotations for an image, and not the same ones, :data:`Shared` says what becomes of them.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np

from dsctool.data.columns import Reading, has_segmentations, read_columns
from dsctool.data.faults import refuse_faults
from dsctool.data.layout import SplitFiles
from dsctool.data.records import AnnotationFile, read_annotation_file
from dsctool.data.rules import Needs
from dsctool.errors import DataError
from dsctool.rle import Ints

Shared = Literal["refuse", "keep", "first", "last"]
"""Annotations of an image that differ between sources. ``refuse``: an error. ``keep``: all, each class and shape once.
``first``, ``last``: those of the first or last source that has any."""
_NAMED = 3


@dataclass(frozen=True, eq=False)
class Source:
    """An annotation file without faults. entries: as they are in it. rows: of the annotations of each image."""

    files: SplitFiles
    entries: AnnotationFile
    reading: Reading
    rows: Sequence[Ints]

    def image(self, number: int) -> Mapping[str, Any]:
        """The entry of an image."""
        entry: Mapping[str, Any] = self.entries.images[self.reading.places[number]]
        return entry

    def path(self, number: int) -> Path:
        """Its file, which may be missing."""
        return self.files.images / self.reading.images[number].file_name

    def annotation(self, row: int) -> Mapping[str, Any]:
        """The entry of an annotation."""
        entry: Mapping[str, Any] = self.entries.annotations[int(self.reading.annotations.place[row])]
        return entry

    def shape(self, row: int) -> tuple[object, ...]:
        """Class and place of an annotation, equal where two annotations say the same."""
        rows, info = self.reading.annotations, self.reading.images[int(self.reading.annotations.image[row])]
        kind = self.reading.categories[int(rows.label[row])].name, bool(rows.crowd[row])
        if rows.shapes.given[row]:
            return (*kind, rows.shapes.rle(row, info.size)["counts"])
        return (*kind, *rows.box[row].round(2).tolist())


def open_source(files: SplitFiles) -> Source:
    """Read an annotation file.

    Raises:
        DataError: it has faults, as ``dsctool data check`` reports them, or several classes of one name.
    """
    entries = read_annotation_file(files.annotations)
    reading = read_columns(entries, Needs(masks=has_segmentations(entries)))
    refuse_faults(reading.faults)
    names = [category.name for category in reading.categories]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{files.annotations}: several categories are called {repeated[0]}: classes go by name, so give them others"
        )
    order = np.argsort(reading.annotations.image, kind="stable")
    ends = np.searchsorted(reading.annotations.image[order], np.arange(len(reading.images)), side="right")
    return Source(files, entries, reading, np.split(order, ends)[:-1])


@dataclass
class MergedImage:
    """An image of the result. origin: source and number of the image there. rows: its annotations, by source."""

    name: str
    origin: tuple[Source, int]
    rows: list[tuple[Source, Ints]]

    @property
    def path(self) -> Path:
        """Its file, which may be missing."""
        source, number = self.origin
        return source.path(number)


@dataclass
class Merged:
    """The result. ids: of the classes, by name. doubled: images that several sources had. renamed: of other content."""

    ids: dict[str, int] = field(default_factory=dict)
    images: list[MergedImage] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    doubled: int = 0
    renamed: int = 0

    @property
    def num_annotations(self) -> int:
        """Of all images."""
        return sum(len(rows) for image in self.images for _, rows in image.rows)

    def write(self, file: BinaryIO) -> None:
        """As COCO JSON, entry by entry; what entries have besides ids and names is kept, but for licence numbers."""

        def put(values: Iterator[object], head: str) -> None:
            file.write(f"{head}[".encode())
            for number, value in enumerate(values):
                file.write((", " * bool(number) + json.dumps(value)).encode())
            file.write(b"]")

        put(iter(self.categories), '{"categories": ')
        put(self._images(), ', "images": ')
        put(self._annotations(), ', "annotations": ')
        file.write(b"}\n")

    def _images(self) -> Iterator[object]:
        for id_, image in enumerate(self.images, start=1):
            source, number = image.origin
            entry = {key: value for key, value in source.image(number).items() if key != "license"}
            yield {**entry, "id": id_, "file_name": image.name}

    def _annotations(self) -> Iterator[object]:
        id_ = 0
        for image_id, image in enumerate(self.images, start=1):
            for source, rows in image.rows:
                for row in rows.tolist():
                    id_ += 1
                    name = source.reading.categories[int(source.reading.annotations.label[row])].name
                    ids = {"id": id_, "image_id": image_id, "category_id": self.ids[name]}
                    yield {**source.annotation(row), **ids}


def merge(sources: Sequence[Source], *, shared: Shared = "refuse", rename: bool) -> Merged:
    """Merge sources, earlier ones first.

    rename: an image that has the name of another one gets a new name; else this is refused, for files that stay where
    they are cannot be renamed.

    Raises:
        DataError: sources differ in what they say of an image and ``shared`` is ``refuse``; or as said above.
    """
    merged, differing = Merged(), []
    by_name: dict[str, list[MergedImage]] = {}  # as the sources call them
    taken: set[str] = set()
    for source in sources:
        _add_categories(merged, source)
        for number, info in enumerate(source.reading.images):
            name, alike = info.file_name, by_name.setdefault(info.file_name, [])
            found = next((image for image in alike if _same_content(image, source, number)), None)
            if found is not None:
                merged.doubled += 1
                if not _join(found, source, source.rows[number], shared):
                    differing.append((found, source))
                continue
            if alike and not rename:
                raise DataError(
                    f"{source.files.annotations}: its image {name} is another one than that of "
                    f"{alike[0].origin[0].files.annotations}; name a folder as --output, into which images are put "
                    "under names of their own"
                )
            if name in taken:
                name = _free_name(name, taken)
                merged.renamed += 1
            image = MergedImage(name, (source, number), [(source, source.rows[number])])
            taken.add(name)
            alike.append(image)
            merged.images.append(image)
    if differing:
        raise DataError(_differing(differing))
    return merged


def _add_categories(merged: Merged, source: Source) -> None:
    """Classes keep their ids where these are free."""
    entries = {entry["id"]: entry for entry in source.entries.categories}
    taken = set(merged.ids.values())
    for category in source.reading.categories:
        if category.name in merged.ids:
            continue
        id_ = category.id if category.id not in taken else max([*taken, 0]) + 1
        taken.add(id_)
        merged.ids[category.name] = id_
        merged.categories.append({**entries[category.id], "id": id_})


def _same_content(image: MergedImage, source: Source, number: int) -> bool:
    first, first_number = image.origin
    ours, theirs = first.reading.images[first_number], source.reading.images[number]
    if ours.size != theirs.size:
        return False
    paths = image.path, source.path(number)
    return not all(path.is_file() for path in paths) or filecmp.cmp(*paths, shallow=False)


def _join(image: MergedImage, source: Source, rows: Ints, shared: Shared) -> bool:
    """Add the annotations of another source; whether that was possible."""
    before = [(each, row) for each, found in image.rows for row in found.tolist()]
    if not len(rows) or not before:
        image.rows.append((source, rows))
        return True
    known = {each.shape(row) for each, row in before}
    new = [row for row in rows.tolist() if source.shape(row) not in known]
    same = not new and {source.shape(row) for row in rows.tolist()} == known
    if same or shared == "first":
        return True
    if shared == "last":
        image.rows = [(source, rows)]
    elif shared == "keep":
        image.rows.append((source, np.asarray(new, dtype=np.int64)))
    return shared != "refuse"


def _free_name(name: str, taken: Container[str]) -> str:
    path, number = PurePosixPath(name), 2
    while str(new := path.with_name(f"{path.stem}-{number}{path.suffix}")) in taken:
        number += 1
    return str(new)


def _differing(found: Sequence[tuple[MergedImage, Source]]) -> str:
    image, source = found[0]
    paths = [image.path.name for image, _ in found[:_NAMED]]
    names = ", ".join(paths) + (", ..." if len(found) > _NAMED else "")
    count = f"{len(found)} images have" if len(found) > 1 else "1 image has"
    other = image.origin[0].files.annotations
    return (
        f"{count} other annotations in {source.files.annotations} than in {other}: {names}. Say which to take: "
        "--shared keep (all, equal ones once), first or last. dsctool data diff shows how they differ"
    )


def refuse_leaks(parts: Mapping[str, Merged]) -> None:
    """Raise DataError where an image is in several splits: what is learnt from would be measured on."""
    seen: dict[str, list[tuple[str, MergedImage]]] = {}
    for split, merged in parts.items():
        for image in merged.images:
            source, number = image.origin
            alike = seen.setdefault(source.reading.images[number].file_name, [])
            for other, twin in alike:
                if other != split and _same_content(twin, source, number):
                    raise DataError(
                        f"{image.path}: is in split {split} of {source.files.annotations} and in split {other} of "
                        f"{twin.origin[0].files.annotations}: take it out of one of them, or merge all into one split "
                        f"(--split {other})"
                    )
            alike.append((split, image))
