"""Images that are one file, and names that are written otherwise than their files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from dsctool.data.faults import MANY, Fault
from dsctool.data.file_names import hint, image_path, only_file
from dsctool.data.records import AnnotationFile, ImageInfo

Placed = Sequence[tuple[int, ImageInfo]]
"""Images with their places in the file's list."""


def file_name_faults(annotations: Path, folder: Path, images: Placed, *, contents: bool) -> list[Fault]:
    """What is odd about the files of images. contents: also look for copies under other names, by reading files."""
    paths = [image_path(folder, info.file_name) for _, info in images]
    return [
        *_otherwise(annotations, folder, images, paths),
        *_shared(annotations, folder, images, paths),
        *(_copies(annotations, images, paths) if contents else ()),
    ]


def with_name_hints(faults: Sequence[Fault], content: AnnotationFile, folder: Path) -> list[Fault]:
    """The same; where a name leads out of the folder, they say which file in it may be meant."""
    return [_with_hint(fault, content, folder) if fault.kind == "file name" else fault for fault in faults]


def _with_hint(fault: Fault, content: AnnotationFile, folder: Path) -> Fault:
    entry = content.images[fault.index] if fault.index is not None else {}
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not folder.is_dir():
        return fault
    file = only_file(folder, name) if name.strip() and "\0" not in name else None
    return fault if file is None else replace(fault, message=f"{fault.message}: is '{file}' meant, which is there?")


def missing_hint(folder: Path, name: str) -> str:
    """What to add to the error about a missing file."""
    text = hint(folder, name)
    return f": {text}" if text else ""


def _otherwise(annotations: Path, folder: Path, images: Placed, paths: Sequence[Path]) -> Iterator[Fault]:
    found = [
        (info.file_name, path.relative_to(folder))
        for (_, info), path in zip(images, paths, strict=True)
        if path != folder / info.file_name
    ]
    if found:
        name, file = found[0]
        count = "1 file name is" if len(found) == 1 else f"{len(found)} file names are"
        form = " (another Unicode form)" if normalize("NFKC", name) == normalize("NFKC", str(file)) else ""
        message = f"{count} written otherwise than the only file that fits: {name!r} is taken to be '{file}'{form}"
        yield Fault(annotations, "file", None, None, "file name", message, "warning")


def _shared(annotations: Path, folder: Path, images: Placed, paths: Sequence[Path]) -> Iterator[Fault]:
    """One file, several images: under one name it is learnt twice; under several, a guess would mix up images."""
    by_path: dict[Path, list[tuple[int, ImageInfo]]] = defaultdict(list)
    for image, path in zip(images, paths, strict=True):
        by_path[path].append(image)
    several = {path: alike for path, alike in by_path.items() if len(alike) > 1}
    for path, alike in several.items():
        (_, first), *others = alike
        guessed = {info.file_name for _, info in alike if path != folder / info.file_name}
        for place, info in others:
            if info.file_name != first.file_name and guessed:
                message = f"{info.file_name!r} is no file, and the one that fits is that of image {first.id} too"
                yield Fault(annotations, "image", info.id, place, "file name", message)
            else:
                message = f"is of the file of {_named(first, len(several))}: it is looked at twice"
                yield Fault(annotations, "image", info.id, place, "duplicate", message, "warning")


def _copies(annotations: Path, images: Placed, paths: Sequence[Path]) -> Iterator[Fault]:
    """Files of the same bytes; only those of one length are read."""
    by_length: dict[int, dict[Path, tuple[int, ImageInfo]]] = defaultdict(dict)
    for image, path in zip(images, paths, strict=True):
        if (length := _length(path)) is not None:
            by_length[length].setdefault(path, image)
    pairs = []
    for alike in by_length.values():
        first: dict[bytes, ImageInfo] = {}
        for path, (place, info) in alike.items() if len(alike) > 1 else ():
            same = first.setdefault(_digest(path), info)
            if same is not info:
                pairs.append((place, info, same))
    for place, info, same in pairs:
        message = f"is a copy of the file of {_named(same, len(pairs))}: it is looked at twice"
        yield Fault(annotations, "image", info.id, place, "duplicate", message, "warning")


def in_both(learnt: Sequence[Path], others: Sequence[Path]) -> int:
    """How many of the ``others`` are files that are learnt from, or copies of such."""
    by_length: dict[int | None, set[Path]] = defaultdict(set)
    for path in learnt:
        by_length[_length(path)].add(path)
    digests: dict[int | None, set[bytes]] = {}
    count = 0
    for path in others:
        alike = by_length.get(length, set()) if (length := _length(path)) is not None else set()
        if alike and length not in digests:
            digests[length] = {_digest(each) for each in alike}
        count += bool(alike) and (path in alike or _digest(path) in digests[length])
    return count


def _named(image: ImageInfo, count: int) -> str:
    """Where there are many, they share a line that names no others."""
    return f"image {image.id}" if count < MANY else "an earlier image"


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:  # which is a fault of its own
        return f"{path}: {error}".encode(errors="surrogatepass")
