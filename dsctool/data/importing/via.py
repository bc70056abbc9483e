"""VIA, the VGG Image Annotator, 1 and 2: one JSON file, its regions in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import ellipse, rectangle
from dsctool.data.importing.record import DEFAULT_CLASS, Found, Instance, Options, Picture
from dsctool.errors import DataError

_NO_AREAS = {"point", "polyline", "line"}


def read(source: Path, options: Options) -> Found:
    """Annotations or a project as VIA saves them: polygons, circles and ellipses; rectangles are boxes.

    The class is the attribute ``options.class_key`` of a region, or the only one there is.

    Raises:
        DataError: there is no such file, its pictures are not in the source, or the class's attribute is not clear.
    """
    root = source if source.is_dir() else source.parent
    files = [source] if source.is_file() else [path for path in files_below(source) if path.suffix.lower() == ".json"]
    images = Images(root)
    pictures: list[Picture] = []
    for file in files:
        content = Node.read(file)
        if content.has("project", "file", "view"):
            raise DataError(f"{file}: is a project of VIA 3: save it there as COCO, and use dsctool data import coco")
        content = content.at("_via_img_metadata") if content.has("_via_img_metadata") else content
        entries = _entries(content)
        key = _class_key(entries, options)
        pictures += [_picture(entry, images, key, options) for entry in entries]
    if not pictures:
        raise DataError(f"{source}: no JSON file of VIA's, whose entries have 'filename' and 'regions'")
    return Found(pictures)


def _entries(content: Node) -> list[Node]:
    if not isinstance(content.value, dict):
        return []
    return [entry for _, entry in content.items() if entry.has("filename", "regions")]


def _regions(entry: Node) -> list[Node]:
    """A list since VIA 2, and an object before."""
    regions = entry.at("regions")
    return regions.elements() if isinstance(regions.value, list) else [region for _, region in regions.items()]


def _class_key(entries: list[Node], options: Options) -> str | None:
    if options.class_name:
        return None
    keys: dict[str, Node] = {}
    for entry in entries:
        for region in _regions(entry):
            attributes = region.get("region_attributes")
            for key, value in attributes.items() if attributes else ():
                keys.setdefault(key, value)
    if options.class_key is not None and options.class_key not in keys:
        raise DataError(f"{entries[0].file}: no region has the attribute '{options.class_key}': {', '.join(keys)}")
    if options.class_key is None and len(keys) > 1:
        named = [key for key in keys if key.lower() in ("class", "label", "category", "name", "type")]
        if len(named) != 1:
            raise DataError(f"{entries[0].file}: which attribute is the class? --class-key one of {', '.join(keys)}")
        return named[0]
    return options.class_key or next(iter(keys), None)


def _picture(entry: Node, images: Images, key: str | None, options: Options) -> Picture:
    named = entry.at("filename")
    path = images.find(named.text(), near=images.root, where=named)
    left_out: list[str] = []
    instances = tuple(_instances(entry, key, left_out, options))
    split = split_in(*path.relative_to(images.root).parts[:-1])
    return Picture(path, images.name(path), image_size(path), instances, split, tuple(left_out))


def _instances(entry: Node, key: str | None, left_out: list[str], options: Options) -> Iterator[Instance]:
    for region in _regions(entry):
        shape = region.at("shape_attributes")
        kind = shape.at("name").text()
        if kind in _NO_AREAS:
            left_out.append(kind)
            continue
        category = options.class_name or _class(region, key)
        if kind == "polygon":
            xs, ys = shape.at("all_points_x").numbers(), shape.at("all_points_y").numbers()
            if len(xs) != len(ys):
                raise shape.error(f"has {len(xs)} x and {len(ys)} y")
            outline = [value for point in zip(xs, ys, strict=True) for value in point]
        elif kind == "rect":
            x, y, width, height = (shape.at(name).number() for name in ("x", "y", "width", "height"))
            outline = rectangle(x, y, x + width, y + height)
        elif kind == "circle":
            x, y, radius = (shape.at(name).number() for name in ("cx", "cy", "r"))
            outline = ellipse(x, y, radius, radius)
        elif kind == "ellipse":
            x, y, rx, ry = (shape.at(name).number() for name in ("cx", "cy", "rx", "ry"))
            theta = shape.get("theta")
            degrees = 0.0 if theta is None else theta.number() * 57.29577951308232  # of radians
            outline = ellipse(x, y, rx, ry, degrees)
        else:
            raise shape.error(f"shape '{kind}' is not known")
        yield Instance(category, str(region), (outline,), box=kind == "rect")


def _class(region: Node, key: str | None) -> str:
    """A text, or what is ticked of several."""
    if key is None:
        return DEFAULT_CLASS
    value = region.at("region_attributes").at(key)
    if isinstance(value.value, dict):
        ticked = [name for name, each in value.items() if each.value]
        if len(ticked) != 1:
            raise value.error(f"{len(ticked)} classes are ticked, where one belongs")
        return ticked[0]
    return value.text()
