"""Which image files to run a detector on, what results call them, and what their overlays are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from dsctool.data.decoding import image_suffixes
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


@dataclass(frozen=True)
class Found:
    """Image files, each once, sorted by path; and the files beside them that were left out for their suffix."""

    images: list[Path]
    ignored: list[Path]

    @property
    def note(self) -> str:
        """What was left out, on one line; empty where nothing was."""
        if not self.ignored:
            return ""
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in self.ignored)
        count = len(self.ignored)
        return f"ignored {count} file{'s' * (count > 1)}: {', '.join(sorted(suffixes))}"


def find_images(sources: Sequence[Path]) -> list[Path]:
    """The images of :func:`search_images`, without folders in folders."""
    return search_images(sources).images


def search_images(sources: Sequence[Path], *, recursive: bool = False, output: Path | None = None) -> Found:
    """The image files that ``sources`` name.

    A file is taken whatever it is called; of a folder, and of what a pattern such as ``photos/*.png`` or
    ``photos/**/*.png`` fits, the files that have an image's suffix.

    Args:
        sources: files, folders and patterns.
        recursive: also search the folders in folders; hidden ones, and links to folders, are not entered.
        output: a folder that is not entered on the way, since results are written there.

    Raises:
        DataError: a source does not exist, or a folder has no images, or a pattern fits none.
    """
    found: dict[Path, Path] = {}
    ignored: dict[Path, None] = {}
    suffixes = image_suffixes()
    outside = None if output is None else _absolute(output)
    for source in sources:
        if source.exists() and not source.is_dir():
            found.setdefault(_absolute(source), source)
            continue
        images, others = 0, []
        for path in _files_of(source, recursive, outside):
            if path.suffix.lower() in suffixes:
                found.setdefault(_absolute(path), path)
                images += 1
            else:
                others.append(path)
        if not images:
            note = Found([], others).note
            raise DataError(f"{source}: {_nothing(source, recursive)}{f'; {note}' if note else ''}")
        ignored.update(dict.fromkeys(others))
    return Found(sorted(found.values()), sorted(path for path in ignored if _absolute(path) not in found))


def _files_of(source: Path, recursive: bool, outside: Path | None) -> Iterator[Path]:
    """The files in a folder, or that a pattern fits."""
    if source.is_dir():
        for folder, inner, names in os.walk(source):
            visible = (Path(folder, name) for name in names if not name.startswith("."))
            yield from visible  # links to nothing and pipes too: reading them says what is wrong
            inner[:] = [name for name in inner if not name.startswith(".") and _absolute(Path(folder, name)) != outside]
            if not recursive:
                return
        return
    if not glob.has_magic(str(source)):
        raise DataError(f"{source}: no such file or folder")
    for name in glob.iglob(str(source), recursive=True):  # noqa: PTH207 - a pattern may be absolute
        path = Path(name)
        if not path.is_dir():
            yield path
        elif recursive:
            yield from _files_of(path, recursive, outside)


def _nothing(source: Path, recursive: bool) -> str:
    if not source.is_dir():
        return "fits no image"
    within = "or in those within it" if recursive else "(--recursive also searches the folders in it)"
    return f"no images in this folder {within}"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed


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
    absolute = [_absolute(path) for path in paths]
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


def _identify(path: Path, entries: Sequence[dict[str, Any]], table: Path) -> ImageFile:
    if len(entries) > 1:  # the folders in the table's names may tell them apart
        parts = _absolute(path).parts
        names = [PurePath(entry["file_name"]).parts for entry in entries]
        entries = [entry for entry, name in zip(entries, names, strict=True) if parts[-len(name) :] == name]
    if len(entries) != 1:
        raise DataError(f"{path}: {table} has {len(entries) or 'no'} image{'s' * (len(entries) > 1)} of this name")
    return ImageFile(path, entries[0]["id"], _size(entries[0]))


def _size(entry: dict[str, Any]) -> Size | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
