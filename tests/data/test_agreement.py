"""Boxes, areas and masks that do not belong together are named, with what they look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.config.schema import DataConfig
from dsctool.data.agreement import BOX, areas_differ
from dsctool.data.checks import check_data, check_for_training
from dsctool.data.columns import read_columns
from dsctool.data.extents import Extents
from dsctool.data.faults import Fault
from dsctool.data.records import annotation_file
from dsctool.data.rules import Needs
from dsctool.errors import DataError
from dsctool.evaluation.sources import load_ground_truth
from tests.data.pieces import HEIGHT, WIDTH, pieces, write_pieces

Change = Callable[[dict[str, Any]], object]


def _spoilt(change: Change, content: dict[str, Any] | None = None) -> list[Fault]:
    """The faults of a file whose annotations are all changed."""
    content = content or pieces()
    for entry in content["annotations"]:
        change(entry)
    return read_columns(annotation_file(content, Path("a.json")), Needs()).faults


def _set_box(read: Callable[[float, float, float, float], list[float]]) -> Change:
    return lambda entry: entry.update(bbox=read(*entry["bbox"]))


BOXES = {
    "corners": (lambda x, y, w, h: [x, y, x + w, y + h], "x1, y1, x2, y2"),
    "centres": (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "centre x, centre y"),
    "turned": (lambda x, y, w, h: [y, x, h, w], "y, x, height, width"),
    "turned corners": (lambda x, y, w, h: [y, x, y + h, x + w], "y1, x1, y2, x2"),
    "shares": (lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT], "normalised"),
    "x first": (lambda x, y, w, h: [x, x + w, y, y + h], "x1, x2, y1, y2"),
    "from below": (lambda x, y, w, h: [x, HEIGHT - y - h, w, h], "y from the bottom"),
    "percent": (lambda x, y, w, h: [100 * x / WIDTH, 100 * y / HEIGHT, 100 * w / WIDTH, 100 * h / HEIGHT], "percent"),
    "half the size": (lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2], "0.5 times as wide"),
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_that_are_read_otherwise_are_one_fault_with_what_they_look_like(name: str) -> None:
    read, words = BOXES[name]
    faults = [fault for fault in _spoilt(_set_box(read)) if fault.severity == "error" and fault.subject == "file"]
    assert len(faults) == 1, faults
    assert words in faults[0].message


def test_check_training_and_evaluation_refuse_such_boxes_in_the_same_words(tmp_path: Path) -> None:
    content = pieces()
    for entry in content["annotations"]:
        _set_box(BOXES["corners"][0])(entry)
    files = write_pieces(tmp_path, content)
    (fault,) = [fault for fault in check_data(tmp_path) if fault.subject == "file"]
    with pytest.raises(DataError) as training:
        check_for_training(files, DataConfig(on_error="skip"), masks=True)
    with pytest.raises(DataError) as evaluation:
        load_ground_truth(files.annotations)
    assert str(fault) in str(training.value)
    assert fault.message in str(evaluation.value)


def test_boxes_of_shares_are_told_from_coordinates_that_all_are_shares() -> None:
    assert {fault.kind for fault in _spoilt(_set_box(BOXES["shares"][0]))} == {BOX}, "the masks are in order"


def test_boxes_and_masks_outside_their_images_are_not_said_to_be_of_others_once_as_large() -> None:
    content = pieces()
    for entry in content["annotations"]:
        entry["segmentation"] = [[2 * value for value in entry["segmentation"][0]]]
        entry["bbox"] = [2 * value for value in entry["bbox"]]
    assert not any("1 times as wide" in fault.message for fault in _spoilt(lambda entry: None, content))


def test_boxes_counted_from_one_are_a_warning() -> None:
    (fault,) = _spoilt(_set_box(lambda x, y, w, h: [x + 1, y + 1, w, h]))
    assert (fault.subject, fault.severity, "counted from 1" in fault.message) == ("file", "warning", True)


def test_inverted_masks_are_named_and_nothing_else_is_said_of_them() -> None:
    (fault,) = _spoilt(_inverted)
    assert (fault.subject, fault.severity, "look inverted" in fault.message) == ("file", "error", True)


def _inverted(entry: dict[str, Any]) -> None:
    bitmap = 1 - coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], HEIGHT, WIDTH))[:, :, 0]
    rle = coco_mask.encode(np.asfortranarray(bitmap))
    entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}


def test_what_some_look_like_on_a_close_look_all_of_a_large_file_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsctool.data.agreement._LOOKED_AT", 3)
    (fault,) = _spoilt(_inverted)
    assert fault.message.startswith("12 of 12 boxes")


def test_a_part_without_area_spans_nothing_beside_others() -> None:
    faults = _spoilt(lambda entry: entry["segmentation"].insert(0, [1, 1, 2, 2, 3, 3]))
    assert {fault.kind for fault in faults} == {"polygon"}, "boxes fit the parts that have an area"


def test_one_box_among_many_is_a_warning_of_its_own() -> None:
    content = pieces()
    content["annotations"][4]["bbox"] = content["annotations"][5]["bbox"]
    (fault,) = _spoilt(lambda entry: None, content)
    assert (fault.id, fault.kind, fault.severity) == (5, "box and mask", "warning")
    assert "fit the masks of other annotations" in fault.message


def test_runs_that_go_row_by_row_are_named() -> None:
    def row_by_row(entry: dict[str, Any]) -> None:
        rles = coco_mask.frPyObjects(entry["segmentation"], HEIGHT, WIDTH)
        bitmap = coco_mask.decode(rles)[:, :, 0]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bitmap.ravel(), [0]])))
        ends = [*edges.tolist(), bitmap.size] if edges[-1] < bitmap.size else edges.tolist()
        entry["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *ends]).tolist()}

    (fault,) = [fault for fault in _spoilt(row_by_row) if fault.subject == "file"]
    assert "row by row" in fault.message


def test_masks_of_shares_and_of_turned_points_are_named() -> None:
    def shares(entry: dict[str, Any]) -> None:
        entry["segmentation"] = [[v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(entry["segmentation"][0])]]

    def turned(entry: dict[str, Any]) -> None:
        points = np.asarray(entry["segmentation"][0]).reshape(-1, 2)
        entry["segmentation"] = [points[:, ::-1].ravel().tolist()]

    assert any("normalised points" in fault.message for fault in _spoilt(shares) if fault.subject == "file")
    assert any("masks like y, x" in fault.message for fault in _spoilt(turned) if fault.subject == "file")


def test_boxes_a_little_wider_than_their_masks_are_in_order() -> None:
    assert _spoilt(_set_box(lambda x, y, w, h: [x - 2, y - 2, w + 4, h + 4])) == []


@pytest.mark.parametrize("scale", [1.0, 0.99])
def test_coordinates_from_0_to_1_are_a_fault_of_every_command(tmp_path: Path, scale: float) -> None:
    content = pieces()
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [scale * x / WIDTH, scale * y / HEIGHT, scale * w / WIDTH, scale * h / HEIGHT]
        entry["segmentation"] = [[scale * v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(entry["segmentation"][0])]]
        del entry["area"]
    files = write_pieces(tmp_path, content)
    assert any("look normalised" in fault.message for fault in check_data(tmp_path) if fault.severity == "error")
    with pytest.raises(DataError, match="look normalised"):
        load_ground_truth(files.annotations)


def test_percentages_are_suspected_where_boxes_fill_a_corner_of_larger_images() -> None:
    content = pieces()
    for entry in content["images"]:
        entry.update(width=640, height=480)
    content["annotations"][0].update(bbox=[80, 70, 19, 26], segmentation=[[80, 70, 99, 70, 99, 96, 80, 96]], area=494)
    (fault,) = _spoilt(lambda entry: None, content)
    assert (fault.subject, fault.severity) == ("file", "warning")
    assert "percentages" in fault.message


def test_percentages_are_suspected_in_images_hardly_larger_where_there_are_many_boxes() -> None:
    def faults(count: int) -> list[Fault]:
        content = pieces()
        for entry in content["images"]:
            entry.update(width=160, height=120)
        first = content["annotations"][0]
        first.update(bbox=[80, 70, 19, 26], segmentation=[[80, 70, 99, 70, 99, 96, 80, 96]], area=494)
        more = ({**content["annotations"][number % 12], "id": 100 + number, "iscrowd": 0} for number in range(count))
        content["annotations"] += more
        return [fault for fault in _spoilt(lambda entry: None, content) if fault.kind == "percent"]

    assert (len(faults(0)), len(faults(36))) == (0, 1)


def test_centres_are_found_without_masks_where_they_leave_their_images() -> None:
    content = pieces()
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry.update(bbox=[x + w / 2, y + h / 2, w, h])
        del entry["segmentation"], entry["area"]
    content["annotations"][0]["bbox"] = [84, 50, 24, 24]
    faults = read_columns(annotation_file(content, Path("a.json")), Needs(masks=False)).faults
    (fault,) = [fault for fault in faults if fault.subject == "file"]
    assert "all look like centre x, centre y" in fault.message


@pytest.mark.parametrize("needs", [Needs(masks=False), Needs(masks=False, pictures=False)])
def test_corners_are_found_without_masks_too(needs: Needs) -> None:
    content = pieces()
    for entry in content["annotations"]:
        _set_box(BOXES["corners"][0])(entry)
        del entry["segmentation"], entry["area"]
    reading = read_columns(annotation_file(content, Path("a.json")), needs)
    (fault,) = [fault for fault in reading.faults if fault.subject == "file"]
    assert (fault.severity, "all look like x1, y1, x2, y2" in fault.message) == ("error", True)


AREAS = {
    "of the image": (lambda entry: WIDTH * HEIGHT, "that of the whole image"),
    "a share": (lambda entry: entry["area"] / WIDTH / HEIGHT, "a share of the image"),
    "one": (lambda entry: 1, "less than half"),
    "zero": (lambda entry: 0, "is 0, but the mask is not empty"),
    "other units": (lambda entry: entry["area"] * 9, "more than twice"),
}


@pytest.mark.parametrize("name", AREAS)
def test_areas_that_are_not_the_masks_are_warnings(name: str) -> None:
    area, words = AREAS[name]
    faults = _spoilt(lambda entry: entry.update(area=area(entry)))
    assert len(faults) == len(pieces()["annotations"])
    assert all(words in fault.message and fault.severity == "warning" for fault in faults), faults


@pytest.mark.parametrize(
    ("area", "words"),
    [(WIDTH * HEIGHT, "that of the whole image"), (0, "is 0, but the box is not empty"), (1, ""), (3000, "the box's")],
)
def test_areas_without_masks_are_no_more_than_the_boxes(area: float, words: str) -> None:
    content = pieces()
    for entry in content["annotations"]:
        del entry["segmentation"]
        entry["area"] = area
    faults = read_columns(annotation_file(content, Path("a.json")), Needs(masks=False)).faults
    assert len(faults) == (len(content["annotations"]) if words else 0)
    assert all(words in fault.message and fault.severity == "warning" for fault in faults), faults


def test_areas_of_the_boxes_are_usual() -> None:
    assert _spoilt(lambda entry: entry.update(area=entry["bbox"][2] * entry["bbox"][3])) == []


def test_areas_differ_by_a_factor_and_by_more_than_rounding() -> None:
    pairs = np.asarray([(100, 100), (100, 199), (100, 201), (201, 100), (1, 10), (0, 10), (0, 0)], dtype=float)
    assert areas_differ(*pairs.T).tolist() == [False, False, True, True, False, True, False]


def test_crowds_may_be_anything() -> None:
    assert _spoilt(lambda entry: entry.update(iscrowd=1, bbox=[0, 0, 5, 5], area=1)) == []


@pytest.mark.parametrize("runs", [False, True])
def test_extents_are_those_of_the_points_or_of_the_pixels(runs: bool) -> None:
    content = pieces(runs=runs)
    reading = read_columns(annotation_file(content, Path("a.json")), Needs())
    rows = reading.annotations
    # What was taken away in between does not shift the others.
    chosen = rows.take(np.asarray([4, 0, 7]))
    extents = Extents.of(chosen.shapes, reading.sizes[chosen.image])
    for corners, area, place in zip(
        extents.corners.tolist(), extents.area.tolist(), chosen.place.tolist(), strict=True
    ):
        x, y, w, h = content["annotations"][place]["bbox"]
        assert corners == pytest.approx([x, y, x + w, y + h], abs=0.01)
        assert area == pytest.approx(content["annotations"][place]["area"], abs=0.01)


def test_a_file_of_all_kinds_reads_as_before(tmp_path: Path) -> None:
    files = write_pieces(tmp_path, pieces())
    assert check_data(tmp_path) == []
    assert json.loads(files.annotations.read_text()) == pieces()
