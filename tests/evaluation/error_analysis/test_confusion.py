"""The confusion matrix: by its definition, and in agreement with AP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.evaluation.error_analysis.schema import Confusion
from dsctool.evaluation.error_analysis.study import ErrorSettings, study_errors
from tests.evaluation.crowded import Json, crowded_truth, noisy_results
from tests.evaluation.error_analysis.slow_errors import SlowErrors
from tests.evaluation.error_analysis.test_study import PEAR, PLUM, box_result, box_truth


def confusion_of(truth: Json, results: list[Json], score_threshold: float = 0.3) -> Confusion:
    return study_errors(truth, results, settings=ErrorSettings(score_threshold=score_threshold)).report["confusion"]


def slow_matrix(truth: Json, results: list[Json], kind: str, score_threshold: float) -> list[list[int]]:
    """Matches within categories first; then pairs of different ones, again and again the one of highest IoU."""
    kept = [each for each in results if each["score"] >= score_threshold]
    wanted = {each["id"] for each in truth["annotations"] if not each["iscrowd"]}
    slow = SlowErrors(truth, kept, kind, wanted)
    index = {category: number for number, category in enumerate(slow.categories)}
    last = len(index)
    matrix = np.zeros((last + 1, last + 1), dtype=int)
    wrong, left = [], [each for each in slow.annotations if each["id"] in wanted - slow.taken]
    for detection, outcome in zip(slow.detections, slow.outcome, strict=True):
        if outcome:
            matrix[(index[detection["category_id"]],) * 2] += 1
        elif outcome is False:
            wrong.append(detection)
    while True:
        pairs = [
            (slow.iou(one, other), one["score"], a, b)
            for a, one in enumerate(wrong)
            for b, other in enumerate(left)
            if one["image_id"] == other["image_id"] and one["category_id"] != other["category_id"]
        ]
        pairs = [pair for pair in pairs if pair[0] >= 0.5]
        if not pairs:
            break
        _, _, a, b = max(pairs)
        matrix[index[left[b]["category_id"]], index[wrong[a]["category_id"]]] += 1
        del wrong[a], left[b]
    for one in wrong:
        matrix[last, index[one["category_id"]]] += 1
    for other in left:
        matrix[index[other["category_id"]], last] += 1
    return matrix.tolist()


@pytest.mark.parametrize("score_threshold", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_it_is_what_the_slow_definition_gives(kind: str, score_threshold: float) -> None:
    truth = crowded_truth(seed=61)
    results = noisy_results(truth, seed=62, ties=False)
    if kind == "bbox":
        results = [{k: v for k, v in each.items() if k != "segmentation"} for each in results]
    confusion = confusion_of(truth, results, score_threshold)
    assert confusion["kind"] == kind
    assert confusion["matrix"] == slow_matrix(truth, results, kind, score_threshold)
    assert [each["id"] for each in confusion["categories"]] == [2, 5, 9, 11]
    assert [each["name"] for each in confusion["categories"]] == ["date", "fig", "nut", "pea"]


def test_rows_are_the_instances_and_columns_the_detections() -> None:
    """Every instance is in its row once, every detection that is not on a crowd in its column once."""
    truth = crowded_truth(seed=63)
    truth["annotations"] = [each | {"iscrowd": 0} for each in truth["annotations"]]
    results = noisy_results(truth, seed=64)
    matrix = np.asarray(confusion_of(truth, results, 0.4)["matrix"])
    for row, category in enumerate((2, 5, 9, 11)):
        assert matrix[row].sum() == sum(each["category_id"] == category for each in truth["annotations"])
        kept = [each for each in results if each["category_id"] == category and each["score"] >= 0.4]
        assert matrix[:, row].sum() == len(kept)
    assert matrix[-1, -1] == 0


def test_a_detection_of_the_right_category_comes_before_a_better_placed_wrong_one() -> None:
    results = [box_result(1, [0, 0, 40, 30], 0.4), box_result(2, PLUM, 0.9), box_result(1, PEAR, 0.5)]
    assert confusion_of(box_truth((1, PLUM), (2, PEAR)), results)["matrix"] == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert confusion_of(box_truth((1, PLUM), (2, PEAR)), results, 0.45)["matrix"] == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_masks_decide_where_boxes_would_not() -> None:
    """Two triangles share a box: by masks the wrong one is background."""
    y, x = np.mgrid[:100, :300]
    inside = (x < 40) & (y < 40)

    def rle(mask: Any) -> dict[str, Any]:
        found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": [100, 300], "counts": found["counts"].decode()}

    truth = box_truth((1, PLUM))
    truth["annotations"][0]["segmentation"] = rle(inside & (x > y))
    results = [box_result(2, PLUM, 0.9) | {"segmentation": rle(inside & (x < y))}]
    assert confusion_of(truth, results)["matrix"] == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]
    del results[0]["segmentation"]
    assert confusion_of(truth, results)["matrix"] == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
