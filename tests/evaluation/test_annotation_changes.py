"""What changed between two annotations, against changes that were made on purpose."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest

from dsctool.errors import DataError
from dsctool.evaluation.annotation_changes import Changes, compare_annotations
from dsctool.evaluation.sources import load_ground_truth

NAMES = ("cell", "seed", "husk")


def square(identity: int, image: int, category: int, x: float, y: float, side: float = 20) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, side, side],
        "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
        "area": side * side,
        "iscrowd": 0,
    }


def content(*, images: int = 3) -> dict[str, Any]:
    """A grid of nine squares in each image, the classes in turn."""
    places = [(image, row, column) for image in range(images) for row in range(3) for column in range(3)]
    return {
        "images": [{"id": i, "file_name": f"deep/{i}.png", "width": 100, "height": 100} for i in range(images)],
        "annotations": [
            square(number, image, 1 + number % 3, 5 + 30 * column, 5 + 30 * row)
            for number, (image, row, column) in enumerate(places, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)],
    }


def compared(before: dict[str, Any], after: dict[str, Any], **options: float) -> Changes:
    return compare_annotations(load_ground_truth(before), load_ground_truth(after), **options)


def test_nothing_changed_whatever_ids_and_order() -> None:
    before, after = content(), content()
    random.Random(0).shuffle(after["annotations"])
    random.Random(1).shuffle(after["images"])
    after["categories"] = [{"id": 10 * each["id"], "name": each["name"]} for each in reversed(after["categories"])]
    for each in after["annotations"]:
        each["id"] += 500
        each["category_id"] *= 10
    changes = compared(before, after)
    assert (changes.changes, changes.unchanged, changes.images) == ([], 27, 3)
    assert changes.images_added == changes.images_removed == changes.classes_added == changes.classes_removed == []


def test_every_change_is_named() -> None:
    before, after = content(), content()
    rows = {each["id"]: each for each in after["annotations"]}
    del after["annotations"][0]  # 1
    rows[5]["category_id"] = 1 + rows[5]["category_id"] % 3
    rows[12].update(square(12, 1, rows[12]["category_id"], 69, 5))  # by 4 of its 20 pixels
    rows[20]["iscrowd"] = 1
    rows[20]["segmentation"] = {"size": [100, 100], "counts": [35 * 100 + 5, 20, *[80, 20] * 19, 10000 - 55 * 100 + 75]}
    after["annotations"].append(square(99, 2, 3, 78, 78, side=8))
    changes = compared(before, after)
    listed = [(each["image"], each["change"], each["before"], each["after"]) for each in changes.changes]
    assert listed == [
        ("deep/0.png", "removed", 1, None),
        ("deep/0.png", "relabelled", 5, 5),
        ("deep/1.png", "moved", 12, 12),
        ("deep/2.png", "relabelled", 20, 20),
        ("deep/2.png", "added", None, 99),
    ]
    moved = changes.changes[2]
    assert moved["iou"] == pytest.approx(16 / 24, abs=1e-4)
    assert (changes.changes[1]["class_before"], changes.changes[1]["class_after"]) == ("husk", "cell")
    assert changes.changes[3]["class_after"] == "husk (crowd)"
    assert changes.unchanged == 27 - 4
    assert changes.counts()["husk", "added"] == 1
    assert len(compared(before, after, unchanged=0.6).changes) == 4


def test_a_neighbour_of_the_own_class_does_not_hide_another_label() -> None:
    """One that lies exactly where one of another class was has been relabelled, though one of its class is near."""
    before, after = content(images=1), content(images=1)
    before["annotations"] = [square(1, 0, 1, 10, 10), square(2, 0, 2, 16, 10)]
    after["annotations"] = [square(1, 0, 2, 10, 10), square(2, 0, 2, 16, 10)]
    (change,) = compared(before, after).changes
    assert (change["change"], change["before"], change["after"], change["iou"]) == ("relabelled", 1, 1, 1.0)


def test_images_and_classes_that_one_side_lacks() -> None:
    before, after = content(), content()
    before["images"][0]["file_name"], after["images"][0]["file_name"] = "deep/old.png", "deep/new.png"
    after["categories"].append({"id": 4, "name": "leaf"})
    changes = compared(before, after)
    assert (changes.images_removed, changes.images_added, changes.images) == (["deep/old.png"], ["deep/new.png"], 2)
    assert (changes.classes_added, changes.unchanged, changes.changes) == (["leaf"], 18, [])


def test_editors_drop_folders_and_masks() -> None:
    before, after = content(), deepcopy(content())
    for image in after["images"]:
        image["file_name"] = image["file_name"].removeprefix("deep/")
    for each in after["annotations"]:
        del each["segmentation"]
    assert compared(before, after).unchanged == 27, "boxes are compared"


def test_other_sizes_and_doubled_names_are_refused() -> None:
    before, after = content(), content()
    after["images"][1]["width"] = 90
    with pytest.raises(DataError, match=r"deep/1\.png: the sizes differ, 100 x 100 and 90 x 100"):
        compared(before, after)
    after["images"][1]["file_name"] = "deep/0.png"
    with pytest.raises(DataError, match=r"several images are called deep/0\.png"):
        compared(before, after)
