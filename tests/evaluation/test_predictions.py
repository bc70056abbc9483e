"""Results as columns: whatever is recognised many at once is what is said of it one by one."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.entries import Entries
from dsctool.errors import DataError
from dsctool.evaluation import predictions
from dsctool.evaluation.coco import evaluate
from dsctool.evaluation.sources import load_ground_truth, load_predictions
from tests.evaluation.crowded import HEIGHT, WIDTH, crowded_truth, noisy_results

TRUTH = crowded_truth(seed=71, images=3)
RESULTS = noisy_results(TRUTH, seed=72)
IMAGE = RESULTS[0]["image_id"]
TRIANGLE = [1, 1, 9, 1, 9, 9]

VALUES: dict[str, list[Any]] = {
    "image_id": [IMAGE, float(IMAGE), str(IMAGE), 10**6, None, [IMAGE], True],
    "category_id": [5, 5.0, "5", 77, None],
    "score": [0, 1, 0.5, -3.5, "0.5", None, True, 10**400, 1e308],
    "bbox": [None, [], [1, 2, 3], [1, 2, 3, 4], [1, 2, -3, 0], ["1", 2, 3, 4], [1, 2, 3, 10**400], {}, "1234"],
    "segmentation": [
        *(None, [], "x", 5, [TRIANGLE], TRIANGLE, [TRIANGLE, [2, 2, 3, 3]], [[2, 2, 3, 3]], [[*TRIANGLE, 4]]),
        *({"size": [HEIGHT, WIDTH]}, {"size": [WIDTH, HEIGHT], "counts": [0, HEIGHT * WIDTH]}),
        {"size": [10**400, WIDTH], "counts": "0"},
        *({"size": [HEIGHT, WIDTH], "counts": counts} for counts in ([0, 4800], [4800], [5, -5, 4800], [4800.0])),
        *({"size": [HEIGHT, WIDTH], "counts": counts} for counts in ("PX4", "o", "", "\u00e9", "0P[2", "PPPPPP0PX4")),
    ],
}


def _read(results: object, *, from_file: bool) -> object:
    """Everything that was read, or what was said; masks as run lengths."""
    truth = load_ground_truth(TRUTH)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dt.json"
        path.write_text(json.dumps(results))
        try:
            found = load_predictions(path if from_file else copy.deepcopy(results), truth)  # type: ignore[arg-type]
        except DataError as error:
            return str(error).removeprefix(f"{path}: ").removeprefix("predictions: ")
    columns = [found.image, found.category, found.score]
    masks = None if found.masks is None else [coco_mask.decode(mask).tolist() for mask in found.masks]
    boxes = None if found.boxes is None else found.boxes.tolist()
    return [column.tolist() for column in columns], boxes, masks, None if found.areas is None else found.areas.tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_many_at_once_are_read_as_one_by_one(data: st.DataObject) -> None:
    results = copy.deepcopy(RESULTS)
    lacking = data.draw(st.sampled_from(["bbox", "segmentation", None, None]))
    for result in results:
        result.pop(lacking, None)
    for _ in range(data.draw(st.integers(0, 3))):
        entry, key = data.draw(st.sampled_from(results)), data.draw(st.sampled_from(list(VALUES)))
        if data.draw(st.integers(0, 4)):
            entry[key] = data.draw(st.sampled_from(VALUES[key]))
        else:
            entry.pop(key, None)
    together = _read(results, from_file=True)
    assert _read(results, from_file=False) == together, "a list in memory"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "_CHUNK", data.draw(st.integers(1, 50)))
        assert _read(results, from_file=True) == together, "whatever is read at one time"
        patch.setattr(Entries, "typed", lambda entries, _: [None] * len(entries))
        assert _read(results, from_file=True) == together, "one by one alone"


def test_faultless_results_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "checked_result", lambda entry, *others: pytest.fail(f"looked at {entry}"))
    for lacking in ("bbox", "segmentation", None):
        results = [{key: value for key, value in result.items() if key != lacking} for result in RESULTS]
        assert len(load_predictions(results, load_ground_truth(TRUTH))) == len(RESULTS)


@pytest.mark.parametrize("row", [0, len(RESULTS) // 2, len(RESULTS) - 1])
def test_the_first_wrong_one_is_named(row: int) -> None:
    results = copy.deepcopy(RESULTS)
    results[row]["segmentation"]["counts"] = "o"
    results[-1]["score"] = "high" if row < len(results) - 1 else 0.5
    with pytest.raises(DataError, match=f"predictions: result {row}: RLE counts do not describe"):
        load_predictions(results, load_ground_truth(TRUTH))


def test_areas_are_the_masks() -> None:
    found = load_predictions(RESULTS, load_ground_truth(TRUTH))
    assert found.areas is not None
    assert found.areas.tolist() == [float(coco_mask.area(result["segmentation"])) for result in RESULTS]


def test_true_is_no_image() -> None:
    truth = copy.deepcopy(TRUTH)
    truth["images"].append({"id": 1, "height": 5, "width": 5})
    with pytest.raises(DataError, match="result 0: image id True is not in ground truth"):
        load_predictions([{**RESULTS[0], "image_id": True}], load_ground_truth(truth))


def test_areas_of_the_largest_masks() -> None:
    """A run of 2 to the 29 pixels and more is a number of seven characters."""
    side = 30_000
    mask = coco_mask.frPyObjects({"size": [side, side], "counts": [0, side * side]}, side, side)
    mask["counts"] = mask["counts"].decode()
    truth = {
        "images": [{"id": 1, "height": side, "width": side}],
        "categories": [{"id": 1, "name": "sky"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, side, side], "segmentation": mask}],
    }
    results = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": mask}]
    found = load_predictions(results, load_ground_truth(truth))
    assert found.areas is not None
    assert found.areas.tolist() == [side * side]
    stats = evaluate(truth, results)
    assert stats["segm"] is not None
    assert stats["segm"]["AP"] == pytest.approx(1)
