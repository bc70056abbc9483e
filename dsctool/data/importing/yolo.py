"""YOLO segmentation, as Ultralytics and Roboflow write it: a text file for each picture, an object a line."""

from __future__ import annotations

import math
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import rectangle
from dsctool.data.importing.record import Found, Instance, Options, Picture
from dsctool.errors import DataError
from dsctool.files import read_bytes
from dsctool.terms import Size

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def read(source: Path, options: Options) -> Found:
    """Pictures with a text file of the same name, in a folder ``labels`` where theirs is ``images``, or beside them.

    A line is a class's number, then x and y in turn as shares of the picture's sides; four numbers are a box: its
    middle and its sides. Names are in ``data.yaml`` or ``classes.txt``. Pictures without a text file have no objects.

    Raises:
        DataError: there are no text files or no names, or a line cannot be understood.
    """
    images = Images(source)
    names = _names(source)
    labels = {path: text for path in images.paths if (text := _label_file(path, source)) is not None}
    if not labels:
        raise DataError(f"{source}: no picture has a text file of the same name, beside it or in labels/")
    homes = {path.parent for path in labels}
    pictures = []
    for path in images.paths:
        if path in labels or path.parent in homes:
            size = image_size(path)
            instances = _instances(labels[path], size, names, options) if path in labels else ()
            split = split_in(*path.relative_to(source).parts[:-1])
            pictures.append(Picture(path, images.name(path), size, tuple(instances), split))
    empty = len(pictures) - len(labels)
    notes = [f"{empty} pictures without a text file: taken as pictures without objects"] if empty else []
    return Found(pictures, [] if options.class_name else list(names.values()), notes)


def _label_file(picture: Path, source: Path) -> Path | None:
    parts = picture.relative_to(source).parts
    places = [n for n, part in enumerate(parts[:-1]) if part == "images"]
    folders = [Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 : -1])] if places else []
    here = Path(*parts[:-1])
    for folder in [*folders, here, here / "labels", here.parent / "labels"]:
        if (file := source / folder / f"{picture.stem}.txt").is_file():
            return file
    return None


def _names(source: Path) -> dict[int, str]:
    """Classes by number, in their order."""
    for file in files_below(source):
        if file.name in _NAMES:
            names = _yaml(file).at("names")
            listed = names.elements() if isinstance(names.value, list) else None
            pairs = (
                enumerate(listed)
                if listed is not None
                else ((_number(key, names), each) for key, each in names.items())
            )
            return {number: str(name.value) for number, name in sorted(pairs, key=lambda pair: pair[0])}
    for file in (source / "classes.txt", source / "obj.names"):
        if file.is_file():
            return dict(enumerate(line.strip() for line in read_bytes(file).decode().splitlines() if line.strip()))
    raise DataError(f"{source}: no {_NAMES[0]} with 'names', and no classes.txt with a name a line")


def _yaml(file: Path) -> Node:
    try:
        return Node(YAML(typ="safe").load(read_bytes(file).decode()), file)
    except YAMLError as error:
        raise DataError(f"{file}: is not valid YAML: {' '.join(str(error).split())}") from None


def _number(key: object, names: Node) -> int:
    try:
        return int(str(key))
    except ValueError:
        raise names.error(f"must have whole numbers as keys, not {key!r}") from None


def _instances(file: Path, size: Size, names: dict[int, str], options: Options) -> list[Instance]:
    instances = []
    for number, line in enumerate(read_bytes(file).decode().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{file}: line {number}"
        try:
            code, values = int(float(words[0])), [float(word) for word in words[1:]]
        except (ValueError, OverflowError):
            raise DataError(f"{where}: must be numbers with spaces between them") from None
        if code not in names:
            raise DataError(f"{where}: class {code} has no name (there are {len(names)}, from 0)")
        if not all(map(math.isfinite, values)) or (values and not -1 <= min(values) <= max(values) <= 2):
            raise DataError(f"{where}: coordinates must be shares of the picture's sides, from 0 to 1")
        height, width = size
        if len(values) == 4:
            x, y, w, h = values
            outline = rectangle((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        elif len(values) % 2 or len(values) < 6:
            raise DataError(f"{where}: has {len(values)} coordinates: a box has 4, a polygon 6 or more, in pairs")
        else:
            outline = [value * (height if place % 2 else width) for place, value in enumerate(values)]
        instances.append(Instance(options.class_name or names[code], where, (outline,), box=len(values) == 4))
    return instances
