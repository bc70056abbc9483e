"""What NMS removed: instances that candidates matched, and detections did not."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import batched_nms

from dsctool.errors import DataError
from dsctool.evaluation.error_analysis.schema import SuppressionReport
from dsctool.evaluation.error_analysis.study import study_errors
from tests.evaluation.crowded import Json, crowded_truth
from tests.evaluation.error_analysis.test_study import PEAR, PLUM, box_result, box_truth

NEIGHBOUR = [8.0, 0.0, 40.0, 40.0]
"""A plum that shares two thirds of its box's union with ``PLUM``."""


def suppression_of(truth: Json, candidates: list[Json], results: list[Json]) -> SuppressionReport:
    found = study_errors(truth, results, candidates).report["suppression"]
    assert found is not None
    return found


def nms(candidates: list[Json], iou: float) -> list[Json]:
    x, y, w, h = torch.tensor([each["bbox"] for each in candidates]).float().unbind(1)
    labels = torch.tensor([1000 * each["image_id"] + each["category_id"] for each in candidates])
    scores = torch.tensor([each["score"] for each in candidates])
    return [candidates[row] for row in batched_nms(torch.stack([x, y, x + w, y + h], 1), scores, labels, iou).tolist()]


def test_a_neighbour_that_nms_took_for_a_double() -> None:
    truth = box_truth((1, PLUM), (1, NEIGHBOUR), (2, PEAR))
    candidates = [box_result(1, PLUM, 0.9), box_result(1, NEIGHBOUR, 0.8), box_result(2, PEAR, 0.7)]
    found = suppression_of(truth, candidates, nms(candidates, 0.5))
    views = {
        view["name"]: (view["instances"], view["before"], view["after"], view["removed"]) for view in found["views"]
    }
    assert found["candidates"] == 3
    assert views["all"] == (3, 3, 2, 1)
    assert views["huddled"] == (2, 2, 1, 1)
    assert views["lone"] == (1, 1, 1, 0)
    assert found["removed"] == [
        {"annotation_id": 2, "image_id": 1, "category_id": 1, "overlap": pytest.approx(32 / 48)},
    ]
    assert suppression_of(truth, candidates, nms(candidates, 0.7))["removed"] == []


@pytest.mark.parametrize(
    ("candidate", "removed"),
    [
        (box_result(1, PLUM, 0.1), 1),
        (box_result(2, PLUM, 0.9), 0),  # of another class
        (box_result(1, [0.0, 0.0, 40.0, 19.0], 0.9), 0),  # IoU below 0.5
    ],
)
def test_what_counts_as_a_candidate(candidate: Json, removed: int) -> None:
    assert len(suppression_of(box_truth((1, PLUM)), [candidate], [])["removed"]) == removed


def test_more_candidates_than_coco_looks_at() -> None:
    """The 150th candidate of a category in an image still counts."""
    far = [box_result(1, [200.0, 0.0, 9.0, 9.0], 0.9) for _ in range(149)]
    found = suppression_of(box_truth((1, PLUM)), [*far, box_result(1, PLUM, 0.1)], [])
    assert len(found["removed"]) == 1


def test_what_survives_is_counted_once() -> None:
    """Over generated sets: before is after and removed, where the detections are a part of the candidates."""
    truth = crowded_truth(seed=81, images=20)
    candidates = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.01 * number}
        for number, each in enumerate(truth["annotations"])
    ]
    found = suppression_of(truth, candidates, nms(candidates, 0.2))
    for view in found["views"]:
        assert view["before"] == view["instances"]
        assert view["removed"] == view["before"] - view["after"]
    assert 0 < found["views"][0]["removed"] == len(found["removed"])


def test_candidates_are_checked() -> None:
    with pytest.raises(DataError, match="result 0: image id 5"):
        study_errors(box_truth((1, PLUM)), [], [box_result(1, PLUM, 0.5) | {"image_id": 5}])
    study = study_errors(box_truth((1, PLUM)), [box_result(1, PLUM, 0.5)], [])
    assert any("no candidates" in note for note in study.notes)
