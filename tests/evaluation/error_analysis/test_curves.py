"""Precision over recall: pycocotools' numbers, and the best score by trying all."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dsctool.evaluation.coco import evaluate
from dsctool.evaluation.error_analysis.schema import CurveSet
from dsctool.evaluation.error_analysis.study import ErrorSettings, study_errors
from tests.evaluation.crowded import Json, crowded_truth, noisy_results


def curves_of(truth: Json, results: list[Json], kind: str = "bbox") -> CurveSet:
    report = study_errors(truth, results).report
    found = report["bbox"] if kind == "bbox" else report["segm"]
    assert found is not None
    return found["curves"]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_curves_are_pycocotools(kind: str) -> None:
    truth = crowded_truth(seed=71)
    results = noisy_results(truth, seed=72)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        given = [{k: v for k, v in each.items() if kind == "bbox" or k != "bbox"} for each in results]
        evaluation = COCOeval(coco, coco.loadRes(given), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, scores = (evaluation.eval[name][:, :, :, 0, -1] for name in ("precision", "scores"))
    curves = curves_of(truth, results, kind)
    for index, each in enumerate(curves["categories"]):
        if each["curve"] is None:
            assert each["instances"] == 0
            assert (precision[:, :, index] == -1).all()
            continue
        np.testing.assert_allclose(each["curve"]["precision"], precision[0, :, index], rtol=0, atol=1e-12)
        np.testing.assert_allclose(each["curve"]["score"], scores[0, :, index], rtol=0, atol=1e-12)
    assert curves["mean"] is not None
    defined = precision[:, :, precision[0, 0] > -1]
    for name, levels in (("0.50", [0]), ("0.75", [5]), ("0.50:0.95", list(range(10)))):
        np.testing.assert_allclose(curves["mean"][name], defined[levels].mean(axis=(0, 2)), rtol=0, atol=1e-12)


def test_the_mean_of_a_curve_is_its_ap() -> None:
    truth = crowded_truth(seed=73)
    results = noisy_results(truth, seed=74)
    stats, curves = evaluate(truth, results)["bbox"], curves_of(truth, results)
    assert curves["mean"] is not None
    for name, number in (("0.50", "AP50"), ("0.75", "AP75"), ("0.50:0.95", "AP")):
        assert np.mean(curves["mean"][name]) == pytest.approx(stats[number])


def test_the_best_score_by_trying_all() -> None:
    truth = crowded_truth(seed=75)
    truth["annotations"] = [each | {"iscrowd": 0} for each in truth["annotations"]]
    results = noisy_results(truth, seed=76)
    for each in curves_of(truth, results, "segm")["categories"]:
        if each["best"] is None:
            continue
        found = []
        for score in sorted({result["score"] for result in results}):
            kept = [result for result in results if result["score"] >= score]
            kept = [result for result in kept if result["category_id"] == each["id"]]
            counted = [result for result in truth["annotations"] if result["category_id"] == each["id"]]
            right = _right(truth | {"annotations": counted}, kept)
            found.append(2 * right / (len(kept) + len(counted)))
        assert max(found) > 0
        assert each["best"]["f1"] == pytest.approx(max(found))


def _right(truth: Json, results: list[Json]) -> int:
    """How many results AP50 of masks counts as right."""
    if not results:
        return 0
    report = study_errors(truth, results, settings=ErrorSettings(score_threshold=0.0)).report
    return int(np.trace(np.asarray(report["confusion"]["matrix"])))


def test_nothing_found_and_nothing_to_find() -> None:
    truth = crowded_truth(seed=77)
    curves = curves_of(truth, [])
    assert curves["mean"] is not None
    assert set(curves["mean"]["0.50"]) == {0.0}
    assert curves["categories"][0]["best"] == {"score": 0.0, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    truth["annotations"] = []
    empty = curves_of(truth, noisy_results(crowded_truth(seed=77), seed=78))
    assert empty["mean"] is None
    assert all(each["curve"] is None and each["best"] is None for each in empty["categories"])
