"""Label Studio: its JSON export, with polygons and ellipses in percent of the picture's sides, and brushes as masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from dsctool.data.importing.files import Images, files_below, image_suffixes, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import bitmap_rle, ellipse, rectangle, turned
from dsctool.data.importing.record import DEFAULT_CLASS, Found, Instance, Options, Picture
from dsctool.errors import DataError
from dsctool.terms import Size

_AREAS = {"polygon": "points", "brush": "rle", "rectangle": "width", "ellipse": "radiusX"}
"""What a result's value has besides its class."""
_NO_AREAS = {"keypoint", "choices", "textarea", "relation", "rating", "number", "taxonomy", "vector", "pairwise"}


def read(source: Path, options: Options) -> Found:
    """The tasks of a JSON export with annotations; of several for a task, the one that is ground truth, or the last.

    Raises:
        DataError: there is no such file, its pictures are not in the source, or a result cannot be understood.
    """
    root = source if source.is_dir() else source.parent
    files = [source] if source.is_file() else [path for path in files_below(source) if path.suffix.lower() == ".json"]
    images = Images(root)
    pictures: list[Picture] = []
    several = unlabelled = 0
    for file in files:
        content = Node.read(file)
        tasks = content.elements() if isinstance(content.value, list) else []
        if tasks and not tasks[0].has("data") and tasks[0].has("image"):
            raise DataError(f"{file}: is JSON-MIN, which leaves out what masks need: export it as JSON")
        for task in tasks:
            if not task.has("data", "annotations"):
                continue
            done = [each for each in task.at("annotations").elements() if not each.is_on("was_cancelled")]
            several += len(done) > 1
            unlabelled += not done
            if done:
                chosen = next((each for each in done if each.is_on("ground_truth")), done[-1])
                pictures.append(_picture(task, chosen, images, options))
    if not pictures:
        raise DataError(f"{source}: no JSON export of Label Studio's, whose tasks have 'data' and 'annotations'")
    notes = []
    if several:
        notes.append(f"{several} tasks have several annotations: the ground truth was taken, or else the last")
    if unlabelled:
        notes.append(f"{unlabelled} tasks without a finished annotation left out")
    return Found(pictures, notes=notes)


def _picture(task: Node, annotation: Node, images: Images, options: Options) -> Picture:
    named = _image(task.at("data"))
    path = images.find(named.text(), near=images.root / "images", where=named)
    results = annotation.at("result").elements()
    sizes = {
        (each.at("original_height").whole(1), each.at("original_width").whole(1))
        for each in results
        if each.has("original_height", "original_width")
    }
    if len(sizes) > 1:
        raise annotation.error("its results name several sizes of the picture")
    from dsctool.data.images import image_size

    size = image_size(path, next(iter(sizes), None))
    left_out: list[str] = []
    instances = tuple(_instances(results, size, left_out, options))
    split = split_in(*path.relative_to(images.root).parts[:-1])
    return Picture(path, images.name(path), size, instances, split, tuple(left_out))


def _image(data: Node) -> Node:
    """The value that names the picture: called ``image``, or the only one with an image's suffix."""
    if (named := data.get("image") or data.get("img")) is not None:
        return named
    suffixes = image_suffixes()
    found = [
        node
        for _, node in data.items()
        if isinstance(node.value, str) and PurePosixPath(node.value.split("?d=")[-1]).suffix.lower() in suffixes
    ]
    if len(found) != 1:
        raise data.error(f"{len(found)} of its values name a picture, where one must")
    return found[0]


def _instances(results: list[Node], size: Size, left_out: list[str], options: Options) -> Iterator[Instance]:
    labels = {  # of shapes whose class is a result of its own
        each.at("id").id(): each for each in results if each.has_value("type", "labels") and each.has("id", "value")
    }
    for result in results:
        given = result.at("type").text()
        kind = given.removesuffix("labels")
        if kind in _NO_AREAS or kind == "":
            if kind:
                left_out.append(kind)
            continue
        if kind not in _AREAS:
            raise result.error(f"type '{given}' is not known")
        value = result.at("value")
        own = value.get(f"{kind}labels")
        if own is None and result.has("id") and (other := labels.get(result.at("id").id())):
            own = other.at("value").at("labels")
        category = options.class_name or _class(own)
        if kind == "brush":
            yield Instance(category, str(result), mask=bitmap_rle(_brush(value, size)))
        else:
            yield Instance(category, str(result), (_outline(value, kind, size),), box=kind == "rectangle")


def _class(labels: Node | None) -> str:
    if labels is None:
        return DEFAULT_CLASS
    names = [each.text() for each in labels.elements()]
    if len(names) != 1:
        raise labels.error(f"{len(names)} classes, where one belongs")
    return names[0]


def _outline(value: Node, kind: str, size: Size) -> list[float]:
    height, width = size[0] / 100, size[1] / 100
    if kind == "polygon":
        points = [point.numbers() for point in value.at("points").elements()]
        if any(len(point) != 2 for point in points):
            raise value.at("points").error("must be pairs of x and y")
        return [part for x, y in points for part in (x * width, y * height)]
    rotation = value.get("rotation")
    degrees = 0.0 if rotation is None else rotation.number()
    x, y = value.at("x").number() * width, value.at("y").number() * height
    if kind == "ellipse":
        return ellipse(x, y, value.at("radiusX").number() * width, value.at("radiusY").number() * height, degrees)
    right, bottom = x + value.at("width").number() * width, y + value.at("height").number() * height
    return turned(rectangle(x, y, right, bottom), degrees, (x, y))  # about the upper left corner


def _brush(value: Node, size: Size) -> np.ndarray:
    """The opaque pixels of a brush: red, green, blue and alpha of every pixel, run-length encoded in bits."""
    node = value.at("rle")
    numbers = node.numbers()
    if not all(0 <= number < 256 and number == int(number) for number in numbers):
        raise node.error("must be bytes, from 0 to 255")
    try:
        pixels = decode_brush(bytes(int(number) for number in numbers), 4 * size[0] * size[1])
    except ValueError as error:
        raise node.error(f"{error} (the picture has {size[1]} x {size[0]} pixels)") from None
    return pixels.reshape(*size, 4)[..., 3] > 0


def decode_brush(data: bytes, length: int) -> np.ndarray:
    """The ``length`` values of a packed run-length encoding, as uint8.

    32 bits: how many values. 5 bits: bits of a value, less 1. Four times 4 bits: bits of a run's length, less 1. Then
    runs: one bit, whether one value is repeated; two bits, which of the four lengths; the length, less 1; the value, or
    each of them.

    Raises:
        ValueError: there are not so many values, or it ends early.
    """
    bits = _Bits(data)
    count = bits.read(32)
    if count != length:
        raise ValueError(f"a mask of {count // 4} pixels")
    value_bits = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    done = 0
    while done < count:
        repeated = bits.read(1)
        run = bits.read(sizes[bits.read(2)]) + 1
        if done + run > count:
            raise ValueError("runs that are too long")
        if repeated:
            values[done : done + run] = bits.read(value_bits) & 255
        else:
            values[done : done + run] = [bits.read(value_bits) & 255 for _ in range(run)]
        done += run
    return values


class _Bits:
    """Numbers of some bits each, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, count: int) -> int:
        first, end = self._place, self._place + count
        if end > 8 * len(self._data):
            raise ValueError("the mask ends early")
        self._place = end
        last = (end + 7) // 8
        part = int.from_bytes(self._data[first // 8 : last])
        return (part >> (8 * last - end)) & ((1 << count) - 1)
