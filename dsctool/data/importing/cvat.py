"""CVAT for images 1.1: one XML file, with polygons, masks, ellipses and boxes in pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.rasters import bitmap_rle, ellipse, placed, rectangle, turned
from dsctool.data.importing.record import Found, Instance, Options, Picture, Polygon, joined
from dsctool.errors import DataError
from dsctool.files import read_bytes
from dsctool.terms import Size

Element = ElementTree.Element
_NO_AREAS = {"points", "polyline", "cuboid", "skeleton", "tag"}
_LARGEST = 1 << 20  # a side, in pixels


def read(source: Path, options: Options) -> Found:
    """The pictures of ``annotations.xml``; polygons of one label and group are one instance, as when CVAT writes COCO.

    Raises:
        DataError: there is no such file, or several; it is a video's; it has a shape that cannot be understood.
    """
    root = source if source.is_dir() else source.parent
    files = [source] if source.is_file() else [path for path in files_below(source) if path.suffix.lower() == ".xml"]
    found = [(file, tree) for file in files if (tree := parse_xml(file)).tag == "annotations"]
    if not found:
        raise DataError(f"{source}: no XML file of CVAT's, which begin with <annotations>")
    images = Images(root)
    classes: dict[str, None] = {}
    pictures: list[Picture] = []
    for file, tree in found:
        if tree.find("track") is not None:
            raise DataError(f"{file}: has tracks of a video: export the task as 'CVAT for images 1.1'")
        classes.update(dict.fromkeys(name for name in (each.text for each in tree.iterfind(".//label/name")) if name))
        pictures += [_picture(file, image, images, options) for image in tree.iterfind("image")]
    return Found(pictures, () if options.class_name else list(classes))


def parse_xml(file: Path) -> Element:
    """An XML file's outermost element; entities, by which a small file may fill all memory, are refused.

    Raises:
        DataError: the file cannot be read, is no XML, or defines entities.
    """
    data = read_bytes(file)
    if b"<!DOCTYPE" in data and b"<!ENTITY" in data:
        raise DataError(f"{file}: defines entities, which annotations have no use for: remove its DOCTYPE")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file}: is not valid XML: {error} (was the file cut short?)") from None


def _picture(file: Path, image: Element, images: Images, options: Options) -> Picture:
    name = _text(image, "name", f"{file}: image {image.get('id', '')}".rstrip())
    where = f"{file}: image '{name}'"
    sides = [_number(image, key, where) for key in ("height", "width")]
    if not all(side == int(side) and 0 < side < _LARGEST for side in sides):
        raise DataError(f"{where}: height and width must be whole numbers of pixels, not {sides[0]:g} and {sides[1]:g}")
    size = (int(sides[0]), int(sides[1]))
    subset = image.get("subset") or ""
    near = next(
        (each for each in (images.root / "images" / subset, images.root / subset) if each.is_dir()), images.root
    )
    path = images.find(name, near=near, where=where)
    left_out: list[str] = []
    instances = joined(_instances(image, where, size, left_out, options), size)
    split = (split_in(subset) if subset else None) or split_in(*Path(name).parts[:-1])
    return Picture(path, images.name(path), size, instances, split, tuple(left_out))


def _instances(image: Element, where: str, size: Size, left_out: list[str], options: Options) -> Iterator[Instance]:
    for place, shape in enumerate(image):
        here = f"{where}: {shape.tag} {place + 1}"
        if shape.tag in _NO_AREAS:
            left_out.append(shape.tag)
            continue
        if shape.tag not in ("polygon", "mask", "box", "ellipse"):
            raise DataError(f"{here}: shape '{shape.tag}' is not known")
        category = options.class_name or _text(shape, "label", here)
        group = shape.get("group_id")
        group = None if group in (None, "", "0") else group
        if shape.tag == "mask":
            yield Instance(category, here, mask=bitmap_rle(_mask(shape, here, size)), group=group)
        else:
            yield Instance(category, here, (_outline(shape, here),), box=shape.tag == "box", group=group)


def _outline(shape: Element, where: str) -> Polygon:
    if shape.tag == "polygon":
        numbers = re.split(r"[;,]", _text(shape, "points", where))
        try:
            return [float(number) for number in numbers]
        except ValueError:
            raise DataError(f"{where}: points must be x,y;x,y;... in pixels") from None
    rotation = _number(shape, "rotation", where) if shape.get("rotation") else 0.0
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(x, y, rx, ry, rotation)
    left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    return turned(rectangle(left, top, right, bottom), rotation, ((left + right) / 2, (top + bottom) / 2))


def _mask(shape: Element, where: str, size: Size) -> np.ndarray:
    """Runs along the rows of the mask's box, background first."""
    left, top, width, height = (int(_number(shape, key, where)) for key in ("left", "top", "width", "height"))
    try:
        runs = [int(run) for run in _text(shape, "rle", where).split(",")]
    except ValueError:
        raise DataError(f"{where}: rle must be whole numbers with commas between them") from None
    sides = 0 < width < _LARGEST and 0 < height < _LARGEST
    if min(runs) < 0 or not sides or sum(runs) != width * height:
        raise DataError(f"{where}: rle covers {sum(runs)} pixels, and its box has {width} x {height}")
    values = np.arange(len(runs)) % 2
    return placed(np.repeat(values, runs).reshape(height, width), left, top, size)


def _text(element: Element, key: str, where: str) -> str:
    value = element.get(key, "")
    if not value.strip():
        raise DataError(f"{where}: missing attribute '{key}'")
    return value


def _number(element: Element, key: str, where: str) -> float:
    value = _text(element, key, where)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:
        raise DataError(f"{where}: {key} must be a number, not '{value[:60]}'")
    return number
