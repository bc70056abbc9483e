"""Every kind against the masks that were written in it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.data.checks import check_data
from dsctool.data.importing.importer import READERS, import_set
from dsctool.data.importing.looks import NAMES, looks_like
from dsctool.data.importing.record import Options
from dsctool.data.outlines import border_error
from dsctool.data.shapes import drawn
from tests.data.importing.foreign import HEIGHT, WIDTH, WRITERS, Mask, Thing, things


def masks_of(file: Path) -> dict[str, list[tuple[str, Mask]]]:
    """Class and mask of every instance, by picture."""
    content = json.loads(file.read_text())
    names = {each["id"]: each["file_name"] for each in content["images"]}
    classes = {each["id"]: each["name"] for each in content["categories"]}
    found: dict[str, list[tuple[str, Mask]]] = defaultdict(list)
    for each in content["annotations"]:
        shape = each["segmentation"]
        rle = drawn(shape, (HEIGHT, WIDTH)) if isinstance(shape, list) else shape
        found[names[each["image_id"]]].append((classes[each["category_id"]], coco_mask.decode(rle).astype(bool)))
    return found


def largest_errors(found: list[tuple[str, Mask]], written: list[Thing]) -> dict[str, int]:
    """Of the nearest instance to each that was written, by what is hard about it; each is found once."""
    errors: dict[str, int] = defaultdict(int)
    left = list(range(len(found)))
    for thing in written:
        nearest = min(left, key=lambda n: int((found[n][1] ^ thing.mask).sum()))
        left.remove(nearest)
        errors[thing.kind] = max(errors[thing.kind], border_error(thing.mask, found[nearest][1]))
    assert left == []
    return dict(errors)


@pytest.mark.parametrize("name", WRITERS)
def test_instances_come_in_whole(name: str, tmp_path: Path) -> None:
    """Holes, parts and neighbours that touch are exact, and the classes right; no fault is found in the new set."""
    kind, write, overlaps = WRITERS[name]
    written = things(overlaps=overlaps)
    source, output = tmp_path / "source", tmp_path / "new"
    source.mkdir()
    write(source, written)
    assert looks_like(source) == kind
    done = import_set(kind, source, output, Options())
    assert {fault.kind for fault in check_data(output)} <= {"duplicate", "seen before"}, "all pictures are equal"
    pictures = {part: masks_of(output / f"annotations/instances_{part}.json") for part in ("train", "val")}
    assert {part: len(each) for part, each in pictures.items()} == done.images
    assert sum(done.images.values()) == (10 if kind == "livecell" else 5)
    classes = sorted(thing.category for thing in written)
    if kind == "livecell":
        assert done.classes == ("a172", "skbr3")
    elif name == "Data Science Bowl":
        classes = ["object"] * len(written)
    for part in pictures.values():
        for picture, found in part.items():
            assert set(largest_errors(found, written).values()) == {0}
            own = [picture.split("_")[0].lower()] * len(written) if kind == "livecell" else classes
            assert sorted(category for category, _ in found) == own
    if name in ("Pascal VOC", "YOLO", "Roboflow COCO", "LIVECell"):
        assert done.images["val"] * 3 == done.images["train"] * 2, "the source's own parts"
    else:
        assert done.images == {"train": 4, "val": 1}


def test_every_kind_is_tried_and_named() -> None:
    assert set(READERS) == {kind for kind, _, _ in WRITERS.values()} == set(NAMES)


def test_the_error_is_measured_in_pixels() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 2:7] = True
    assert border_error(mask, mask) == 0
    assert border_error(mask, np.pad(mask, 1)[2:, 2:]) == 1
    near = mask.copy()
    near[2:4, 2:7] = False
    assert border_error(mask, near) == 2
    near = mask.copy()
    near[4, 8] = True
    assert border_error(mask, near) == 2
