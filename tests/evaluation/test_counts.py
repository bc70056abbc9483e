"""Errors of counts, against counting one by one."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.counts import DENSITIES, study_counts
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.evaluation.test_protocol import crowd_of, perfect

Json = dict[str, Any]


def counted_one_by_one(truth: Json, results: list[Json], thresholds: dict[int, float]) -> Json:
    """``{(image, category): (true, found)}``: pycocotools says which results a crowd swallows."""
    kept = [each for each in copy.deepcopy(results) if each["score"] >= thresholds[each["category_id"]]]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(kept), "segm")
        evaluation.params.iouThrs = [0.5]
        evaluation.params.maxDets = [10_000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    table = {(image["id"], each["id"]): (0, 0) for image in truth["images"] for each in truth["categories"]}
    for entry in evaluation.evalImgs:
        if entry is not None:
            ignored = np.asarray(entry["dtIgnore"][0], dtype=bool)
            true = sum(not each for each in entry["gtIgnore"])
            table[entry["image_id"], entry["category_id"]] = (true, len(ignored) - int(ignored.sum()))
    return table


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_counting_one_by_one(seed: int) -> None:
    truth = crowded_truth(seed)
    results = noisy_results(truth, seed)
    thresholds = {2: 0.3, 5: 0.0, 9: 0.8, 11: 0.5}
    table = counted_one_by_one(truth, results, thresholds)
    study = study_counts(compare(truth, results), [thresholds[each] for each in (2, 5, 9, 11)])
    assert study.kind == "segm"
    for column, each in enumerate(study.classes):
        pairs = [table[image, each.id] for image in study.images]
        assert [tuple(pair) for pair in zip(study.true[:, column], study.found[:, column], strict=True)] == pairs
        errors = [found - true for true, found in pairs]
        assert each.errors.mae == pytest.approx(sum(abs(error) for error in errors) / len(errors))
        assert each.errors.rmse == pytest.approx((sum(error**2 for error in errors) / len(errors)) ** 0.5)
        assert each.errors.bias == pytest.approx(sum(errors) / len(errors))
    totals = {
        image: [sum(table[image, each][side] for each in (2, 5, 9, 11)) for side in (0, 1)] for image in study.images
    }
    assert study.total is not None
    assert study.total.mae == pytest.approx(np.mean([abs(found - true) for true, found in totals.values()]))
    assert sum(each.errors.images for each in study.densities) == len(study.images)
    for density in study.densities:
        inside = [
            found - true
            for true, found in totals.values()
            if density.low <= true and (density.high is None or true <= density.high)
        ]
        assert density.errors.images == len(inside)
        assert density.errors.bias == pytest.approx(np.mean(inside))


def test_all_results_count_whatever_the_limit_of_ap() -> None:
    """COCO looks at 100 of an image and class; counts would be off by 150."""
    truth = crowd_of({1: 250, 2: 120})
    study = study_counts(compare(truth, perfect(truth)), [0.5, 0.5])
    assert study.found.tolist() == study.true.tolist() == [[250, 120]]
    assert study.total is not None
    assert (study.total.mae, study.total.rmse, study.total.bias) == (0, 0, 0)
    assert [(each.low, each.high) for each in study.densities] == [(200, 499)]


def test_images_without_anything_and_sets_without_images() -> None:
    truth = {"images": [{"id": 4}], "categories": [{"id": 1, "name": "pea"}], "annotations": []}
    found = [{"image_id": 4, "category_id": 1, "bbox": [0, 0, 5, 5], "score": score} for score in (0.2, 0.6)]
    study = study_counts(compare(truth, found), [0.5])
    assert (study.kind, study.found.tolist(), study.true.tolist()) == ("bbox", [[1]], [[0]])
    assert [(each.low, each.high, each.errors.bias) for each in study.densities] == [(0, 0, 1.0)]
    empty = study_counts(compare({**truth, "images": []}, []), [0.5])
    assert (empty.total, empty.classes, empty.densities) == (None, (), ())


def test_bins_begin_where_they_say() -> None:
    truth = crowd_of({1: DENSITIES[-1]})
    study = study_counts(compare(truth, []), [0.5])
    assert [(each.low, each.high, each.errors.bias) for each in study.densities] == [(1000, None, -1000.0)]
