"""Objects that are annotated twice are named, whatever their copies look like."""

from __future__ import annotations

import copy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.data.checks import check_data
from dsctool.data.columns import read_columns
from dsctool.data.duplicates import duplicates
from dsctool.data.extents import Extents
from dsctool.data.faults import Fault
from dsctool.data.records import annotation_file
from dsctool.data.rules import Needs
from dsctool.evaluation.sources import load_ground_truth
from tests.data.pieces import HEIGHT, WIDTH, pieces, write_pieces


def _faults(content: dict[str, Any], *, masks: bool = True) -> list[Fault]:
    return read_columns(annotation_file(content, Path("a.json")), Needs(masks=masks)).faults


def _repeated(change: Any, count: int = 1) -> dict[str, Any]:
    """The first annotations again, changed, with ids from 101 on."""
    content = pieces()
    for entry in copy.deepcopy(content["annotations"][:count]):
        entry["id"] += 100
        change(entry)
        content["annotations"].append(entry)
    return content


def _turn(entry: dict[str, Any]) -> None:
    points = entry["segmentation"][0]
    entry["segmentation"] = [points[4:] + points[:4]]


def _as_runs(entry: dict[str, Any]) -> None:
    rle = coco_mask.frPyObjects(entry["segmentation"], HEIGHT, WIDTH)[0]
    entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}


def _nudge(entry: dict[str, Any]) -> None:
    entry["segmentation"] = [[value + 0.004 for value in entry["segmentation"][0]]]


@pytest.mark.parametrize("change", [lambda entry: None, _turn, _as_runs, _nudge])
def test_the_same_shape_is_found_however_it_is_written(change: Any) -> None:
    (fault,) = _faults(_repeated(change))
    assert (fault.id, fault.severity, fault.kind) == (101, "warning", "duplicate")
    assert "repeats annotation 1:" in fault.message


def test_nearly_the_same_shape_is_named_as_such() -> None:
    def wider(entry: dict[str, Any]) -> None:
        x, y, w, h = entry["bbox"]
        entry.update(bbox=[x, y, w + 1, h], segmentation=[[x, y, x + w + 1, y, x + w + 1, y + h, x, y + h]])

    (fault,) = _faults(_repeated(wider))
    assert "nearly repeats annotation 1:" in fault.message


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(image_id=3),
        lambda entry: entry.update(iscrowd=1),
        lambda entry: entry.update(category_id=2, segmentation=[[value + 0.3 for value in entry["segmentation"][0]]]),
    ],
)
def test_another_image_a_crowd_or_another_class_and_shape_is_another_object(change: Any) -> None:
    assert _faults(_repeated(change)) == []


@pytest.mark.parametrize("masks", [True, False])
def test_just_the_same_shape_in_another_class_is_told_of(masks: bool) -> None:
    content = _repeated(lambda entry: entry.update(category_id=2))
    if not masks:
        for entry in content["annotations"]:
            del entry["segmentation"]
    (fault,) = _faults(content, masks=masks)
    assert (fault.id, fault.severity, fault.kind) == (101, "warning", "duplicate")
    assert "has just the shape of annotation 1, and another class" in fault.message


def test_boxes_alone_are_compared_where_no_masks_are_needed() -> None:
    content = _repeated(lambda entry: None)
    for entry in content["annotations"]:
        del entry["segmentation"]
    assert [fault.id for fault in _faults(content, masks=False)] == [101]


def test_every_object_twice_is_one_line_and_measured_with_a_note(tmp_path: Path) -> None:
    files = write_pieces(tmp_path, _repeated(lambda entry: None, count=12))
    found = check_data(tmp_path)
    assert len(found) == 12
    assert len({fault.message for fault in found}) == 1
    assert any("12 x repeats an earlier annotation" in note for note in load_ground_truth(files.annotations).notes)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_same_pairs_as_by_comparing_all(data: st.DataObject) -> None:
    """Against every pair of one image and one class, drawn."""
    side = st.integers(0, 12)
    boxes = data.draw(st.lists(st.tuples(side, side, st.integers(8, 24), st.integers(8, 24)), min_size=2, max_size=8))
    content = pieces()
    content["annotations"] = [
        {
            "id": number,
            "image_id": data.draw(st.sampled_from([1, 2])),
            "category_id": 1,
            "bbox": [x, y, w, h],
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for number, (x, y, w, h) in enumerate(boxes)
    ]
    reading = read_columns(annotation_file(content, Path("a.json")), Needs())
    rows = reading.annotations
    sizes = reading.sizes[rows.image]
    exact = duplicates(rows, sizes, Extents.of(rows.shapes, sizes)).exact
    expected: dict[int, int] = {}
    drawn = [rows.shapes.bitmap(row, (HEIGHT, WIDTH)) for row in range(len(rows))]
    for first, second in combinations(range(len(rows)), 2):
        if rows.image[first] == rows.image[second] and np.array_equal(drawn[first], drawn[second]):
            expected.setdefault(second, first)
    assert exact == expected
