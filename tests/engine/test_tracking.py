"""Numbers that go on from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.engine.tracking import PATIENCE, Tracker


def result(x: int, *, y: int = 10, side: int = 20, category: int = 1, masks: bool = True) -> Any:
    found: dict[str, Any] = {"image_id": 1, "category_id": category, "score": 0.9, "bbox": [x, y, side, side]}
    if masks:
        bitmap = np.zeros((60, 200), np.uint8, order="F")
        bitmap[y : y + side, x : x + side] = 1
        found["segmentation"] = coco_mask.encode(bitmap)
    return found


def test_things_keep_their_numbers_as_they_move_in_any_order() -> None:
    for masks in (True, False):
        track = Tracker()
        assert track([result(10, masks=masks), result(100, masks=masks)]) == [1, 2]
        assert track([result(105, masks=masks), result(14, masks=masks)]) == [2, 1]
        assert track([result(18, masks=masks), result(150, masks=masks)]) == [1, 3]
        assert track.count == 3


def test_classes_do_not_go_on_as_each_other() -> None:
    track = Tracker()
    assert track([result(10)]) == [1]
    assert track([result(10, category=2)]) == [2]


def test_the_largest_overlap_goes_first_and_each_number_is_given_once() -> None:
    track = Tracker()
    assert track([result(10)]) == [1]
    assert track([result(18), result(11)]) == [2, 1]


def test_what_is_hidden_for_a_while_comes_back() -> None:
    for frames, number in ((PATIENCE, 1), (PATIENCE + 1, 2)):
        track = Tracker()
        assert track([result(10)]) == [1]
        for _ in range(frames):
            assert track([]) == []
        assert track([result(12)]) == [number]
