"""What is lived with: boxes a few pixels over the border, stray points, empty objects; classes that go by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.checks import check_data, check_for_evaluation, check_for_training
from dsctool.data.classes import lacking, match_categories, relabelled
from dsctool.data.coco import CocoDataset
from dsctool.data.columns import read_columns
from dsctool.data.faults import grouped, warnings_of
from dsctool.data.records import Category, annotation_file
from dsctool.data.rules import Needs, border_limit
from dsctool.data.stats import describe
from dsctool.errors import DataError
from dsctool.evaluation.sources import load_ground_truth
from tests.data.pieces import HEIGHT, WIDTH, pieces, write_pieces

AS_IT_IS = DataConfig(train_resize=ResizeConfig(short_sides=(HEIGHT,)), flip=0)


def _rectangle(x: float, y: float, w: float, h: float) -> dict[str, Any]:
    return {"bbox": [x, y, w, h], "area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


def _with(**values: object) -> dict[str, Any]:
    content = pieces()
    content["annotations"][0].update(values)
    return content


# --- borders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "pixels"),
    [([86, 50, 12.4, 10], 3), ([-2, 10, 20, 20], 2), ([10, -4.5, 20, 20], 5), ([80, 60, 21, 9], 5)],
)
def test_a_box_a_few_pixels_over_the_border_is_clipped(tmp_path: Path, box: list[float], pixels: int) -> None:
    files = write_pieces(tmp_path, _with(**_rectangle(*box)))
    (fault,) = check_data(tmp_path)
    assert (fault.id, fault.severity) == (1, "warning")
    assert f"by up to {pixels} pixels: clipped" in fault.message
    checked = check_for_training(files, AS_IT_IS, masks=True)
    dataset = CocoDataset.for_training(files, AS_IT_IS, exclude=checked.exclude, reading=checked.reading)
    x, y, w, h = box
    expected = [max(x, 0), max(y, 0), min(x + w, WIDTH), min(y + h, HEIGHT)]
    targets = dataset[0].targets
    assert targets.boxes[0].tolist() == pytest.approx(expected, abs=0.01)
    assert targets.masks is not None
    assert targets.masks[0].any()


@pytest.mark.parametrize("box", [[86, 50, 16, 10], [-6, 10, 20, 20], [97, 10, 3, 3], [10, 64, 3, 3], [300, 300, 9, 9]])
def test_a_box_far_out_or_wholly_out_is_a_fault(tmp_path: Path, box: list[float]) -> None:
    write_pieces(tmp_path, _with(**_rectangle(*box)))
    assert ("box outside", "error") in [(fault.kind, fault.severity) for fault in check_data(tmp_path)]


def test_of_large_images_a_few_pixels_are_a_hundredth() -> None:
    assert (border_limit((100, 500)), border_limit((3000, 2000))) == (5, 30)


def test_equal_boxes_over_the_border_share_a_line(tmp_path: Path) -> None:
    content = pieces()
    for number, entry in enumerate(content["annotations"]):
        entry.update(_rectangle(80 - number, 10 + number, 18 + number, 20))
    write_pieces(tmp_path, content)
    (line,) = warnings_of([fault for fault in check_data(tmp_path) if fault.kind == "border"])
    assert "12 x bbox sticks out" in line


# --- stray parts ------------------------------------------------------------------------------------

GOOD = [21, 10, 45, 10, 45, 24, 21, 24]


@pytest.mark.parametrize("stray", [[5, 5, 9, 9], [5, 5, 5, 5], [5, 5], []])
@pytest.mark.parametrize("first", [False, True])
def test_a_stray_part_is_dropped_and_the_object_kept(tmp_path: Path, stray: list[float], first: bool) -> None:
    """pycocotools takes four numbers for a box of that place and size."""
    files = write_pieces(tmp_path, _with(segmentation=[stray, GOOD] if first else [GOOD, stray]))
    (fault,) = check_data(tmp_path)
    assert (fault.id, fault.severity, fault.kind) == (1, "warning", "stray part")
    assert "1 of 2 polygons has fewer than 3 points: dropped" in fault.message
    expected = coco_mask.decode(coco_mask.frPyObjects([GOOD], HEIGHT, WIDTH))[:, :, 0]
    for needs in (Needs(), Needs(pictures=False)):
        reading = read_columns(annotation_file(json.loads(files.annotations.read_text()), files.annotations), needs)
        assert np.array_equal(reading.annotations.shapes.bitmap(0, (HEIGHT, WIDTH)), expected)
    assert any("dropped" in note for note in load_ground_truth(files.annotations).notes)


@pytest.mark.parametrize("parts", [[[5, 5, 9, 9]], [[]], [[5, 5], []], [GOOD, [1, 2, 3]], [GOOD, ["a", 1]]])
def test_an_object_of_stray_parts_alone_or_of_broken_ones_is_a_fault(tmp_path: Path, parts: list[Any]) -> None:
    write_pieces(tmp_path, _with(segmentation=parts))
    (fault,) = check_data(tmp_path)
    assert (fault.id, fault.severity) == (1, "error")


# --- empty objects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"bbox": [0, 0, 0, 0], "area": 0}, {"bbox": [5, 5, 0, 8]}, {"bbox": [5, 5, 8, 0]}])
def test_an_empty_object_is_left_out_of_training_and_of_measuring(tmp_path: Path, values: dict[str, Any]) -> None:
    files = write_pieces(tmp_path, _with(segmentation=[], **values))
    assert {fault.severity for fault in check_data(tmp_path)} == {"warning", "note"}
    checked = check_for_training(files, AS_IT_IS, masks=True)
    dataset = CocoDataset.for_training(files, AS_IT_IS, exclude=checked.exclude, reading=checked.reading)
    assert dataset.num_instances == 11
    measured = check_for_evaluation(files, AS_IT_IS, masks=True)
    assert measured.reading is not None
    assert len(load_ground_truth(files.annotations).annotations) == 11


@pytest.mark.parametrize("name", ["crowds", "area 0", "nothing"])
def test_training_on_nothing_is_refused_and_measuring_on_nothing_said(tmp_path: Path, name: str) -> None:
    content = pieces()
    for entry in content["annotations"]:
        entry.update({"crowds": {"iscrowd": 1}, "area 0": {"area": 0}, "nothing": {}}[name])
    if name == "nothing":
        content["annotations"] = []
    files = write_pieces(tmp_path, content)
    write_pieces(tmp_path, content, "val")
    faults = [fault for fault in check_data(tmp_path) if fault.kind.startswith("nothing to")]
    assert [(fault.kind, fault.severity) for fault in faults] == [
        ("nothing to train on", "error"),
        ("nothing to measure", "warning"),
    ]
    with pytest.raises(DataError, match="nothing to train on"):
        CocoDataset.for_training(files, AS_IT_IS)
    if name != "area 0":
        assert any("nothing is measured" in note for note in load_ground_truth(files.annotations).notes)


def test_equal_faults_of_many_values_share_a_line(tmp_path: Path) -> None:
    content = pieces()
    for entry in content["annotations"]:
        entry.update(bbox=[str(value) for value in entry["bbox"]], area=str(entry["area"]))
    write_pieces(tmp_path, content)
    lines = grouped(check_data(tmp_path))
    assert [line.partition(": ")[2].partition(" (")[0] for line in lines] == [
        "12 x area must be a finite number, not a string",
        "12 x bbox must hold finite numbers, not a string",
    ]


def test_what_no_annotation_has_and_id_0_are_notes(tmp_path: Path) -> None:
    content = pieces()
    content["categories"].append({"id": 0, "name": "background"})
    content["annotations"][3]["id"] = 0
    write_pieces(tmp_path, content)
    unmet, zero = check_data(tmp_path)
    assert {unmet.severity, zero.severity} == {"note"}
    assert unmet.message == "no annotation has background: nothing of it is learnt"
    assert (zero.subject, zero.id, zero.index, "as a miss" in zero.message) == ("annotation", 0, 3, True)


def test_boxes_without_size_are_not_called_normalised(tmp_path: Path) -> None:
    content = pieces()
    for entry in content["annotations"]:
        entry.update(bbox=[0, 0, 0, 0], segmentation=[], area=0)
    write_pieces(tmp_path, content)
    (fault,) = [fault for fault in check_data(tmp_path) if fault.severity == "error"]
    assert fault.message == "has nothing to train on: all boxes have a zero size"


# --- the same rules for all -------------------------------------------------------------------------


def test_stats_count_what_training_uses(tmp_path: Path) -> None:
    content = _with(segmentation=[[1, 2, 3, 4]])
    content["annotations"][1].update(_rectangle(300, 300, 10, 10))
    files = write_pieces(tmp_path, content)
    stats = describe(files)
    checked = check_for_training(files, DataConfig(on_error="skip"), masks=True)
    dataset = CocoDataset.for_training(files, AS_IT_IS, exclude=checked.exclude, reading=checked.reading)
    assert (stats.instances, stats.faults) == (dataset.num_instances, len(checked.faults))
    assert stats.instances == 10


def test_half_of_the_truth_with_ids_of_another_type_is_refused_by_name() -> None:
    content = pieces()
    for entry in content["annotations"][::2]:
        entry["image_id"] = str(entry["image_id"])
    with pytest.raises(DataError, match="image_id '1' is in no entry of the file, 1 is: write all ids alike"):
        load_ground_truth(content)


# --- classes ----------------------------------------------------------------------------------------

MODEL = [Category(1, "cell"), Category(2, "debris"), Category(3, "dust")]


@pytest.mark.parametrize(
    ("val", "severities"),
    [
        ([(0, "cell"), (1, "debris")], {"note"}),  # fewer, and other ids
        ([(0, "cell"), (1, "debris"), (2, "dust")], set()),
        ([(3, "cell"), (1, "dust"), (2, "debris")], set()),
        ([(1, "cell"), (2, "debris"), (3, "dust"), (4, "background")], {"note"}),  # which no annotation has
        ([(1, "cell"), (2, "stone"), (3, "dust")], {"error"}),
        ([(1, "Cell"), (2, "debris"), (3, "dust")], {"error"}),
    ],
)
def test_check_and_training_agree_on_the_classes_of_two_splits(
    tmp_path: Path, val: list[tuple[int, str]], severities: set[str]
) -> None:
    for split, table in (("train", [(each.id, each.name) for each in MODEL]), ("val", val)):
        content = pieces()
        ids = [id_ for id_, _ in table]
        content["categories"] = [{"id": id_, "name": name} for id_, name in table]
        for entry in content["annotations"]:
            entry["category_id"] = ids[entry["category_id"] - 1]
        write_pieces(tmp_path, content, split)
    assert {fault.severity for fault in check_data(tmp_path) if fault.kind == "categories"} == severities
    data = [Category(*each) for each in sorted(val)]
    met = {val[0][0], val[1][0]}
    if "error" in severities:
        with pytest.raises(DataError, match="Names must agree"):
            match_categories(MODEL, data, Path("val.json"), met)
    else:
        matched = match_categories(MODEL, data, Path("val.json"), met)
        assert [None if each is None else each.name for each in matched] == [
            each.name if each.name in {name for _, name in val} else None for each in MODEL
        ]
        assert bool(lacking(MODEL, data)) == (len(val) != 3)


def test_names_that_differ_in_letter_case_are_said_to() -> None:
    with pytest.raises(DataError, match=r"'Cell ' and 'cell' are spelled differently"):
        match_categories(MODEL, [Category(1, "Cell ")], Path("val.json"))


def test_labels_of_another_split_are_those_of_the_model() -> None:
    content = pieces()
    content["categories"] = [{"id": 1, "name": "debris"}, {"id": 2, "name": "cell"}, {"id": 0, "name": "none"}]
    reading = relabelled(read_columns(annotation_file(content, Path("a.json")), Needs()), MODEL)
    names = {1: "debris", 2: "cell"}
    assert [MODEL[label].name for label in reading.annotations.label.tolist()] == [
        names[entry["category_id"]] for entry in content["annotations"]
    ]
    assert reading.categories == MODEL
