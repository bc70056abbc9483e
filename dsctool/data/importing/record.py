"""What every importer gives: pictures with their instances, as the source has them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pycocotools import mask as coco_mask

from dsctool.data.segmentations import NO_PIXELS, segmentation_problem
from dsctool.data.shapes import drawn
from dsctool.errors import DataError
from dsctool.rle import Rle
from dsctool.terms import Size

Polygon = list[float]
"""x and y in turn, in pixels from the upper left corner of the image, so that a pixel is 1 wide."""

DEFAULT_CLASS = "object"
"""Where a source has no classes."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: polygons that are drawn together, or a mask of the image's size.

    category: name of its class. where: file, key and place, for messages. box: all that is known is a box, which
    ``polygons`` has as a rectangle. group: what parts of one object have in common, or None.
    """

    category: str
    where: str
    polygons: tuple[Polygon, ...] = ()
    mask: Rle | None = None
    box: bool = False
    crowd: bool = False
    group: Hashable = None

    def rle(self, size: Size) -> Rle:
        """Its pixels in an image of ``size``; there may be none.

        Raises:
            DataError: its polygons are none, or reach far out of the image.
        """
        if self.mask is not None:
            return self.mask
        polygons = usable(self.polygons, size, self.where)
        return (
            drawn(polygons, size)
            if polygons
            else coco_mask.frPyObjects({"size": size, "counts": [size[0] * size[1]]}, *size)
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file and what is annotated on it.

    name: the file's path below the source, with slashes: what groups are found by. split: the source's own word for
    the part that it belongs to, or None. left_out: shapes that are no areas, such as points, by name.
    data: what the file would hold, where the source has it elsewhere; there is no file then.
    """

    path: Path
    name: str
    size: Size
    instances: tuple[Instance, ...]
    split: str | None = None
    left_out: tuple[str, ...] = ()
    data: bytes | None = None


@dataclass(frozen=True)
class Options:
    """What a source does not say by itself.

    images, masks: folders within the source. classes: CSV file of the classes of values. class_name: of all instances.
    class_key: the attribute that has the class. boxes: objects of which only a box is known become rectangles.
    separate: parts of a label that do not touch become instances of their own.
    """

    images: Path | None = None
    masks: Path | None = None
    classes: Path | None = None
    class_name: str | None = None
    class_key: str | None = None
    boxes: bool = False
    separate: bool = False


@dataclass(frozen=True)
class Found:
    """What a source holds. classes: those it declares, in its order; others follow by name. notes: for people."""

    pictures: Sequence[Picture]
    classes: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


def usable(polygons: Iterable[Polygon], size: Size, where: str) -> list[Polygon]:
    """The polygons that cover something of an image of ``size``: those of less than three points are dropped.

    Raises:
        DataError: one is malformed, or reaches far out of the image; ``where`` begins the message.
    """
    kept = []
    for polygon in polygons:
        if len(polygon) < 6 and len(polygon) % 2 == 0:
            continue
        problem = segmentation_problem([polygon], size)
        if problem is None:
            kept.append(polygon)
        elif problem.kind != NO_PIXELS:
            raise DataError(f"{where}: {problem.message}")
    return kept


def joined(instances: Iterable[Instance], size: Size) -> tuple[Instance, ...]:
    """Instances of the same class and group as one, where the first of them stands; size: of their image."""
    groups: dict[Hashable, list[Instance]] = {}
    for place, instance in enumerate(instances):
        alone = instance.group is None or instance.box
        groups.setdefault(("alone", place) if alone else (instance.category, instance.group), []).append(instance)
    return tuple(_union(parts, size) for parts in groups.values())


def _union(parts: list[Instance], size: Size) -> Instance:
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(part.mask is None for part in parts):
        return replace(first, polygons=tuple(polygon for part in parts for polygon in part.polygons))
    return replace(first, polygons=(), mask=coco_mask.merge([part.rle(size) for part in parts]))
