"""Thresholds, against trying every one of them with pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.operating_point import THRESHOLDS, Best, Quality, study_operating_point
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.evaluation.test_protocol import crowd_of, perfect

Json = dict[str, Any]


class Tried(NamedTuple):
    """Of one class at one threshold."""

    right: int
    found: int
    total: int
    off: float


def tried(truth: Json, results: list[Json], threshold: float) -> dict[int, Tried]:
    """What is left above the threshold, matched by pycocotools as if there were nothing else. By category."""
    kept = [each for each in copy.deepcopy(results) if each["score"] >= threshold]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        found = coco.loadRes(kept) if kept else COCO()
        if not kept:
            found.dataset = {**copy.deepcopy(truth), "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "segm")
        evaluation.params.iouThrs = [0.5]
        evaluation.params.maxDets = [10_000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    right, counts, totals = Counter[int](), Counter[int](), Counter[int]()
    off = Counter[int]()
    for entry in filter(None, evaluation.evalImgs):
        ignored = np.asarray(entry["dtIgnore"][0], dtype=bool)
        matched = np.asarray(entry["dtMatches"][0]) > 0
        own, true = int((~ignored).sum()), sum(not each for each in entry["gtIgnore"])
        category = entry["category_id"]
        right[category] += int((matched & ~ignored).sum())
        counts[category] += own
        totals[category] += true
        off[category] += abs(own - true)
    return {
        each["id"]: Tried(right[each["id"]], counts[each["id"]], totals[each["id"]], off[each["id"]])
        for each in truth["categories"]
    }


@pytest.fixture(scope="module")
def scene() -> tuple[Json, list[Json]]:
    truth = crowded_truth(3, images=8)
    return truth, noisy_results(truth, 3)


@pytest.mark.parametrize("best", ["f1", "count"])
def test_no_other_threshold_is_better(scene: tuple[Json, list[Json]], best: Best) -> None:
    """Of all scores that occur, and of none: the numbers are those of the threshold, and there are no better ones."""
    truth, results = scene
    study = study_operating_point(compare(truth, results), best)
    every = [tried(truth, results, score) for score in sorted({each["score"] for each in results} | {1.0})]
    for point in study.classes:
        if not point.own:
            continue
        assert point.at is not None
        assert point.at.threshold is not None
        own = tried(truth, results, point.at.threshold)[point.id]
        check(point.at, own, images=len(truth["images"]))
        if best == "f1":
            values = [2 * each[point.id].right / (each[point.id].found + each[point.id].total) for each in every]
            assert point.at.f1 == pytest.approx(max(values))
        else:
            assert own.off == min(each[point.id].off for each in every)
    pea = study.classes[-1]
    assert (pea.name, pea.instances, pea.own) == ("pea", 0, False)
    assert pea.at is not None
    assert study.overall.at is not None
    assert pea.at.threshold == study.overall.at.threshold
    assert study.thresholds is not None


def check(quality: Quality, expected: Tried, *, images: int) -> None:
    assert (quality.right, quality.found) == (expected.right, expected.found)
    assert quality.precision == (pytest.approx(expected.right / expected.found) if expected.found else None)
    assert quality.recall == pytest.approx(expected.right / expected.total)
    assert quality.f1 == pytest.approx(2 * expected.right / (expected.found + expected.total))
    assert quality.count_error == pytest.approx(expected.off / images)
    assert quality.bias == pytest.approx((expected.found - expected.total) / images)


def test_curves(scene: tuple[Json, list[Json]]) -> None:
    truth, results = scene
    study = study_operating_point(compare(truth, results))
    for place in (0, 20, 30, 55, 95, 100):  # on scores that occur, between them, above all
        expected = tried(truth, results, THRESHOLDS[place])
        for point in study.classes:
            own = expected[point.id]
            curve = point.curve
            assert curve.count_error[place] == pytest.approx(own.off / len(truth["images"]))
            assert curve.precision[place] == pytest.approx(own.right / own.found if own.found else np.nan, nan_ok=True)
            assert curve.recall[place] == pytest.approx(own.right / own.total if own.total else np.nan, nan_ok=True)
        right, found = sum(each.right for each in expected.values()), sum(each.found for each in expected.values())
        assert study.overall.curve.precision[place] == pytest.approx(right / found if found else np.nan, nan_ok=True)


def test_all_classes_with_a_threshold_each(scene: tuple[Json, list[Json]]) -> None:
    truth, results = scene
    study = study_operating_point(compare(truth, results))
    assert study.thresholds is not None
    assert study.together is not None
    each = [point.at for point in study.classes]
    assert study.together.found == sum(at.found for at in each if at is not None)
    assert study.together.right == sum(at.right for at in each if at is not None)
    by_id = dict(zip((2, 5, 9, 11), study.thresholds, strict=True))
    kept = [each for each in results if each["score"] >= by_id[each["category_id"]]]
    crowded = {each["image_id"] for each in truth["annotations"] if each["iscrowd"]}
    plain = [image["id"] for image in truth["images"] if image["id"] not in crowded]
    assert sum(each["image_id"] in plain for each in kept) <= study.together.found <= len(kept)


def test_a_threshold_lies_between_scores_and_is_short() -> None:
    truth = crowd_of({1: 3})
    results = perfect(truth)
    for result, score in zip(results, (0.9, 0.8, 0.7000001), strict=True):
        result["score"] = score
    wrong = [{**results[0], "bbox": [150, 150, 4, 4], "score": 0.3, "segmentation": results[0]["segmentation"]}]
    study = study_operating_point(compare(truth, [*results, *wrong]))
    assert study.thresholds == (0.5,)
    close = [{**wrong[0], "score": 0.7}]
    (threshold,) = study_operating_point(compare(truth, [*results, *close])).thresholds or ()
    assert 0.7 < threshold <= 0.7000001


def test_the_limit_of_ap_leaves_nothing_out() -> None:
    truth = crowd_of({1: 250})
    study = study_operating_point(compare(truth, perfect(truth)), "count")
    assert study.together is not None
    assert (study.together.found, study.together.recall, study.together.count_error) == (250, 1.0, 0.0)


@pytest.mark.parametrize("best", ["f1", "count"])
def test_nothing_to_choose_from(best: Best) -> None:
    truth = crowd_of({1: 3})
    for given, results in ((truth, []), ({**truth, "annotations": []}, perfect(truth)), ({**truth, "images": []}, [])):
        given = given if given["images"] else {**given, "annotations": []}
        study = study_operating_point(compare(given, results), best)
        nothing_to_find = not given["annotations"]
        assert (study.thresholds is None) == (nothing_to_find or best == "f1")
