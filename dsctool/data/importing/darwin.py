"""Darwin, the JSON 2.0 of V7: a file for each picture, polygons in pixels and masks in a raster layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import ellipse, even_odd, label_rles, rectangle, run_lengths
from dsctool.data.importing.record import Found, Instance, Options, Picture
from dsctool.errors import DataError
from dsctool.rle import Rle
from dsctool.terms import Size

_AREAS = ("polygon", "mask", "ellipse", "bounding_box")
_NO_AREAS = (
    "line",
    "keypoint",
    "skeleton",
    "tag",
    "graph",
    "cuboid",
    "link",
    "eye",
    "text",
    "string",
    "simple_table",
    "table",
)


def read(source: Path, options: Options) -> Found:
    """Every JSON file with ``item`` and ``annotations``; of several paths of a polygon, one within another is a hole.

    Raises:
        DataError: there is no such file, its picture is not in the source, or an annotation cannot be understood.
    """
    root = source if source.is_dir() else source.parent
    files = [source] if source.is_file() else [path for path in files_below(source) if path.suffix.lower() == ".json"]
    images = Images(root)
    pictures = []
    for file in files:
        content = Node.read(file)
        if content.has("item", "annotations"):
            pictures.append(_picture(content, images, options))
        elif content.has("image", "annotations", "dataset"):
            raise DataError(f"{file}: is Darwin JSON 1.0: export it as 2.0")
    if not pictures:
        raise DataError(f"{source}: no JSON file of Darwin 2.0, which has 'item' and 'annotations'")
    return Found(pictures)


def _picture(content: Node, images: Images, options: Options) -> Picture:
    item = content.at("item")
    slots = item.at("slots").elements() if item.get("slots") else []
    if len(slots) > 1:
        raise item.at("slots").error(f"{len(slots)} pictures in one item, where one belongs")
    kind = slots[0].get("type") if slots else None
    if kind is not None and kind.text() != "image":
        raise kind.error(f"is '{kind.text()}', and no image")
    folder = item.get("path")
    named = item.at("name")
    path = images.find(
        f"{'' if folder is None else str(folder.value).strip('/')}/{named.text()}".lstrip("/"),
        near=images.root / "images",
        where=named,
    )
    given = slots[0] if slots and slots[0].has("width", "height") else None
    size = image_size(path, (given.at("height").whole(1), given.at("width").whole(1)) if given else None)
    left_out: list[str] = []
    instances = tuple(_instances(content.at("annotations").elements(), size, left_out, options))
    split = split_in(*path.relative_to(images.root).parts[:-1])
    return Picture(path, images.name(path), size, instances, split, tuple(left_out))


def _instances(annotations: list[Node], size: Size, left_out: list[str], options: Options) -> Iterator[Instance]:
    masks: dict[str, Rle] = {}
    for annotation in annotations:
        if annotation.has("raster_layer"):
            masks |= _raster_layer(annotation.at("raster_layer"), size)
    for annotation in annotations:
        if annotation.has("raster_layer"):
            continue
        kind = next((each for each in _AREAS if annotation.get(each) is not None), None)
        if kind is None:
            if annotation.has("frames"):
                raise annotation.error("has frames of a video, which are not read")
            left_out.append(next((each for each in _NO_AREAS if annotation.has(each)), "other shape"))
            continue
        category = options.class_name or annotation.at("name").text()
        where = str(annotation)
        if kind == "mask":
            id_ = annotation.at("id").text()
            if id_ not in masks:
                raise annotation.error(f"mask {id_} is in no raster layer")
            yield Instance(category, where, mask=masks[id_])
            continue
        shape = annotation.at(kind)
        if kind == "polygon":
            paths = shape.at("paths").elements() if shape.has("paths") else [shape.at("path")]
            rings = [[value for point in path.elements() for value in _point(point)] for path in paths]
            rings = [ring for ring in rings if len(ring) >= 6]
            if len(rings) > 1:
                yield Instance(category, where, mask=even_odd(rings, size, where))
            else:
                yield Instance(category, where, tuple(rings))
        elif kind == "ellipse":
            angle = shape.get("angle")
            degrees = 0.0 if angle is None else angle.number() * 180 / np.pi
            outline = ellipse(*_point(shape.at("center")), *_point(shape.at("radius")), degrees)
            yield Instance(category, where, (outline,))
        else:
            x, y, width, height = (shape.at(key).number() for key in ("x", "y", "w", "h"))
            yield Instance(category, where, (rectangle(x, y, x + width, y + height),), box=True)


def _point(point: Node) -> tuple[float, float]:
    return point.at("x").number(), point.at("y").number()


def _raster_layer(layer: Node, size: Size) -> dict[str, Rle]:
    """The masks of a layer by annotation id: values and lengths of runs in turn, row by row."""
    runs = layer.at("dense_rle")
    numbers = runs.numbers()
    possible = len(numbers) % 2 == 0 and all(0 <= number < 1 << 32 for number in numbers)
    values, lengths = np.array(numbers if possible else [0, 0], dtype=np.int64).reshape(-1, 2).T
    if not possible or lengths.sum() != size[0] * size[1]:
        raise runs.error(f"must be values and lengths in turn, for {size[0] * size[1]} pixels")
    by_value = label_rles(np.repeat(values, lengths).reshape(size))
    ids = {key: value.whole(1) for key, value in layer.at("mask_annotation_ids_mapping").items()}
    empty = run_lengths([size[0] * size[1]], size)
    return {id_: by_value.get(value, empty) for id_, value in ids.items()}
