"""How many detections and which areas count, and what is said about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.errors import DataError
from dsctool.evaluation.coco import evaluate, evaluate_all, stat_names
from dsctool.evaluation.error_analysis.study import study_errors
from dsctool.evaluation.huddle.study import huddle_report, study_huddles
from dsctool.evaluation.protocol import COCO_AREAS, AreaRange, Protocol, parse_areas, parse_max_dets

Json = dict[str, Any]


def crowd_of(counts: dict[int, int]) -> Json:
    """One image with so many small squares of every category, in rows."""
    annotations: list[Json] = []
    for category, count in counts.items():
        for _ in range(count):
            row, column = divmod(len(annotations), 40)
            x, y = 5 * column, 5 * row
            mask = np.zeros((200, 200), dtype=np.uint8, order="F")
            mask[y : y + 4, x : x + 4] = 1
            rle = coco_mask.encode(mask)
            shape = {"bbox": [x, y, 4, 4], "area": 16, "segmentation": rle | {"counts": rle["counts"].decode()}}
            annotations.append(shape | {"id": len(annotations) + 1, "image_id": 1, "category_id": category})
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": 200, "width": 200}],
        "categories": [{"id": each, "name": f"cell {each}"} for each in counts],
        "annotations": annotations,
    }


def perfect(truth: Json) -> list[Json]:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{key: each[key] for key in keys} | {"score": 0.9} for each in truth["annotations"]]


def test_what_a_perfect_result_gets_is_what_a_perfect_result_gets() -> None:
    truth = crowd_of({1: 250, 2: 120, 5: 30})
    evaluation = evaluate_all(truth, perfect(truth))
    best = evaluation.stats["bbox"]["AP"]
    assert best == pytest.approx((41 + 84 + 101) / 303)
    (note,) = [note for note in evaluation.notes if "perfect" in note]
    assert note == (
        f"a perfect result would get AP {best:.3f} at 100 detections per image and class: the ground truth has up to "
        "250 instances; --max-dets auto counts all"
    )
    assert note in study_huddles(truth, []).notes
    assert note in study_errors(truth, []).notes


def test_auto_counts_all() -> None:
    truth = crowd_of({1: 250, 2: 120, 5: 30})
    evaluation = evaluate_all(truth, perfect(truth), protocol=Protocol(max_dets="auto"))
    assert evaluation.protocol.limits == (1, 10, 250)
    assert evaluation.stats["bbox"]["AP"] == evaluation.stats["bbox"]["AR250"] == pytest.approx(1)
    assert not any("perfect" in note for note in evaluation.notes)
    report = huddle_report(truth, perfect(truth), protocol=Protocol(max_dets="auto"))
    assert report["max_dets"] == 250
    assert report["cells"][0]["bbox"] == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    errors = study_errors(truth, perfect(truth), protocol=Protocol(max_dets="auto")).report
    assert errors["max_dets"] == 250
    assert errors["bbox"]["views"][0]["AP50"] == pytest.approx(1)


def test_auto_is_never_less_than_coco_counts() -> None:
    truth = crowd_of({1: 3})
    assert evaluate(truth, perfect(truth), protocol=Protocol(max_dets="auto")) == evaluate(truth, perfect(truth))


def test_names_of_numbers() -> None:
    areas = parse_areas("small:0:320,medium:1024:9216,huge:970:inf")
    assert areas == (AreaRange("small", 0, 320), COCO_AREAS[1], AreaRange("huge", 970, 1e10))
    names = stat_names(Protocol(max_dets=(1000, 1), areas=areas))
    assert names == ("AP", "AP50", "AP75", "AP_small", "APm", "AP_huge", "AR1", "AR1000", "AR_small", "ARm", "AR_huge")


def test_an_empty_range_is_named() -> None:
    truth = crowd_of({1: 3})
    notes = evaluate_all(truth, [], protocol=Protocol(areas=parse_areas("huge:970:inf"))).notes
    why = "the ground truth has no annotations of the range huge (area from 970 pixels)"
    assert f"AP_huge and AR_huge are -1: {why}" in notes


def test_errors_look_at_the_ranges_given() -> None:
    truth = crowd_of({1: 3})
    report = study_errors(truth, [], protocol=Protocol(areas=parse_areas("dot:0:16,blob:16:100,rest:100:inf"))).report
    views = {view["name"]: view["instances"] for view in report["bbox"]["views"]}
    assert views == {"all": 3, "dot": 3, "blob": 3, "rest": 0, "huddled": 0, "lone": 3}


@pytest.mark.parametrize(
    ("text", "expected"), [("1000", (1, 10, 1000)), ("5", (1, 5)), ("3,7", (3, 7)), ("auto", "auto")]
)
def test_max_dets_as_words(text: str, expected: object) -> None:
    assert parse_max_dets(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1,0", "many", "1.5", ""])
def test_max_dets_that_mean_nothing(text: str) -> None:
    with pytest.raises(DataError, match="give"):
        Protocol(max_dets=parse_max_dets(text))


@pytest.mark.parametrize(
    "text", ["small", "small:0", "small:5:1", "a:0:1,a:1:2", "all:0:5", ":0:5", "a:nan:3", "a:b:c"]
)
def test_areas_that_mean_nothing(text: str) -> None:
    with pytest.raises(DataError):
        Protocol(areas=parse_areas(text))
