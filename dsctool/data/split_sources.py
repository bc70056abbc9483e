"""Data sets as commands take them: a folder of the standard layout, or one annotation file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsctool.data.layout import SplitFiles, find_splits
from dsctool.data.records import IMAGES_ONLY, read_annotation_file
from dsctool.errors import DataError

_PREFIX = "instances_"


def splits_of(source: Path) -> list[SplitFiles]:
    """The splits of a folder in the standard layout, or what an annotation file alone describes.

    The images of a single file lie in the folder that its name belongs to, or beside it, or in ``images``: the first of
    these that has the first image. The folder that is given may be missing.

    Raises:
        DataError: there is no such file or folder, or it holds no data set.
    """
    if source.is_file():
        return [SplitFiles(source, _images_of(source))]
    return find_splits(source)


def split_name(files: SplitFiles) -> str:
    """What a split is called."""
    return files.annotations.stem.removeprefix(_PREFIX)


def image_paths(source: Path) -> list[Path]:
    """The files of all images of a data set, or of an annotation file.

    Raises:
        DataError: as for :func:`splits_of`, or an image has no name.
    """
    return [files.images / name for files in splits_of(source) for name in _names(files.annotations)]


def _images_of(annotations: Path) -> Path:
    name, here = annotations.stem.removeprefix(_PREFIX), annotations.parent
    standard = here.parent / name
    first = _names(annotations)[:1]
    folders = [standard, here / name, here / "images" / name, here / "images", here.parent / "images", here]
    return next((folder for folder in folders if first and (folder / first[0]).is_file()), standard)


def _names(annotations: Path) -> Sequence[str]:
    table = read_annotation_file(annotations, needed=[IMAGES_ONLY[0]])
    names = [entry.get("file_name") if isinstance(entry, dict) else None for entry in table.images]
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise DataError(f"{annotations}: images[{index}] needs a text as 'file_name'")
    return [name for name in names if isinstance(name, str)]
