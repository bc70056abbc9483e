"""Which image files to run a detector on, what results call them, and what their overlays are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from dsctool.data.records import AnnotationFile
from dsctool.errors import DataError
from dsctool.terms import Size


@dataclass(frozen=True)
class ImageFile:
    """An image to look at.

    id: what results call it. size: ``(h, w)`` that is known about it, which settles its orientation; or None.
    """

    path: Path
    id: int
    size: Size | None = None


def find_images(sources: Sequence[Path]) -> list[Path]:
    """The image files that ``sources`` name, each once, sorted by path.

    A file is taken whatever it is called; of a folder, the files directly in it that have an image's suffix.

    Raises:
        DataError: a source does not exist, or a folder has no images.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder")
        for path in _images_in(source) if source.is_dir() else [source]:
            found.setdefault(Path(os.path.abspath(path)), path)  # noqa: PTH100 - links are not followed
    return sorted(found.values())


def number_images(paths: Sequence[Path]) -> list[ImageFile]:
    """Ids from 1 in the order given."""
    return [ImageFile(path, identity) for identity, path in enumerate(paths, start=1)]


def identify_images(paths: Sequence[Path], table: AnnotationFile) -> list[ImageFile]:
    """Ids and sizes from the images of a COCO file (such as ``image_info_test-dev2017.json``), by file name.

    Raises:
        DataError: an image of the table has no id or no name; or there is none, or more than one, for a file.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for index, entry in enumerate(table.images):
        well_formed = isinstance(entry, dict) and type(entry.get("id")) is int
        if not well_formed or not isinstance(entry.get("file_name"), str):
            raise DataError(f"{table.path}: images[{index}] needs a whole number as 'id' and a text as 'file_name'")
        entries.setdefault(PurePath(entry["file_name"]).name, []).append(entry)
    files = [_identify(path, entries.get(path.name, []), table.path) for path in paths]
    seen: dict[int, Path] = {}
    for file in files:
        if file.id in seen:
            raise DataError(
                f"{file.path}: is image {file.id} of {table.path}, and so is {seen[file.id]}; give one of them"
            )
        seen[file.id] = file.path
    return files


def output_names(paths: Sequence[Path]) -> list[PurePath]:
    """A relative path for each file, all different (also where case does not count), none with a suffix or ``..``.

    Files keep the folders that tell them apart: what they have in common is left out.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links are not followed
    common = Path(os.path.commonpath([path.parent for path in absolute])) if absolute else Path()
    names: list[PurePath] = []
    taken: set[str] = set()
    for path in absolute:
        relative = path.relative_to(common)
        name = next(name for name in _candidates(relative) if str(name).casefold() not in taken)
        taken.add(str(name).casefold())
        names.append(name)
    return names


def _candidates(path: PurePath) -> Iterable[PurePath]:
    """``a/x``, then ``a/x.png`` (with the suffix as part of the name), then numbered ones."""
    yield path.with_suffix("") if path.stem else path
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _images_in(folder: Path) -> list[Path]:
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise DataError(f"{folder}: no images in this folder (folders in it are not searched)")
    return found


def _identify(path: Path, entries: Sequence[dict[str, Any]], table: Path) -> ImageFile:
    if len(entries) > 1:  # the folders in the table's names may tell them apart
        parts = Path(os.path.abspath(path)).parts  # noqa: PTH100 - links are not followed
        names = [PurePath(entry["file_name"]).parts for entry in entries]
        entries = [entry for entry, name in zip(entries, names, strict=True) if parts[-len(name) :] == name]
    if len(entries) != 1:
        raise DataError(f"{path}: {table} has {len(entries) or 'no'} image{'s' * (len(entries) > 1)} of this name")
    return ImageFile(path, entries[0]["id"], _size(entries[0]))


def _size(entry: dict[str, Any]) -> Size | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
