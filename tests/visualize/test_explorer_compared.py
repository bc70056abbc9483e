"""What the explorer says of results beside their truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.error_analysis.study import study_compared_errors
from dsctool.visualize.pages.explorer.compared import compared_pictures
from dsctool.visualize.pages.explorer.page import ERRORS, LOWEST


def rle(x: int, y: int, side: int) -> Any:
    bitmap = np.zeros((100, 100), np.uint8, order="F")
    bitmap[y : y + side, x : x + side] = 1
    encoded = coco_mask.encode(bitmap)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("seed", range(4))
def test_errors_and_what_was_found_are_those_of_the_analysis(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [{"id": 10 - n, "file_name": f"{n}.png", "height": 100, "width": 100} for n in range(3)]
    for image in images:
        Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(tmp_path / image["file_name"])
    annotations, results = [], []
    for number in range(24):
        x, y, side = (int(value) for value in rng.integers([0, 0, 8], [60, 60, 30]))
        image, category = int(rng.choice([10, 9, 8])), int(rng.integers(1, 3))
        annotations.append(
            {
                "id": number + 1, "image_id": image, "category_id": category, "bbox": [x, y, side, side],
                "area": side**2, "iscrowd": int(number == 0), "segmentation": rle(x, y, side),
            }
        )  # fmt: skip
        for _ in range(int(rng.integers(0, 4))):
            shift, label = int(rng.integers(0, 8)), category if rng.random() < 0.8 else 3 - category
            score = float(rng.choice([0.01, 0.3, 0.6, 0.9]))
            found = {"image_id": image, "category_id": label, "score": score, "bbox": [x + shift, y, side, side]}
            results.append(found | {"segmentation": rle(x + shift, y, side)})
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    compared = compare(truth, results)
    pictures = list(compared_pictures(compared, tmp_path))
    assert [picture.name for picture in pictures] == ["2.png", "1.png", "0.png"]
    report = study_compared_errors(compared).report["segm"]
    assert report is not None
    expected = report["views"][0]["errors"]
    low = sum(result["score"] < LOWEST for result in results)
    for name in ERRORS:
        count = sum(thing.error == name for picture in pictures for thing in picture.found)
        assert count <= expected[name]["count"] <= count + low
    for picture in pictures:
        assert picture.truth is not None
        finders = [thing.finder for thing in picture.truth if thing.finder is not None]
        assert len(set(finders)) == len(finders)  # nothing finds two
        for thing in picture.truth:
            if thing.finder is not None:
                finder = picture.found[thing.finder]
                assert finder.error is None
                assert finder.label == thing.label
                assert coco_mask.iou([finder.mask], [thing.mask], [0])[0, 0] >= 0.5
    everything = sum(len(picture.truth or ()) for picture in pictures)
    assert everything == 23  # without the crowd
