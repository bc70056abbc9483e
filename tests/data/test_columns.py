"""Annotations as columns: whatever is recognised many at once is what the rules in words say one by one."""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.data import columns
from dsctool.data.columns import Annotations, Reading, read_columns
from dsctool.data.records import annotation_file, read_annotation_file
from dsctool.data.rules import Needs
from tests.data.tiny import tiny_content

NEEDS = [Needs(masks, pictures) for masks in (True, False) for pictures in (True, False)]

TRIANGLE = [1, 1, 9, 1, 9, 9]
LINE = [1, 1, 2, 2, 3, 3]

VALUES: dict[str, list[Any]] = {
    "id": [11, 12, 13, 99, "11", 11.0, None, True, 2**70, -5],
    "image_id": [7, 3, 8, "7", 7.0, None, [7]],
    "category_id": [90, 5, 6, "90", None],
    "bbox": [
        *(None, {}, [], [1, 2, 3], ["1", 1, 1, 1], [1, 1, -1, 1], [1, 1, 1e13, 1], [0, 0, 0, 4]),
        *([-1, -1, 4, 4], [-1.01, 0, 4, 4], [59, 39, 2, 2], [59, 39, 2.01, 2]),
    ],
    "area": [None, 0, -1, 5.5, "5", 1e13, [], True],
    "iscrowd": [None, 0, 1, 2, True, False, "0", 1.0, 0.0],
    "segmentation": [
        *(None, "x", 5, [], [[]], [TRIANGLE], TRIANGLE, [TRIANGLE, [2, 2, 3, 3]], [[*TRIANGLE, 4]], [[1, "1", *LINE]]),
        *([LINE], [TRIANGLE, LINE], [[0, 0, 4, 4, 4, 0, 0, 4]], [[-70, 1, 9, 1, 9, 9]], [[61, 1, 70, 1, 70, 9]]),
        *({"size": [40, 60]}, {"size": [60, 40], "counts": [0, 2400]}, {"size": [2**64, 60], "counts": "0"}),
        *({"size": [40, 60], "counts": counts} for counts in ([0, 2400], [2400], [5, -5, 2400])),
        *(
            {"size": [40, 60], "counts": counts}
            for counts in ("0P[2", "P[2", "o", "", "\u00e9", "\ud800", "PPPPPP0P[2", "0PPPPPP0P[2")
        ),
    ],
}


def values_of(reading: Reading) -> list[object]:
    """All there is in a reading, in a form that can be compared; segmentations as bitmaps."""
    found: list[object] = [reading.categories, reading.images, reading.places, dict(reading.derived)]
    found.append([str(replace(fault, file=Path("a.json"))) for fault in reading.faults])
    rows = reading.annotations
    found += [getattr(rows, each.name).tolist() for each in fields(Annotations) if each.name != "shapes"]
    for row in np.flatnonzero(rows.shapes.given).tolist():
        found.append(rows.shapes.bitmap(row, reading.images[rows.image[row]].size).tolist())
    return found


def read_text(content: object, needs: Needs) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(content))
        return values_of(read_columns(read_annotation_file(path), needs))


def changed(data: st.DataObject) -> dict[str, Any]:
    content = tiny_content()
    content["annotations"] *= 2
    content["annotations"] = [
        {**copy.deepcopy(each), "id": 11 + row} for row, each in enumerate(content["annotations"])
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        entry = data.draw(st.sampled_from(content["annotations"]))
        key = data.draw(st.sampled_from(list(VALUES)))
        if data.draw(st.integers(0, 4)):
            entry[key] = data.draw(st.sampled_from(VALUES[key]))
        else:
            entry.pop(key, None)
    return content


@settings(max_examples=80, deadline=None)
@given(data=st.data(), needs=st.sampled_from(NEEDS))
def test_many_at_once_are_read_as_one_by_one(data: st.DataObject, needs: Needs) -> None:
    content = changed(data)
    together = read_text(content, needs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_CHUNK", data.draw(st.integers(1, 7)))
        assert read_text(content, needs) == together, "whatever is read at one time"
        patch.setattr(columns._Chunk, "proved", lambda chunk: np.zeros(len(chunk.id), dtype=bool))
        assert read_text(content, needs) == together, "by the rules in words alone"
        for fault in read_columns(annotation_file(content, Path("a.json")), needs).faults:
            assert fault.severity == "warning" or str(fault) in str(together)


def test_faultless_entries_need_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that COCO's own files hold but lists of runs, of which there are few."""
    content = tiny_content()
    monkeypatch.setattr(columns, "annotation_problems", lambda entry, *others: pytest.fail(f"looked at {entry}"))
    for entry in content["annotations"]:
        if isinstance(entry["segmentation"], dict):
            height, width = entry["segmentation"]["size"]
            runs = coco_mask.frPyObjects(entry["segmentation"], height, width)
            entry["segmentation"]["counts"] = runs["counts"].decode()
    assert len(read_columns(annotation_file(content, Path("a.json")), Needs()).annotations) == 3


def test_what_the_mask_says_need_not_be_written() -> None:
    content = tiny_content()
    full = read_columns(annotation_file(content, Path("a.json")), Needs()).annotations
    lacking = copy.deepcopy(content)
    for entry in lacking["annotations"]:
        for key in ("bbox", "area", "iscrowd"):
            del entry[key]
    reading = read_columns(annotation_file(lacking, Path("a.json")), Needs())
    assert not reading.faults
    assert reading.annotations.box.tolist() == [[10, 10, 20, 20], [0, 0, 2, 5], [0, 0, 40, 60]]
    assert reading.annotations.area.tolist() == [400, 10, 2400]
    assert reading.annotations.crowd.tolist() == [False, False, False]
    assert full.crowd.tolist() == [False, False, True]
    (note,) = reading.notes
    assert note == (
        "annotations lack values: 3 x area (counted in the mask or box), 3 x bbox (taken from the mask), "
        "3 x iscrowd (taken as 0)"
    )


def test_areas_of_boxes_where_there_are_no_masks() -> None:
    content = tiny_content()
    for entry in content["annotations"]:
        del entry["area"], entry["segmentation"]
    reading = read_columns(annotation_file(content, Path("a.json")), Needs(masks=False))
    assert reading.annotations.area.tolist() == [400, 10, 400]


@pytest.mark.parametrize("flag", [True, 1])
def test_a_crowd_is_1_or_true(flag: object) -> None:
    content = tiny_content()
    content["annotations"][0]["iscrowd"] = flag
    assert read_columns(annotation_file(content, Path("a.json")), Needs()).annotations.crowd[0]
