"""Results in other conventions than COCO's are named: their AP alone would say that the model is bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pycocotools import mask as coco_mask

from dsctool.evaluation.coco import evaluate_all
from tests.data.pieces import HEIGHT, WIDTH, pieces

Result = dict[str, Any]
Change = Callable[[Result], object]


def _results(*, masks: bool) -> list[Result]:
    """Perfect ones."""
    results = []
    for number, entry in enumerate(pieces()["annotations"]):
        result = {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9 - number / 100}
        if masks:
            rle = coco_mask.frPyObjects(entry["segmentation"], HEIGHT, WIDTH)[0]
            result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        results.append(result)
    return results


def _notes(results: list[Result]) -> list[str]:
    notes = evaluate_all(pieces(), results).notes
    return [note.removeprefix("predictions: ") for note in notes if note.startswith("predictions: ")]


def _box(read: Callable[[float, float, float, float], list[float]]) -> Change:
    return lambda result: result.update(bbox=read(*result["bbox"]))


ODD: dict[str, tuple[Change, str]] = {
    "corners": (_box(lambda x, y, w, h: [x, y, x + w, y + h]), "x1, y1, x2, y2"),
    "centres": (_box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), "centre x, centre y"),
    "turned": (_box(lambda x, y, w, h: [y, x, h, w]), "y, x, height, width"),
    "shares": (_box(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]), "normalised x, y"),
    "half": (_box(lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2]), "of images 0.5 times as large"),
    "negative": (_box(lambda x, y, w, h: [x + w, y, -w, h]), "12 boxes have a negative width"),
    "classes": (lambda result: result.update(category_id=3 - result["category_id"]), "but of other classes"),
}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_all_results_that_are_odd_alike_are_named(name: str, masks: bool) -> None:
    change, words = ODD[name]
    results = _results(masks=masks)
    for result in results:
        change(result)
    assert any(words in note for note in _notes(results)), _notes(results)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_is_said_of_results_in_order(masks: bool) -> None:
    assert _notes(_results(masks=masks)) == []


def test_masks_that_are_not_of_their_boxes_are_told_of() -> None:
    results = _results(masks=True)
    masks = [result["segmentation"] for result in results]
    for result, mask in zip(results, masks[1:] + masks[:1], strict=True):
        result["segmentation"] = mask
    assert _notes(results) == ["12 of the best 12 masks do not fit the boxes of the same results"]


def test_results_that_are_there_twice_are_counted() -> None:
    results = _results(masks=True)
    assert _notes(results + results[:2])[0].startswith("2 results repeat others")


def test_images_without_results_are_counted() -> None:
    assert _notes(_results(masks=True)[:8]) == ["1 of 3 images with annotations have no results"]
