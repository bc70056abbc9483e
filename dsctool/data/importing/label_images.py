"""Label images: one value for each instance, 0 where there is none."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images
from dsctool.data.importing.mask_files import MaskFile, pair_masks
from dsctool.data.importing.rasters import label_rles, read_values
from dsctool.data.importing.record import DEFAULT_CLASS, Found, Instance, Options, Picture
from dsctool.data.outlines import components
from dsctool.errors import DataError
from dsctool.files import read_bytes

CLASSES_FILE = "classes.csv"
"""Read where there is one in the source."""
_IMAGE, _VALUE, _CLASS = ("image", "file_name", "file", "filename"), ("value", "label", "id", "instance"), (
    "class", "category", "name", "class_name",
)  # fmt: skip

ClassTable = dict[tuple[str | None, int], str]
"""Classes by an image's path without its suffix, or the end of it that the file gives, or None for all; and value."""


def read(source: Path, options: Options) -> Found:
    """Pictures with a label image each, or one for each class in folders named after them.

    The class of an instance is in the CSV file of classes (columns ``image``, ``value`` and ``class``, the first of
    which may be missing), or the folder's name, or ``options.class_name``.

    Raises:
        DataError: masks and pictures do not fit together, or a value has no class in the file of classes.
    """
    images = Images(source)
    file = options.classes or (source / CLASSES_FILE if (source / CLASSES_FILE).is_file() else None)
    table = None if file is None else read_classes(file)
    pairs, notes = pair_masks(images, options, per_instance=False)
    pictures = []
    whole = 0
    for pair in pairs:
        instances: list[Instance] = []
        size = None
        for mask, folder in pair.masks:
            values = read_values(mask.path)
            size = values.shape if size is None else size
            if values.shape != size:
                raise DataError(f"{mask.path}: is {values.shape[1]} x {values.shape[0]} pixels, other masks are not")
            if options.separate:
                values = components(values)
            whole += (
                not options.separate and np.count_nonzero(np.unique(values) > 0) == 1 and components(values).max() > 1
            )
            instances += _instances(values, mask, folder, table, file, images.name(pair.path), options)
        size = image_size(pair.path, size)
        pictures.append(Picture(pair.path, images.name(pair.path), size, tuple(instances), pair.split))
    if whole:
        notes.append(
            f"{whole} label image{'s have' if whole > 1 else ' has'} a single value in parts that do not touch: one "
            f"instance each; --separate makes every part an instance"
        )
    return Found(pictures, list(dict.fromkeys(table.values())) if table and not options.class_name else (), notes)


def _instances(
    values: np.ndarray, mask: MaskFile, folder: str | None, table: ClassTable | None, file: Path | None, name: str,
    options: Options,
) -> Iterator[Instance]:  # fmt: skip
    parts = PurePosixPath(name).with_suffix("").parts
    keys = [*("/".join(parts[first:]) for first in range(len(parts))), None]
    for value, rle in label_rles(values).items():
        where = f"{mask.path}: value {value}"
        category: str | None = options.class_name or folder or DEFAULT_CLASS
        if table is not None and not options.class_name and folder is None:
            category = next((table[key, value] for key in keys if (key, value) in table), None)
        if category is None:
            raise DataError(f"{where}: has no class in {file}")
        yield Instance(category, where, mask=rle)


def read_classes(file: Path) -> ClassTable:
    """A CSV file of classes.

    Raises:
        DataError: a column is missing, or a row has no value or class, or says another class of the same value.
    """
    rows = csv.DictReader(read_bytes(file).decode().splitlines())
    columns = {name.strip().lower(): name for name in rows.fieldnames or ()}
    image, value, category = (
        next((columns[n] for n in names if n in columns), None) for names in (_IMAGE, _VALUE, _CLASS)
    )
    if value is None or category is None:
        raise DataError(f"{file}: needs columns 'value' and 'class', and 'image' where classes differ between images")
    table: ClassTable = {}
    for row in rows:
        where = f"{file}: line {rows.line_num}"
        number, name = (row[value] or "").strip(), (row[category] or "").strip()
        if not number.isdecimal() or not name:
            raise DataError(f"{where}: needs a whole number as {value} and a text as {category}")
        named = PurePosixPath(row[image].strip().replace("\\", "/")).with_suffix("") if image and row[image] else None
        key = (None if named is None else named.as_posix(), int(number))
        if table.setdefault(key, name) != name:
            raise DataError(f"{where}: value {number} is {table[key]} in an earlier line, and {name} here")
    return table
