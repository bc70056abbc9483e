"""COCO's semantic results: a list of masks, one for each category that an image has.

So the stuff of any semantic model can be fused with the instances of a detector, as DetectoRS's authors did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsctool.data.records import json_kind
from dsctool.data.segmentations import NO_PIXELS, segmentation_problem
from dsctool.data.shapes import compressed
from dsctool.entries import Entries, read_list
from dsctool.errors import DataError
from dsctool.rle import Rle
from dsctool.terms import Size


@dataclass(frozen=True)
class SemanticResults:
    """The stuff in a file of semantic results, whose masks stay text until their image comes.

    path: for messages. rows: of each image's stuff, as the file has it: its category, and its place.
    """

    path: Path
    entries: Entries
    rows: Mapping[int, Sequence[tuple[int, int]]]

    def __contains__(self, image: object) -> bool:
        return image in self.rows

    def of(self, image: int, size: Size) -> list[tuple[int, Rle]]:
        """The stuff of an image of ``size`` ``(h, w)``: category ids and masks, in the order of the file.

        Raises:
            DataError: a mask has another size.
        """
        masks = self._masks(image, size)
        return [(category, Rle(size=list(size), counts=compressed(mask, size))) for category, mask in masks]

    def check(self, image: int, size: Size) -> None:
        """Raises DataError as :meth:`of`, which takes longer."""
        for _ in self._masks(image, size):
            pass

    def _masks(self, image: int, size: Size) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for category, place in self.rows.get(image, ()):
            mask = self.entries[place]["segmentation"]
            if mask["size"] != list(size):
                raise DataError(
                    f"{self.path}: result {place} (image {image}): RLE has size {mask['size']} (height, width), "
                    f"the image has {list(size)}"
                )
            yield category, mask


def read_semantic_results(path: Path, *, stuff: Collection[int], things: Collection[int]) -> SemanticResults:
    """Read ``[{"image_id", "category_id", "segmentation": RLE}, ...]`` and check all of it but the images' sizes.

    stuff, things: ids of the categories; results of things are left out, as the published fusion does.

    Raises:
        DataError: the file is no such list; the message names the first result that is wrong.
    """
    content = read_list(path)
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise DataError(f"{path}: must hold a list of semantic results, not {json_kind(content)}")
    entries = Entries(content)
    rows: dict[int, list[tuple[int, int]]] = {}
    for place, entry in enumerate(entries):
        image, category = _checked(entry, f"{path}: result {place}")
        if category in things:
            continue
        if category not in stuff:
            raise DataError(f"{path}: result {place} (image {image}): category id {category} is no panoptic category")
        of_image = rows.setdefault(image, [])
        earlier = next((before for known, before in of_image if known == category), None)
        if earlier is not None:
            raise DataError(
                f"{path}: result {place} (image {image}): category id {category} was in result {earlier} already; "
                "a semantic result has each category of an image once"
            )
        of_image.append((category, place))
    return SemanticResults(path, entries, rows)


def _checked(entry: object, where: str) -> tuple[int, int]:
    """Image and category of an entry whose mask is sound."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is {json_kind(entry)}, not an object")
    for key in ("image_id", "category_id", "segmentation"):
        if key not in entry:
            raise DataError(f"{where}: missing key '{key}'")
    for key in ("image_id", "category_id"):
        if type(entry[key]) is not int:
            raise DataError(f"{where}: {key} must be a whole number, not {json_kind(entry[key])}")
    mask, where = entry["segmentation"], f"{where} (image {entry['image_id']})"
    size = mask.get("size") if isinstance(mask, Mapping) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise DataError(f"{where}: segmentation must be RLE with a size, [height, width]")
    problem = segmentation_problem(mask, (size[0], size[1]))
    if problem is not None and problem.kind != NO_PIXELS:
        raise DataError(f"{where}: {problem.message}")
    return entry["image_id"], entry["category_id"]
