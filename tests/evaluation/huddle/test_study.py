"""The huddle report: exact on every cell, by its definitions, with intervals, for any input."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import dsctool
from dsctool.errors import DataError
from dsctool.evaluation.coco import evaluate
from dsctool.evaluation.huddle.study import T_O, T_P, huddle_report
from tests.evaluation.crowded import Json, crowded_truth, noisy_results, pycocotools_numbers
from tests.evaluation.huddle.slow_huddle import crowded_images, instance_precision, largest_overlap


def assert_cells_are_pycocotools(truth: Json, results: list[Json], overlap: str, same_class: bool) -> int:
    """Every cell against pycocotools on the images of the plain definition; how many cells have images."""
    report = huddle_report(truth, results, overlap=overlap, same_class=same_class)  # type: ignore[arg-type]
    assert [(cell["t_o"], cell["t_p"]) for cell in report["cells"]] == [(t_o, t_p) for t_o in T_O for t_p in T_P]
    known: dict[tuple[Any, ...], list[float]] = {}
    for cell in report["cells"]:
        images = crowded_images(truth, cell["t_o"], cell["t_p"], overlap, same_class)
        assert cell["images"] == len(images)
        own = [each for each in truth["annotations"] if each["image_id"] in images and not each["iscrowd"]]
        assert cell["instances"] == len(own)
        for kind in ("bbox", "segm"):
            numbers = cell[kind]
            if not images:
                assert numbers is None
                continue
            key = (kind, *images)
            if key not in known:
                known[key] = pycocotools_numbers(truth, results, kind, images)
            assert list(numbers) == ["AP", "AP50", "AP75"]
            np.testing.assert_allclose(list(numbers.values()), known[key], rtol=0, atol=1e-12, err_msg=f"{cell}")
    return sum(cell["images"] > 0 for cell in report["cells"])


# --- cells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_class", [False, True])
@pytest.mark.parametrize("overlap", ["box", "mask", "iomin"])
def test_every_cell_is_pycocotools_on_its_images(overlap: str, same_class: bool) -> None:
    truth = crowded_truth(seed=3)
    assert assert_cells_are_pycocotools(truth, noisy_results(truth, seed=4), overlap, same_class) > 6


def outside_areas(truth: Json, results: list[Json]) -> None:
    for number, annotation in enumerate(truth["annotations"]):
        annotation["area"] = {0: -5.0, 1: 2e10}.get(number % 5, annotation["area"])
    for result in results[::7]:
        result["bbox"] = [0, 0, 200000, 200000]
    for result in results[3::7]:
        result["bbox"] = [5, 5, -4, 9]


def odd_boxes_and_masks(truth: Json, results: list[Json]) -> None:
    empty = {"size": [60, 80], "counts": coco_mask.encode(np.zeros((60, 80), np.uint8, order="F"))["counts"].decode()}
    for result in results[::5]:
        result["segmentation"] = empty
        result["bbox"] = [70, 50, 40, 30]
    for annotation in truth["annotations"][::6]:
        annotation["bbox"] = [10, 10, 0, 8]


def many_detections(truth: Json, results: list[Json]) -> None:
    results += [{**result, "score": 0.4 + 0.001 * number} for number in range(60) for result in results[:4]]


def annotation_zero(truth: Json, results: list[Json]) -> None:
    truth["annotations"][0]["id"] = 0
    truth["annotations"][1]["id"] = -3


def text_ids(truth: Json, results: list[Json]) -> None:
    for entry in truth["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in [*truth["annotations"], *results]:
        entry["image_id"] = f"image {entry['image_id']}"


@pytest.mark.parametrize("change", [outside_areas, odd_boxes_and_masks, many_detections, annotation_zero, text_ids])
def test_odd_input_is_scored_as_pycocotools_scores_it(change: Callable[[Json, list[Json]], None]) -> None:
    truth = crowded_truth(seed=5)
    results = noisy_results(truth, seed=6)
    change(truth, results)
    assert_cells_are_pycocotools(truth, results, "box", False)


def test_boxes_come_from_masks_where_there_are_only_these() -> None:
    truth = crowded_truth(seed=7)
    results = [{k: v for k, v in each.items() if k != "bbox"} for each in noisy_results(truth, seed=8)]
    assert_cells_are_pycocotools(truth, results, "box", False)


def test_the_whole_set_is_what_eval_says() -> None:
    truth = crowded_truth(seed=9)
    truth["images"] = truth["images"][:-1]  # the last one has no instances: no cell has it
    results = noisy_results(truth, seed=10)
    stats, (first, *_) = evaluate(truth, results), huddle_report(truth, results)["cells"]
    for kind in ("bbox", "segm"):
        for name, value in first[kind].items():  # type: ignore[literal-required]
            assert value == pytest.approx(stats[kind][name], abs=1e-12)  # type: ignore[literal-required]


def test_thresholds_are_exceeded_not_reached() -> None:
    """An overlap of exactly 0.2, and a share of exactly one half."""
    boxes = [[0, 0, 6, 10], [4, 0, 6, 10], [40, 0, 5, 5], [60, 0, 5, 5]]
    truth = {
        "images": [{"id": 1, "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "fig"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 25, "iscrowd": 0}
            for number, box in enumerate(boxes, start=1)
        ],
    }
    report = huddle_report(truth, [], t_o=[0.1, 0.2], t_p=[0.4, 0.5])
    assert [cell["images"] for cell in report["cells"]] == [1, 0, 0, 0]
    assert [view["instances"] for view in report["instance_level"]] == [2, 0]
    assert report["instance_level"][1]["bbox"] is None


# --- instances --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlap", "same_class"), [("box", False), ("iomin", True)])
def test_the_view_of_single_instances(overlap: str, same_class: bool) -> None:
    truth = crowded_truth(seed=11, images=8)
    results = noisy_results(truth, seed=12, ties=False)
    report = huddle_report(truth, results, overlap=overlap, same_class=same_class)  # type: ignore[arg-type]
    instances = [each for each in truth["annotations"] if not each["iscrowd"]]
    tested = 0
    for view in report["instance_level"]:
        wanted = {
            each["id"]
            for each in instances
            if largest_overlap(each, truth["annotations"], overlap, same_class) > view["t_o"]
        }
        assert view["instances"] == len(wanted)
        for kind in ("bbox", "segm"):
            if wanted:
                expected = instance_precision(truth, results, kind, wanted)
                assert view[kind]["AP"] == pytest.approx(expected, abs=1e-12)  # type: ignore[literal-required]
                tested += 1
    assert tested > 6
    assert report["instance_level"][0]["bbox"] == report["cells"][0]["bbox"]


# --- differences ------------------------------------------------------------------------------------


def test_differences_and_intervals() -> None:
    truth = crowded_truth(seed=13)
    first, second = noisy_results(truth, seed=14), noisy_results(truth, seed=15)
    report = huddle_report(truth, first, second, bootstrap=40, seed=1)
    alone = huddle_report(truth, second)
    for cell, other in zip(report["cells"], alone["cells"], strict=True):
        assert other["baseline"] is None
        assert other["difference"] is None
        if cell["images"]:
            assert cell["baseline"] == {kind: other[kind] for kind in ("bbox", "segm")}  # type: ignore[literal-required]
            for kind in ("bbox", "segm"):
                difference = cell["difference"][kind]  # type: ignore[literal-required, index]
                assert difference["AP"] == cell[kind]["AP"] - other[kind]["AP"]  # type: ignore[literal-required]
                assert difference["low"] <= difference["high"]
    everything = report["cells"][0]["difference"]["bbox"]  # type: ignore[index]
    assert everything["low"] < everything["AP"] < everything["high"]
    assert huddle_report(truth, first, second, bootstrap=40, seed=1) == report
    assert huddle_report(truth, first, second, bootstrap=40, seed=2) != report


def test_the_bootstrap_is_paired() -> None:
    truth = crowded_truth(seed=16)
    results = noisy_results(truth, seed=17)
    difference = huddle_report(truth, results, results, bootstrap=20)["cells"][0]["difference"]
    assert difference == {kind: {"AP": 0.0, "low": 0.0, "high": 0.0} for kind in ("bbox", "segm")}


def test_without_a_bootstrap_there_are_no_bounds() -> None:
    truth = crowded_truth(seed=16)
    results = noisy_results(truth, seed=17)
    difference = huddle_report(truth, results, results)["cells"][0]["difference"]
    assert difference == {kind: {"AP": 0.0, "low": None, "high": None} for kind in ("bbox", "segm")}


def test_undefined_numbers() -> None:
    """All areas are out of COCO's range: there is nothing to measure, and no difference of nothing."""
    truth = crowded_truth(seed=18)
    for annotation in truth["annotations"]:
        annotation["area"] = -1.0
    results = noisy_results(truth, seed=19)
    cell = huddle_report(truth, results, results, bootstrap=5)["cells"][0]
    assert cell["bbox"] == {"AP": -1.0, "AP50": -1.0, "AP75": -1.0}
    assert cell["difference"]["bbox"] == {"AP": None, "low": None, "high": None}  # type: ignore[index]


# --- input ------------------------------------------------------------------------------------------


def test_inputs_are_not_changed() -> None:
    truth = crowded_truth(seed=20)
    results = noisy_results(truth, seed=21)
    before = copy.deepcopy((truth, results))
    dsctool.huddle_report(truth, results, results)
    assert (truth, results) == before


def test_files(tmp_path: Path) -> None:
    truth = crowded_truth(seed=20)
    results = noisy_results(truth, seed=21)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    assert huddle_report(tmp_path / "gt.json", str(tmp_path / "dt.json")) == huddle_report(truth, results)


def test_boxes_alone() -> None:
    truth = crowded_truth(seed=22)
    results = noisy_results(truth, seed=23)
    boxes = [{k: v for k, v in each.items() if k != "segmentation"} for each in results]
    cell = huddle_report(truth, results, boxes, bootstrap=3)["cells"][0]
    assert cell["segm"] is not None
    assert cell["baseline"]["segm"] is None  # type: ignore[index]
    assert cell["difference"]["segm"] is None  # type: ignore[index]
    for annotation in truth["annotations"]:
        del annotation["segmentation"]
    assert huddle_report(truth, boxes)["cells"][0]["bbox"] == cell["baseline"]["bbox"]  # type: ignore[index]
    with pytest.raises(DataError, match="has no segmentations, which overlap 'mask' needs"):
        huddle_report(truth, boxes, overlap="mask")


def test_no_results_and_no_instances() -> None:
    truth = crowded_truth(seed=24)
    cell = huddle_report(truth, [])["cells"][0]
    assert cell["bbox"] == cell["segm"] == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    report = huddle_report(truth | {"annotations": []}, noisy_results(truth, seed=25))
    nothing = {"images": 0, "instances": 0, "bbox": None, "segm": None, "baseline": None, "difference": None}
    assert report["cells"] == [{"t_o": t_o, "t_p": t_p, **nothing} for t_o in T_O for t_p in T_P]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 4}, "result 0: image id 4 is not in"),
        ({"category_id": 4}, "result 0: category id 4 is not in"),
        ({"score": float("nan")}, "result 0: score is nan"),
        ({"segmentation": {"size": [80, 60], "counts": [4800]}}, r"result 0: RLE size is \[80, 60\]"),
    ],
)
def test_results_that_cannot_be_used(change: Json, said: str) -> None:
    truth = crowded_truth(seed=26)
    results = noisy_results(truth, seed=27)
    broken = [results[0] | change, *results[1:]]
    with pytest.raises(DataError, match=said):
        huddle_report(truth, broken)
    with pytest.raises(DataError, match=said):
        huddle_report(truth, results, broken)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"overlap": "boxes"}, "'boxes', not one of box, mask, iomin"),
        ({"t_o": []}, "T_O is .*at least one"),
        ({"t_p": [0.1, float("nan")]}, "T_P is .*finite"),
        ({"t_p": [0.1, 0.1]}, "appears twice"),
        ({"bootstrap": -1}, "0 or more"),
    ],
)
def test_settings_that_mean_nothing(settings: Json, said: str) -> None:
    with pytest.raises(DataError, match=said):
        huddle_report(crowded_truth(seed=1), [], **settings)


# --- real data --------------------------------------------------------------------------------------

HUDDLED_VAL = {
    False: [80] * 5 + [72, 72, 72, 72, 71, 59, 59, 53, 51, 41, 43, 41, 30, 19, 12, 26, 21, 12, 8, 3, 13, 10, 4, 2, 2],
    True: [80] * 5 + [44, 44, 43, 35, 26, 30, 29, 24, 14, 9, 20, 15, 10, 4, 2, 11, 8, 6, 2, 0, 4, 3, 0, 0, 0],
}
"""Images per cell of coco-mini val2017, counted by other means; any class, and same class."""


@pytest.mark.parametrize("same_class", [False, True])
def test_real_subsets(real_data: Path, same_class: bool) -> None:
    file = real_data / "coco-mini" / "annotations" / "instances_val2017.json"
    report = huddle_report(file, [], same_class=same_class)
    assert [cell["images"] for cell in report["cells"]] == HUDDLED_VAL[same_class]
    if not same_class:
        assert [view["instances"] for view in report["instance_level"]] == [804, 666, 346, 177, 80, 35]


@pytest.mark.parametrize(
    ("folder", "kind", "file"),
    [
        ("coco-val2014-100", "bbox", "dt_bbox.json"),
        ("coco-val2014-100", "segm", "dt_segm.json"),
        ("fce-3img-segm", "segm", "dt_segm.json"),
        ("fce-crowd-1img-bbox", "bbox", "dt.json"),
        ("d2-coco-val-2img", "segm", "dt.json"),
    ],
)
def test_real_detections(real_data: Path, folder: str, kind: str, file: str) -> None:
    """Cells of every other threshold, which leaves three in ten of them: generated data test all."""
    truth = json.loads((real_data / "evaluator" / folder / "gt.json").read_text())
    results = json.loads((real_data / "evaluator" / folder / file).read_text())
    known: dict[tuple[Any, ...], list[float]] = {}
    for cell in huddle_report(truth, results, t_o=T_O[::2], t_p=T_P[::2])["cells"]:
        images = crowded_images(truth, cell["t_o"], cell["t_p"], "box", False)
        assert cell["images"] == len(images)
        if images and tuple(images) not in known:
            known[tuple(images)] = pycocotools_numbers(truth, results, kind, images)
        if images:
            numbers = list(cell[kind].values())  # type: ignore[literal-required]
            np.testing.assert_allclose(numbers, known[tuple(images)], rtol=0, atol=1e-12)
