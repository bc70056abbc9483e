"""COCO semantic results as a source of stuff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.data.semantic_results import SemanticResults, read_semantic_results
from dsctool.errors import DataError

MASK = np.zeros((6, 8), dtype=bool)
MASK[2:, :3] = True


def rle() -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(MASK, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def entry(**changes: object) -> dict[str, object]:
    return {"image_id": 3, "category_id": 150, "segmentation": rle()} | changes


def read(folder: Path, content: object) -> SemanticResults:
    path = folder / "semantic.json"
    path.write_text(json.dumps(content))
    return read_semantic_results(path, stuff={150, 151}, things={1, 2})


def test_stuff_of_each_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    runs = [2, 4, 2, 4, 2, 4, 30]
    uncompressed = {"size": [6, 8], "counts": runs}
    nothing = {"size": [6, 8], "counts": [48]}
    found = read(
        tmp_path,
        [
            entry(category_id=151, segmentation=uncompressed),
            entry(category_id=1),
            entry(),
            entry(image_id=9, segmentation=nothing),
            entry(image_id=4, category_id=2),
        ],
    )
    assert 3 in found
    assert 9 in found
    assert 4 not in found, "things are left out"
    stuff = found.of(3, (6, 8))
    assert [category for category, _ in stuff] == [151, 150]
    for _, mask in stuff:
        np.testing.assert_array_equal(coco_mask.decode(mask), MASK)
    assert [coco_mask.area(mask) for _, mask in found.of(9, (6, 8))] == [0]
    assert found.of(77, (6, 8)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": 1}, "must hold a list of semantic results, not an object"),
        ([3], "result 0 is a number, not an object"),
        ([entry(), {"image_id": 3, "category_id": 150}], "result 1: missing key 'segmentation'"),
        ([entry(image_id="3")], "result 0: image_id must be a whole number, not a string"),
        ([entry(category_id=True)], "result 0: category_id must be a whole number, not a boolean"),
        ([entry(category_id=94)], r"result 0 \(image 3\): category id 94 is no panoptic category"),
        ([entry(), entry()], r"result 1 \(image 3\): category id 150 was in result 0 already"),
        ([entry(segmentation=[[0, 0, 1, 0, 1, 1]])], r"result 0 \(image 3\): segmentation must be RLE with a size"),
        ([entry(segmentation={"size": [6, 8], "counts": [3]})], "RLE counts cover 3 pixels, the image has 48"),
        ([entry(segmentation={"size": [6, 8], "counts": "~"})], "not the compressed text"),
        ([entry(segmentation={"size": [6, -8], "counts": [3]})], "must be RLE with a size"),
    ],
)
def test_faults_are_named(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"semantic\.json: .*{said}|semantic\.json: {said}"):
        read(tmp_path, content)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    found = read(tmp_path, [entry()])
    with pytest.raises(DataError, match=r"semantic\.json: result 0 \(image 3\): RLE has size \[6, 8\].*\[8, 6\]"):
        found.of(3, (8, 6))


def test_no_file_and_half_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_semantic_results(tmp_path / "x.json", stuff=set(), things=set())
    (tmp_path / "x.json").write_text('[{"image_id": 1')
    with pytest.raises(DataError, match=r"x\.json: is not valid JSON"):
        read_semantic_results(tmp_path / "x.json", stuff=set(), things=set())
