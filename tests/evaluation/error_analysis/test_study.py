"""The analysis of errors: its decomposition by its definition, its properties, and by hand."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsctool.errors import DataError
from dsctool.evaluation.coco import evaluate
from dsctool.evaluation.comparison import compare
from dsctool.evaluation.error_analysis.costs import Diagnosis, diagnose, mended_precision
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES, ErrorReport, ErrorView
from dsctool.evaluation.error_analysis.study import ErrorSettings, study_errors
from dsctool.evaluation.error_analysis.types import surroundings
from dsctool.evaluation.huddle.study import huddle_report
from dsctool.evaluation.matching import View
from dsctool.evaluation.protocol import AreaRange, Protocol
from dsctool.evaluation.sources import load_ground_truth
from tests.evaluation.crowded import Json, crowded_truth, noisy_results
from tests.evaluation.error_analysis.slow_errors import SlowErrors
from tests.evaluation.huddle.slow_huddle import largest_overlap

SIZES = {"small": (0.0, 200.0), "medium": (200.0, 500.0), "large": (500.0, 1e10)}
"""Of the generated instances, most of which COCO calls small."""


def views_of(report: ErrorReport, kind: str) -> dict[str, ErrorView]:
    found = report["bbox"] if kind == "bbox" else report["segm"]
    assert found is not None
    assert [view["name"] for view in found["views"]] == ["all", "small", "medium", "large", "huddled", "lone"]
    return {view["name"]: view for view in found["views"]}


def wanted_of(truth: Json, view: str, t_o: float) -> set[int]:
    """Ids of the instances of a view, by the plain definitions."""
    instances = [each for each in truth["annotations"] if not each["iscrowd"]]
    if view == "all":
        return {each["id"] for each in instances}
    if view in SIZES:
        low, high = SIZES[view]
        return {each["id"] for each in instances if low <= each["area"] <= high}
    huddled = {each["id"] for each in instances if largest_overlap(each, truth["annotations"], "box", False) > t_o}
    return huddled if view == "huddled" else {each["id"] for each in instances} - huddled


# --- decomposition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [3, 13])
def test_every_view_is_what_the_slow_definition_gives(seed: int, ties: bool) -> None:
    protocol = Protocol(areas=tuple(AreaRange(name, *ends) for name, ends in SIZES.items()))
    truth = crowded_truth(seed=seed)
    results = noisy_results(truth, seed=seed + 1, ties=ties)
    report = study_errors(truth, results, settings=ErrorSettings(t_o=0.2), protocol=protocol).report
    seen = set()
    for kind in ("bbox", "segm"):
        for name, view in views_of(report, kind).items():
            wanted = wanted_of(truth, name, 0.2)
            slow = SlowErrors(truth, results, kind, wanted, SIZES.get(name, (0.0, 1e10)))
            assert view["instances"] == len(wanted) > 4, name
            assert view["AP50"] == pytest.approx(slow.precision(()), abs=1e-9), (kind, name)
            for error, (count, difference) in slow.losses().items():
                loss = view["errors"][error]  # type: ignore[index]
                assert loss["count"] == count, (kind, name, error)
                assert loss["difference"] == pytest.approx(difference, abs=1e-9), (kind, name, error)
                seen |= {error} if difference > 0 else set()
    assert seen == set(ERROR_TYPES), "every type costs something somewhere"


def test_ap50_is_that_of_eval_and_of_the_huddle_report() -> None:
    truth = crowded_truth(seed=9)
    truth["images"] = truth["images"][:-1]  # the last one has no instances: the huddle report leaves it out
    results = noisy_results(truth, seed=10)
    report = study_errors(truth, results, settings=ErrorSettings(t_o=0.1)).report
    stats = evaluate(truth, results)
    huddled = next(view for view in huddle_report(truth, results)["instance_level"] if view["t_o"] == 0.1)
    for kind in ("bbox", "segm"):
        views = views_of(report, kind)
        assert views["all"]["AP50"] == pytest.approx(stats[kind]["AP50"], abs=1e-12)  # type: ignore[literal-required]
        assert views["huddled"]["AP50"] == pytest.approx(huddled[kind]["AP50"], abs=1e-12)  # type: ignore[literal-required]
        assert views["huddled"]["instances"] == huddled["instances"]
        assert views["huddled"]["instances"] + views["lone"]["instances"] == views["all"]["instances"]


def test_ap50_of_sizes_is_pycocotools() -> None:
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = crowded_truth(seed=15)
    for annotation in truth["annotations"]:
        annotation["area"] *= 6
    results = noisy_results(truth, seed=16)
    report = study_errors(truth, results).report
    for kind in ("bbox", "segm"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = json.loads(json.dumps(truth))
            coco.createIndex()
            given = [{k: v for k, v in each.items() if kind == "bbox" or k != "bbox"} for each in results]
            evaluation = COCOeval(coco, coco.loadRes(given), kind)
            evaluation.evaluate()
            evaluation.accumulate()
        for index, name in enumerate(("all", "small", "medium", "large")):
            values = evaluation.eval["precision"][0, :, :, index, 2]
            expected = values[values > -1].mean() if (values > -1).any() else -1.0
            assert views_of(report, kind)[name]["AP50"] == pytest.approx(expected, abs=1e-12), (kind, name)


# --- properties -------------------------------------------------------------------------------------


def diagnosis(truth: Json, results: list[Json], seed: int) -> Diagnosis:
    """With about half of the instances counted."""
    compared = compare(truth, results)
    table = compared.truth
    counted = table.wanted & (np.random.default_rng(seed).random(len(table.image)) < 0.6)
    around = surroundings(compared, "segm")
    (found,) = diagnose(compared, "segm", around, [View(counted)])
    return found


@pytest.mark.parametrize("seed", range(6))
def test_mending_more_never_costs_and_mending_all_gives_1(seed: int) -> None:
    """Also where whole categories are missed, and where not all instances count."""
    truth = crowded_truth(seed=seed)
    results = noisy_results(truth, seed=seed + 100)
    if seed % 2:
        results = [each for each in results if each["category_id"] != 5]
    each = diagnosis(truth, results, seed)
    assert each.counted.any()
    for trial in range(4):
        order = np.random.default_rng(trial).permutation(len(ERROR_TYPES))
        chain = [mended_precision(each, [ERROR_TYPES[i] for i in order[:count]]) for count in range(len(order) + 1)]
        assert all(after >= before - 1e-12 for before, after in pairwise(chain)), (order, chain)
        assert chain[0] < 0.9
        assert chain[-1] == pytest.approx(1.0, abs=1e-12)


def test_every_wrong_detection_has_one_type_and_every_instance_one_fate() -> None:
    truth = crowded_truth(seed=21)
    each = diagnosis(truth, noisy_results(truth, seed=22), 0)
    wrong = (each.matches.found | each.matches.ignored) & 1 == 0
    assert np.array_equal(each.errors.code >= 0, wrong)
    assert not (each.errors.found & each.errors.missed).any()
    assert not ((each.errors.found | each.errors.missed) & ~each.counted).any()


def test_one_sided_losses_bound_those_of_types() -> None:
    """Without wrong detections, nothing that leaves some of them out can be better; and the same for instances."""
    truth = crowded_truth(seed=23)
    view = views_of(study_errors(truth, noisy_results(truth, seed=24)).report, "segm")["all"]
    assert view["false_positives"] is not None
    assert view["false_negatives"] is not None
    for name in ("both", "duplicate", "background"):
        assert view["false_positives"] >= view["errors"][name]["difference"]  # type: ignore[literal-required]
    assert view["false_negatives"] >= view["errors"]["missed"]["difference"]  # type: ignore[operator]
    assert sum(loss["share"] for loss in view["errors"].values()) == pytest.approx(1.0)  # type: ignore[misc]


# --- by hand ----------------------------------------------------------------------------------------


def box_truth(*boxes: tuple[int, list[float]]) -> Json:
    """One image; categories 1 and 2. boxes: with their categories."""
    return {
        "images": [{"id": 1, "height": 100, "width": 300}],
        "categories": [{"id": 1, "name": "plum"}, {"id": 2, "name": "pear"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for number, (category, box) in enumerate(boxes, start=1)
        ],
    }


def box_result(category: int, box: list[float], score: float) -> Json:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


PLUM, PEAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 40.0, 40.0]


@pytest.mark.parametrize(
    ("category", "box", "name"),
    [
        (1, [0, 0, 40, 10], "localisation"),
        (1, [100, 0, 40, 38], "classification"),
        (1, [100, 0, 40, 19], "both"),
        (1, [0, 0, 40, 39], "duplicate"),
        (1, [200, 0, 40, 40], "background"),
        (1, [0, 0, 40, 20], "duplicate"),  # IoU 0.5 is enough to match
        (1, [100, 0, 40, 20], "classification"),
        (1, [0, 0, 40, 4], "localisation"),  # and 0.1 to be about an instance
        (1, [0, 0, 40, 3.9], "background"),
    ],
)
def test_types(category: int, box: list[float], name: str) -> None:
    """A perfect result for both instances, and a better scored one that is wrong."""
    results = [box_result(1, PLUM, 0.8), box_result(2, PEAR, 0.8), box_result(category, box, 0.7)]
    report = study_errors(box_truth((1, PLUM), (2, PEAR)), results).report
    losses = views_of(report, "bbox")["all"]["errors"]
    assert {each: loss["count"] for each, loss in losses.items() if loss["count"]} == {name: 1}


def test_what_each_type_costs() -> None:
    """Two plums: one found behind a mislabelled pear, one missed. Category 2: its pear was called a plum."""
    other_plum = [0.0, 50.0, 40.0, 40.0]
    truth = box_truth((1, PLUM), (2, PEAR), (1, other_plum))
    report = study_errors(truth, [box_result(1, PEAR, 0.9), box_result(1, PLUM, 0.8)]).report
    view = views_of(report, "bbox")["all"]
    half = 51 / 101  # recalls from 0 to 0.5
    assert view["AP50"] == pytest.approx(half * 0.5 / 2)
    # Mended, the first detection is a pear: all of category 2, and the plum is first.
    assert view["errors"]["classification"]["difference"] == pytest.approx((half + 1) / 2 - half / 4)
    # One plum to be found: with precision 0.5.
    assert view["errors"]["missed"] == {
        "count": 1,
        "difference": pytest.approx(0.25 - half / 4),
        "share": pytest.approx((0.25 - half / 4) / ((half + 1) / 2 - half / 4 + 0.25 - half / 4)),
    }
    assert view["false_positives"] == pytest.approx(half / 2 - half / 4)
    assert view["false_negatives"] == pytest.approx((0.5 + 1) / 2 - half / 4), "nothing left of category 2 counts as 1"


def test_of_two_mended_detections_the_better_finds_the_instance() -> None:
    results = [box_result(2, PLUM, 0.9), box_result(2, PLUM, 0.5), box_result(1, [100, 60, 9, 9], 0.7)]
    view = views_of(study_errors(box_truth((1, PLUM)), results).report, "bbox")["all"]
    assert view["errors"]["classification"]["count"] == 2
    assert view["errors"]["classification"]["difference"] == pytest.approx(1.0)
    assert view["errors"]["missed"]["count"] == 0


def test_a_detection_about_an_instance_that_does_not_count_is_elsewhere() -> None:
    neighbour = [30.0, 0.0, 40.0, 40.0]
    truth = box_truth((1, PLUM), (1, neighbour), (2, PEAR))
    results = [box_result(1, PLUM, 0.9), box_result(1, [0, 0, 40, 39], 0.8), box_result(2, PEAR, 0.5)]
    views = views_of(study_errors(truth, results).report, "bbox")
    assert (views["huddled"]["instances"], views["lone"]["instances"]) == (2, 1)
    assert views["huddled"]["errors"]["duplicate"]["count"] == 1
    assert views["huddled"]["errors"]["missed"]["count"] == 1
    assert views["lone"]["errors"]["elsewhere"]["count"] == 1
    assert views["lone"]["errors"]["duplicate"]["count"] == 0
    assert views["lone"]["errors"]["missed"]["count"] == 0


def test_an_overlap_of_just_t_o_is_not_huddled() -> None:
    truth = box_truth((1, PLUM), (1, [30.0, 0.0, 40.0, 40.0]))
    for t_o, huddled in ((400 / 2800, 0), (400 / 2800 - 1e-9, 2)):
        views = views_of(study_errors(truth, [], settings=ErrorSettings(t_o=t_o)).report, "bbox")
        assert (views["huddled"]["instances"], views["lone"]["instances"]) == (huddled, 2 - huddled)


# --- odd input --------------------------------------------------------------------------------------


def test_without_predictions_all_is_missed() -> None:
    study = study_errors(crowded_truth(seed=31), [])
    view = views_of(study.report, "segm")["all"]
    assert view["AP50"] == 0
    assert view["errors"]["missed"]["difference"] == pytest.approx(1.0)
    assert view["errors"]["missed"]["count"] == view["instances"]
    assert any("no predictions" in note for note in study.notes)


def test_without_instances_there_are_no_numbers() -> None:
    truth = crowded_truth(seed=32)
    results = noisy_results(truth, seed=33)
    truth["annotations"] = []
    for kind in ("bbox", "segm"):
        for view in views_of(study_errors(truth, results).report, kind).values():
            assert (view["instances"], view["AP50"], view["false_positives"]) == (0, -1, None)
            assert all(loss["difference"] is None and loss["share"] is None for loss in view["errors"].values())


def test_boxes_only() -> None:
    truth = crowded_truth(seed=34)
    boxes = [{k: v for k, v in each.items() if k != "segmentation"} for each in noisy_results(truth, seed=35)]
    study = study_errors(truth, boxes)
    assert study.report["segm"] is None
    assert study.report["confusion"]["kind"] == "bbox"
    assert study.notes == ["no numbers for masks: predictions has boxes only"]


def test_overlaps_of_masks_need_masks() -> None:
    with pytest.raises(DataError, match="ground truth: has no segmentations, which overlap 'iomin' needs"):
        study_errors(box_truth((1, PLUM)), [], settings=ErrorSettings(overlap="iomin"))


def test_annotation_zero_is_never_found() -> None:
    truth = box_truth((1, PLUM))
    truth["annotations"][0]["id"] = 0
    view = views_of(study_errors(truth, [box_result(1, PLUM, 0.9)]).report, "bbox")["all"]
    assert view["AP50"] == evaluate(truth, [box_result(1, PLUM, 0.9)])["bbox"]["AP50"] == 0
    assert view["errors"]["missed"]["count"] == 1


def test_the_input_is_not_changed_and_the_report_is_json(tmp_path: Path) -> None:
    truth = crowded_truth(seed=36)
    results = noisy_results(truth, seed=37)
    before = json.dumps([truth, results])
    report: Any = study_errors(truth, results, results).report
    assert json.dumps([truth, results]) == before
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_that_mean_nothing(value: float) -> None:
    with pytest.raises(DataError, match="T_O"):
        ErrorSettings(t_o=value)


# --- real data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_results(kind: str, real_data: Path) -> None:
    """The first images of COCO's own example."""
    folder = real_data / "evaluator" / "coco-val2014-100"
    truth, results = (json.loads((folder / name).read_text()) for name in ("gt.json", f"dt_{kind}.json"))
    kept = sorted({each["image_id"] for each in results})[:30]
    truth["images"] = [each for each in truth["images"] if each["id"] in kept]
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] in kept]
    results = [each for each in results if each["image_id"] in kept]
    loaded = load_ground_truth(truth)
    view = views_of(study_errors(truth, results).report, kind)["all"]
    for annotation, mask in zip(truth["annotations"], loaded.masks, strict=True):
        annotation["segmentation"] = mask
    slow = SlowErrors(truth, results, kind, wanted_of(truth, "all", 0.1))
    assert view["AP50"] == pytest.approx(slow.precision(()), abs=1e-9)
    assert view["AP50"] == pytest.approx(evaluate(truth, results)[kind]["AP50"], abs=1e-9)  # type: ignore[literal-required]
    for name, (count, difference) in slow.losses().items():
        loss = view["errors"][name]  # type: ignore[index]
        assert loss["count"] == count, name
        assert loss["difference"] == pytest.approx(difference, abs=1e-9), name
