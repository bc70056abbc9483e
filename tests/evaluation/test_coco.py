"""COCO numbers: pycocotools' own, published ones, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.errors import DataError
from dsctool.evaluation.coco import STAT_NAMES, evaluate, evaluate_all
from tests.evaluation.crowded import pycocotools_stats

Json = dict[str, Any]


def perturbed(truth: Json, *, seed: int = 0) -> list[Json]:
    """Detections made from the annotations: moved boxes and masks, wrong classes, misses, duplicates."""
    random = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    results: list[Json] = []
    for annotation in truth["annotations"]:
        for _ in range(random.choice([0, 1, 1, 2])):
            height, width = sizes[annotation["image_id"]]
            mask = _bitmap(annotation["segmentation"], height, width)
            shift = random.integers(-4, 5, size=2)
            rle = coco_mask.encode(np.asfortranarray(np.roll(mask, shift, axis=(0, 1))))
            box = np.asarray(annotation["bbox"]) + random.normal(0, 2, size=4)
            wrong = random.random() < 0.1
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": int(random.choice(categories)) if wrong else annotation["category_id"],
                    "bbox": [float(value) for value in box.clip(0)],
                    "score": float(random.random()),
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                }
            )
    return results


def _bitmap(segmentation: Any, height: int, width: int) -> np.ndarray:
    rle = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(coco_mask.merge(rle) if isinstance(rle, list) else rle)


def rectangle(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def generated_truth(*, seed: int = 0, images: int = 6) -> Json:
    """Rectangles of all COCO sizes, a crowd as uncompressed RLE, category ids with gaps, an empty image."""
    random = np.random.default_rng(seed)
    truth: Json = {
        "images": [{"id": 10 * i + 3, "height": 240, "width": 320, "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in ((7, "cup"), (2, "plate"), (90, "never seen"))],
        "annotations": [],
    }
    for image in truth["images"][:-1]:
        for _ in range(5):
            width, height = (float(value) for value in random.uniform(8, 160, size=2))
            x, y = float(random.uniform(0, 320 - width)), float(random.uniform(0, 240 - height))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": int(random.choice([7, 2])),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": rectangle(x, y, width, height),
                }
            )
    crowd = truth["annotations"][2]
    crowd |= {"iscrowd": 1, "segmentation": {"size": [240, 320], "counts": [240 * 100, 240 * 60, 240 * 160]}}
    return truth


def without(results: list[Json], key: str) -> list[Json]:
    return [{name: value for name, value in result.items() if name != key} for result in results]


# --- the numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_are_pycocotools(seed: int) -> None:
    truth = generated_truth(seed=seed)
    results = perturbed(truth, seed=seed)
    stats = evaluate(truth, results)
    for kind, numbers in (("bbox", stats["bbox"]), ("segm", stats["segm"])):
        assert numbers is not None
        assert list(numbers) == list(STAT_NAMES)
        assert list(numbers.values()) == pytest.approx(pycocotools_stats(truth, results, kind), abs=1e-12)
        assert 0 < numbers["AP"] < 1


def test_nothing_is_changed_or_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth = generated_truth()
    results = perturbed(truth)
    before = copy.deepcopy((truth, results))
    evaluate(truth, results)
    evaluate(truth, without(results, "bbox"))
    assert (truth, results) == before
    assert capsys.readouterr().out == ""


def test_paths_give_the_same_as_objects(tmp_path: Path) -> None:
    truth = generated_truth()
    results = perturbed(truth)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    assert evaluate(tmp_path / "gt.json", str(tmp_path / "dt.json")) == evaluate(truth, results)


def test_perfect_detections_score_one() -> None:
    truth = generated_truth()
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9, "bbox": a["bbox"]}
        | {"segmentation": a["segmentation"]}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    stats = evaluate(truth, results)
    assert stats["bbox"]["AP"] == pytest.approx(1)
    assert stats["segm"] is not None
    assert stats["segm"]["AP"] == pytest.approx(1)


def test_boxes_only() -> None:
    truth = generated_truth()
    results = without(perturbed(truth), "segmentation")
    stats = evaluate(truth, results)
    assert stats["segm"] is None
    assert list(stats["bbox"].values()) == pytest.approx(pycocotools_stats(truth, results, "bbox"), abs=1e-12)


def test_masks_only_takes_boxes_from_the_masks() -> None:
    truth = generated_truth()
    results = without(perturbed(truth), "bbox")
    stats = evaluate(truth, results)
    assert list(stats["bbox"].values()) == pytest.approx(pycocotools_stats(truth, results, "bbox"), abs=1e-12)
    assert stats["bbox"]["AP50"] > 0.1
    assert stats["segm"] == evaluate(truth, perturbed(truth))["segm"]


def test_the_area_of_a_detected_mask_is_the_masks() -> None:
    """A thin mask in a large box: with the box's area it would leave the small range and not count there."""
    truth = generated_truth(images=2)
    truth["annotations"] = truth["annotations"][:1]
    x, y, width, height = truth["annotations"][0]["bbox"] = [20.0, 20.0, 20.0, 20.0]
    truth["annotations"][0] |= {"area": 400.0, "segmentation": rectangle(x, y, width, height)}
    image, category = truth["annotations"][0]["image_id"], truth["annotations"][0]["category_id"]
    miss = {"image_id": image, "category_id": category, "bbox": [50, 50, 150, 150], "score": 0.9}
    hit = {"image_id": image, "category_id": category, "bbox": [20, 20, 20, 20], "score": 0.5}
    masks = [{"segmentation": rectangle(60, 60, 10, 10)}, {"segmentation": rectangle(20, 20, 20, 20)}]
    stats = evaluate(truth, [miss | masks[0], hit | masks[1]])
    assert stats["bbox"]["APs"] == pytest.approx(1)
    assert stats["segm"] is not None
    assert stats["segm"]["APs"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("form", ["polygons", "uncompressed", "bytes"])
def test_every_form_of_mask_counts_the_same(form: str) -> None:
    truth = generated_truth()
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.5, "segmentation": a["segmentation"]}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    expected = evaluate(truth, results)
    for result in results:
        bitmap = _bitmap(result["segmentation"], 240, 320)
        if form == "bytes":
            result["segmentation"] = coco_mask.encode(bitmap)
        if form == "uncompressed":
            flat = bitmap.ravel(order="F")
            ends = np.flatnonzero(np.diff(flat, prepend=0))
            counts = np.diff(ends, prepend=0, append=flat.size).tolist()
            result["segmentation"] = {"size": [240, 320], "counts": counts}
    assert evaluate(truth, results) == expected


def test_no_predictions_are_zeros() -> None:
    truth = generated_truth()
    stats = evaluate(truth, [])
    assert stats["segm"] is not None
    for numbers in (stats["bbox"], stats["segm"]):
        assert {name: numbers[name] for name in ("AP", "AP50", "AR100")} == {"AP": 0, "AP50": 0, "AR100": 0}


def test_minus_one_where_there_is_nothing_to_measure() -> None:
    truth = generated_truth()
    results = perturbed(truth)
    for annotation in truth["annotations"]:
        annotation["area"] = 2000.0
    assert evaluate(truth, results)["bbox"]["APs"] == -1
    truth["annotations"] = []
    stats = evaluate(truth, results)
    assert stats["segm"] is not None
    assert set(stats["bbox"].values()) == set(stats["segm"].values()) == {-1}


def test_ground_truth_without_segmentations() -> None:
    truth = generated_truth()
    results = perturbed(truth)
    for annotation in truth["annotations"]:
        del annotation["segmentation"], annotation["iscrowd"]
    stats = evaluate(truth, results)
    assert stats["segm"] is None
    assert stats["bbox"]["AP"] > 0


def test_per_class_averages_to_the_whole() -> None:
    truth = generated_truth()
    evaluation = evaluate_all(truth, perturbed(truth))
    assert [(row.id, row.name) for row in evaluation.classes] == [(2, "plate"), (7, "cup"), (90, "never seen")]
    assert sum(row.instances for row in evaluation.classes) == 24
    unseen = evaluation.classes[-1]
    assert unseen.segm is not None
    assert set(unseen.bbox.values()) == set(unseen.segm.values()) == {-1}
    for name in ("AP", "AP50", "AP75"):
        mean = np.mean([row.bbox[name] for row in evaluation.classes[:2]])
        assert mean == pytest.approx(evaluation.stats["bbox"][name], abs=1e-12)


# --- what is refused --------------------------------------------------------------------------------


def _broken(key: str, value: Any) -> list[Json]:
    results = perturbed(generated_truth())[:4]
    if value is ...:
        del results[2][key]
    else:
        results[2][key] = value
    return results


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("image_id", 999, "image id 999"),
        ("image_id", [3], r"image id \[3\]"),
        ("image_id", ..., "no 'image_id'"),
        ("category_id", 1, "category id 1"),
        ("score", ..., "no 'score'"),
        ("score", float("nan"), "score is nan"),
        ("score", "0.5", "score is '0.5'"),
        ("bbox", [1, 2, 3], "four finite numbers"),
        ("bbox", [1, 2, 3, float("inf")], "four finite numbers"),
        ("bbox", "abcd", "four finite numbers"),
        ("segmentation", {"size": [320, 240], "counts": "PPY"}, r"RLE size is \[320, 240\]"),
        ("segmentation", {"size": [240, 320], "counts": "PPY"}, "RLE counts"),
        ("segmentation", {"size": [240, 320], "counts": "\u00e9 "}, "RLE counts"),
        ("segmentation", {"size": [240, 320], "counts": [5, -5, 240 * 320]}, "RLE counts"),
        ("segmentation", {"size": [240, 320], "counts": None}, "RLE counts"),
        ("segmentation", {"counts": "PPY"}, "RLE size is None"),
        ("segmentation", [[1, 2, 3]], "x, y pairs"),
        ("segmentation", [[1, 2, 3, 4]], "polygon 1 has 2 points"),
        ("segmentation", [[1, 2, 30, 4, 30, 40], [1, 2, 1e11, 4, 5, 6]], "polygon 2 reaches far out"),
        ("segmentation", 5, "neither RLE nor polygons"),
    ],
)
def test_a_malformed_result_is_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"predictions: result 2.*{said}"):
        evaluate(generated_truth(), _broken(key, value))


@pytest.mark.parametrize("key", ["bbox", "segmentation"])
def test_mixed_results_are_named(key: str) -> None:
    with pytest.raises(DataError, match=f"result 0 has a '{key}', result 2 has none"):
        evaluate(generated_truth(), _broken(key, ...))


def test_a_result_with_neither_box_nor_mask() -> None:
    results = without(without(perturbed(generated_truth()), "bbox"), "segmentation")
    with pytest.raises(DataError, match="result 0 has neither"):
        evaluate(generated_truth(), results)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("image_id", ..., "missing key 'image_id'"),
        ("bbox", [1, 2], "bbox must have 4 numbers"),
        ("segmentation", {"size": [240, 320], "counts": [10**15]}, "RLE counts"),
        ("bbox", [10**400, 2, 3, 4], "bbox must hold finite numbers"),  # JSON's integers have no end
        ("segmentation", {"size": [240, 320], "counts": [10**400]}, "RLE counts"),
        ("id", 4, "annotation 4: duplicate id"),
        ("iscrowd", "0", "iscrowd must be 0 or 1, not '0'"),
        ("image_id", [1], r"image_id must be a whole number, not \[1\]"),
        ("image_id", "3", "unknown image: image_id '3' is in no entry of the file"),
        ("image_id", 10**6, "unknown image: image_id 1000000 is in no entry of the file"),
        ("category_id", {}, "category_id must be a whole number, not {}"),
        ("category_id", 10**6, "unknown category: category_id 1000000 is in no entry of the file"),
        ("segmentation", [], "segmentation is empty"),
        ("segmentation", {"size": [1, 1], "counts": [1]}, "RLE has size"),
    ],
)
def test_malformed_ground_truth_is_named(key: str, value: Any, said: str) -> None:
    truth = generated_truth()
    results = perturbed(truth)
    if value is ...:
        del truth["annotations"][4][key]
    else:
        truth["annotations"][4][key] = value
    with pytest.raises(DataError, match=said):
        evaluate(truth, results)


@pytest.mark.parametrize(
    ("key", "entry", "said"),
    [
        ("images", {"id": "a", "height": 5, "width": 5}, "some ids of 'images' are numbers and some are text"),
        ("categories", {"id": "a", "name": "x"}, "some ids of 'categories' are numbers and some are text"),
        ("images", {"id": [1]}, r"image \[1\]: id must be a number or a text"),
        ("categories", {"id": float("nan")}, "category nan: id must be a number or a text"),
    ],
)
def test_images_and_categories_without_proper_ids(key: str, entry: Json, said: str) -> None:
    truth = generated_truth()
    truth[key].append(entry)
    with pytest.raises(DataError, match=said):
        evaluate(truth, [])


def test_masks_need_images_with_an_area() -> None:
    truth = generated_truth()
    truth["images"][0]["height"] = -1
    with pytest.raises(DataError, match="its image has no whole height and width, which masks need"):
        evaluate(truth, perturbed(generated_truth()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[1", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"images": []}', "missing key 'annotations'"),
    ],
)
def test_a_file_that_is_no_ground_truth(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text(text)
    with pytest.raises(DataError, match=f"gt.json.*{said}"):
        evaluate(tmp_path / "gt.json", [])


def test_files_that_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "dt.json").write_text("{}")
    with pytest.raises(DataError, match=r"dt.json: a COCO results file holds a list, this holds an object$"):
        evaluate(generated_truth(), tmp_path / "dt.json")
    (tmp_path / "dt.json").write_text('{"results": []}')
    with pytest.raises(DataError, match="write the list that is its 'results', alone"):
        evaluate(generated_truth(), tmp_path / "dt.json")
    with pytest.raises(DataError, match=r"nowhere.json: no such file"):
        evaluate(generated_truth(), tmp_path / "nowhere.json")


# --- real data --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "results", "kind", "expected"),
    [
        ("coco-val2014-100", "dt_bbox.json", "bbox", "published_full"),
        ("coco-val2014-100", "dt_segm.json", "segm", "published_full"),
        ("fce-3img-segm", "dt_segm.json", "segm", "published_full"),
        ("fce-crowd-1img-bbox", "dt.json", "bbox", "published_full"),
        ("d2-coco-val-2img", "dt.json", "bbox", "pycocotools_2.0.11"),
        ("d2-coco-val-2img", "dt.json", "segm", "pycocotools_2.0.11"),
    ],
)
def test_published_numbers(real_data: Path, case: str, results: str, kind: str, expected: str) -> None:
    folder = real_data / "evaluator" / case
    published = json.loads((folder / "expected.json").read_text())[expected][kind]
    numbers = dict(evaluate(folder / "gt.json", folder / results))[kind]
    assert isinstance(numbers, dict)
    assert list(numbers.values()) == pytest.approx(published, abs=1e-12)


def test_published_numbers_by_category(real_data: Path) -> None:
    folder = real_data / "evaluator" / "coco-val2014-100"
    expected = json.loads((folder / "expected.json").read_text())["variants_pycocotools_2.0.11"]["bbox/AP-per-category"]
    found = {str(row.id): row.bbox["AP"] for row in evaluate_all(folder / "gt.json", folder / "dt_bbox.json").classes}
    assert found == pytest.approx(expected, abs=1e-12)


def test_perturbed_predictions_on_real_annotations(real_data: Path) -> None:
    truth = json.loads((real_data / "coco-mini/annotations/instances_val2017.json").read_text())
    results = perturbed(truth)
    stats = evaluate(truth, results)
    for kind, numbers in (("bbox", stats["bbox"]), ("segm", stats["segm"])):
        assert numbers is not None
        assert list(numbers.values()) == pytest.approx(pycocotools_stats(truth, results, kind), abs=1e-12)
