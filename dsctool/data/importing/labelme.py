"""LabelMe: a JSON file for each picture, its shapes in pixels."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import bitmap_rle, ellipse, placed, rectangle
from dsctool.data.importing.record import Found, Instance, Options, Picture, joined
from dsctool.errors import DataError
from dsctool.terms import Size

_NO_AREAS = {"point", "points", "line", "linestrip"}


def read(source: Path, options: Options) -> Found:
    """Every JSON file with ``shapes``: polygons, circles and masks; shapes of one label and group are one instance.

    A picture is the file that ``imagePath`` names, or else what ``imageData`` holds. Rectangles are boxes; points and
    lines are no areas.

    Raises:
        DataError: a file has no such content, or its picture is not in the source.
    """
    images = Images(source)
    pictures = []
    for file in files_below(source):
        if file.suffix.lower() != ".json":
            continue
        content = Node.read(file)
        if content.has("shapes", "imagePath"):
            pictures.append(_picture(content, images, options))
    if not pictures:
        raise DataError(f"{source}: no JSON file of LabelMe's, which have 'shapes' and 'imagePath'")
    return Found(pictures)


def _picture(content: Node, images: Images, options: Options) -> Picture:
    named = content.at("imagePath")
    data = None
    try:
        path = images.find(named.text(), near=content.file.parent, where=named)
    except DataError:
        if (node := content.get("imageData")) is None:
            raise
        data = _decoded(node)
        path = content.file.with_suffix(PurePosixPath(named.text().replace("\\", "/")).suffix)
    if data is not None or content.has("imageHeight", "imageWidth"):
        size = (content.at("imageHeight").whole(1), content.at("imageWidth").whole(1))
    else:  # as LabelMe 3 writes it
        size = image_size(path)
    left_out: list[str] = []
    instances = joined(_instances(content.at("shapes"), size, left_out, options), size)
    split = split_in(*path.relative_to(images.root).parts[:-1])
    return Picture(path, images.name(path), size, instances, split, tuple(left_out), data)


def _instances(shapes: Node, size: Size, left_out: list[str], options: Options) -> Iterator[Instance]:
    for shape in shapes.elements():
        given = shape.get("shape_type")
        kind = "polygon" if given is None else given.text()
        if kind in _NO_AREAS:
            left_out.append(kind)
            continue
        category = options.class_name or shape.at("label").text()
        group = shape.get("group_id")
        common = None if group is None else str(group.value)
        points = [_point(point) for point in shape.at("points").elements()]
        if kind == "polygon":
            flat = [value for point in points for value in point]
            yield Instance(category, str(shape), (flat,), group=common)
        elif kind == "mask":
            yield Instance(category, str(shape), mask=bitmap_rle(_mask(shape, points, size)), group=common)
        elif kind in ("rectangle", "circle"):
            if len(points) < 2:
                raise shape.at("points").error(f"a {kind} needs 2 points, not {len(points)}")
            (x, y), (x2, y2) = points[0], points[1]
            if kind == "circle":  # its centre, and a point on it
                radius = math.dist((x, y), (x2, y2))
                yield Instance(category, str(shape), (ellipse(x, y, radius, radius),), group=common)
            else:
                corners = rectangle(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
                yield Instance(category, str(shape), (corners,), box=True)
        else:
            raise shape.error(f"shape_type '{kind}' is not known")


def _point(point: Node) -> tuple[float, float]:
    numbers = point.numbers()
    if len(numbers) != 2:
        raise point.error(f"must be x and y, not {len(numbers)} numbers")
    return numbers[0], numbers[1]


def _mask(shape: Node, points: list[tuple[float, float]], size: Size) -> np.ndarray:
    """A picture of the mask, in base 64, whose upper left corner is the first point."""
    node = shape.at("mask")
    if not points:
        raise shape.at("points").error("a mask needs the points of its box")
    try:
        with Image.open(io.BytesIO(_decoded(node))) as image:
            bitmap = np.asarray(image)
    except Exception:  # decoders meet damage with any exception there is
        raise node.error("is not a picture in base 64") from None
    if bitmap.ndim != 2:
        raise node.error("is a picture in colours, and no mask")
    return placed(bitmap, round(points[0][0]), round(points[0][1]), size)


def _decoded(node: Node) -> bytes:
    """A picture in base 64."""
    try:
        return base64.b64decode(node.text(), validate=True)
    except (binascii.Error, ValueError):
        raise node.error("is not a picture in base 64") from None
