"""Every fault is found, named with file and id, and never a crash."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.checks import check_data, check_for_training
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Fault, exclusions
from dsctool.errors import DataError
from tests.data.tiny import tiny_content, write_tiny

Change = Callable[[dict[str, Any]], object]

SPOILT_ENTRIES: dict[str, tuple[Change, str]] = {
    "box outside": (lambda c: c["annotations"][0].update(bbox=[50, 10, 20, 20]), "annotation 11: bbox .* outside"),
    "box at minus": (lambda c: c["annotations"][0].update(bbox=[-6, 10, 20, 20]), "annotation 11: bbox .* outside"),
    "negative box": (lambda c: c["annotations"][0].update(bbox=[10, 10, -20, 20]), "annotation 11: bbox .* negative"),
    "flat box": (lambda c: c["annotations"][0].update(bbox=[10, 10, 20, 0]), "annotation 11: bbox .* zero size"),
    "three numbers": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 11: bbox must have 4"),
    "no list": (lambda c: c["annotations"][0].update(bbox="1,2,3,4"), "annotation 11: bbox must be a list"),
    "text in box": (
        lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]),
        "annotation 11: bbox .* a string",
    ),
    "boolean in box": (lambda c: c["annotations"][0].update(bbox=[True, 2, 3, 4]), "annotation 11: bbox .* a boolean"),
    "NaN in box": (lambda c: c["annotations"][0].update(bbox=[float("nan"), 2, 3, 4]), "annotation 11: bbox .*nan"),
    "infinite area": (lambda c: c["annotations"][0].update(area=float("inf")), "annotation 11: area .*inf"),
    "negative area": (lambda c: c["annotations"][0].update(area=-4), "annotation 11: area is negative"),
    "huge number": (lambda c: c["annotations"][0].update(area=10**400), "annotation 11: area"),
    "empty polygons": (lambda c: c["annotations"][0].update(segmentation=[]), "annotation 11: segmentation is empty"),
    "odd polygon": (lambda c: c["annotations"][0].update(segmentation=[[1] * 7]), "annotation 11: polygon 1 .* odd"),
    "two points": (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "annotation 11: .* fewer than 3"),
    "flat polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1] * 8]),
        "annotation 11: polygon has no area",
    ),
    "NaN in polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, float("nan"), 4, 5, 6]]),
        "annotation 11: polygon 1 .* not finite",
    ),
    "polygon outside": (
        lambda c: c["annotations"][0].update(segmentation=[[60, 1, 80, 1, 80, 9]]),
        "annotation 11: polygon is outside the image, which is 60 x 40",
    ),
    "endless polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 1, 1e11, 1, 9, 9]]),
        "annotation 11: polygon 1 reaches far out of the image, which is 60 x 40",
    ),
    "wrong segmentation": (lambda c: c["annotations"][0].update(segmentation=5), "annotation 11: segmentation must be"),
    "RLE size": (lambda c: c["annotations"][1]["segmentation"].update(size=[60, 40]), r"annotation 12: RLE has size"),
    "RLE counts": (lambda c: c["annotations"][1]["segmentation"].update(counts="~"), "annotation 12: RLE counts"),
    "crowd flag": (lambda c: c["annotations"][2].update(iscrowd=2), "annotation 13: iscrowd must be 0 or 1, not 2"),
    "unknown category": (lambda c: c["annotations"][0].update(category_id=1), "annotation 11: unknown category.* 1 "),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=99), "annotation 11: unknown image.* 99 "),
    "duplicate annotation": (lambda c: c["annotations"][1].update(id=11), "annotation 11: duplicate id"),
    "duplicate image": (lambda c: c["images"][1].update(id=7), "image 7: duplicate id"),
    "duplicate category": (lambda c: c["categories"][1].update(id=90), "category 90: duplicate id"),
    "one name twice": (
        lambda c: c["categories"][1].update(name="toothbrush"),
        "category 5: has the name of category 90, 'toothbrush'",
    ),
    "one name twice but for its spelling": (
        lambda c: c["categories"][1].update(name="Toothbrush "),
        "category 5: has the name of category 90 but for blanks or letter case, 'Toothbrush '",
    ),
    "points": (
        lambda c: c["annotations"][0].update(segmentation=[[10, 10], [30, 10], [30, 30]]),
        r"annotation 11: segmentation is a list of \[x, y\] points",
    ),
    "points in a list": (
        lambda c: c["annotations"][0].update(segmentation=[[[10, 10], [30, 10], [30, 30]]]),
        "annotation 11: polygon 1 holds a list where a number belongs: a polygon is one list",
    ),
    "endless id": (lambda c: c["annotations"][0].update(id=2**63), "annotation 9223372036854775808: id is too large"),
    "text category": (lambda c: c["annotations"][0].update(category_id="90"), "annotation 11: category_id .* not '90'"),
    "text id": (lambda c: c["annotations"][0].update(id="x1"), "annotation 'x1': id must be a whole number"),
    "no annotation id": (lambda c: c["annotations"][0].pop("id"), r"annotations\[0\] \(no id\): missing key 'id'"),
    "no bbox": (
        lambda c: [c["annotations"][0].pop(key) for key in ("bbox", "segmentation")],
        "annotation 11: missing key 'bbox'",
    ),
    "no segmentation": (lambda c: c["annotations"][0].pop("segmentation"), "annotation 11: missing key 'segmentation'"),
    "no image_id": (lambda c: c["annotations"][0].pop("image_id"), "annotation 11: missing key 'image_id'"),
    "no file_name": (lambda c: c["images"][0].pop("file_name"), "image 7: missing key 'file_name'"),
    "no width": (lambda c: c["images"][0].pop("width"), "image 7: missing key 'width'"),
    "no name": (lambda c: c["categories"][0].pop("name"), "category 90: missing key 'name'"),
    "text width": (lambda c: c["images"][0].update(width="60"), "image 7: width must be a whole number"),
    "zero width": (lambda c: c["images"][0].update(width=0), "image 7: width must be a whole number"),
    "endless width": (lambda c: c["images"][0].update(width=10**400), "image 7: width must be a whole number"),
    "another size": (lambda c: c["images"][0].update(width=61), "image 7: .*a.png: is 60 x 40 .* 61 x 40"),
    "missing image": (lambda c: c["images"][0].update(file_name="nope.png"), "image 7: .*nope.png: no such file"),
    "escaping name": (lambda c: c["images"][0].update(file_name="../train/a.png"), "image 7: file_name .* leads out"),
    "absolute name": (lambda c: c["images"][0].update(file_name="/etc/passwd"), "image 7: file_name .* leads out"),
    "empty name": (lambda c: c["images"][0].update(file_name=" "), "image 7: file_name must be a path"),
    "long name": (lambda c: c["images"][0].update(file_name="x" * 5000), "image 7: "),
    "folder as image": (lambda c: c["images"][0].update(file_name="."), "image 7: .*cannot be read: Is a dir"),
    "surrogate in name": (lambda c: c["images"][0].update(file_name="\ud800.png"), "image 7: "),
    "annotation no object": (lambda c: c["annotations"].append(3), r"annotations\[3\] .*must be an object"),
    "image no object": (lambda c: c["images"].append(None), r"images\[2\] .*must be an object, not null"),
    "no categories": (lambda c: c["categories"].clear(), "instances_train.json: has no categories"),
    "no images": (lambda c: c["images"].clear(), "instances_train.json: has no images"),
    "no annotations key": (lambda c: c.pop("annotations"), "instances_train.json: missing key 'annotations'"),
    "images no list": (lambda c: c.update(images={}), "instances_train.json: 'images' must be a list"),
}


@pytest.mark.parametrize("name", SPOILT_ENTRIES)
def test_a_spoilt_entry_is_found(tmp_path: Path, name: str) -> None:
    change, words = SPOILT_ENTRIES[name]
    content = tiny_content()
    change(content)
    files = write_tiny(tmp_path, content)
    lines = [str(fault) for fault in check_data(tmp_path)]
    assert any(re.search(words, line) for line in lines), lines
    assert all(line.startswith(str(files.annotations)) for line in lines)
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("[]", "must hold a JSON object .* not a list"),
        ("3", "must hold a JSON object .* not a number"),
        ('{"images": [{"id": 1, \n"file_', "not valid JSON at line 2 column 1"),
        ("{}", "missing key 'images'"),
        ("\udcff\udcfe", "not UTF-8"),
        ("[" * 100_000, "not usable JSON"),
    ],
)
def test_a_spoilt_file_is_found(tmp_path: Path, text: str, words: str) -> None:
    files = write_tiny(tmp_path)
    files.annotations.write_bytes(text.encode("utf-8", "surrogateescape"))
    (fault,) = check_data(tmp_path)
    assert str(fault).startswith(f"{files.annotations}: ")
    assert fault.message.count(str(files.annotations)) == 0, "the file is named once"
    assert re.search(words, fault.message), fault.message


@pytest.mark.parametrize(("target", "words"), [(None, "no such file"), ("train", "Is a directory")])
def test_an_annotation_file_that_is_none_is_a_fault(tmp_path: Path, target: str | None, words: str) -> None:
    (write_tiny(tmp_path).annotations.parent / "instances_val.json").symlink_to(tmp_path / (target or "nowhere"))
    (fault,) = check_data(tmp_path)
    assert str(fault).startswith(f"{tmp_path}/annotations/instances_val.json: ")
    assert words in str(fault)


def test_a_fault_is_one_line_that_commands_no_terminal_and_keeps_names(tmp_path: Path) -> None:
    content = tiny_content()
    content["images"][0]["file_name"] = "two  blanks\n\x1b[31m\ud800 \u65e5\u672c.png"
    write_tiny(tmp_path / "my  data", content)
    (fault,) = check_data(tmp_path / "my  data")
    assert f"{tmp_path}/my  data/train/two  blanks\\n\\x1b[31m\\ud800 \u65e5\u672c.png" in str(fault)


def test_an_annotation_file_cut_anywhere_is_one_fault(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    text = files.annotations.read_text()
    for length in range(0, len(text) - 1, 37):
        files.annotations.write_text(text[:length])
        (fault,) = check_data(tmp_path)
        assert fault.subject == "file"


def test_a_missing_root_an_empty_root_and_a_file_are_faults(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, words in (("nope", "does not exist"), ("file", "not a folder"), ("folder", "no folder .*annotations")):
        (fault,) = check_data(tmp_path / name)
        assert re.search(words, str(fault)), fault
        assert str(fault).startswith(str(tmp_path / name))


def test_a_missing_image_folder_is_one_fault(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    files.images.rename(tmp_path / "elsewhere")
    (fault,) = check_data(tmp_path)
    assert str(files.images) in str(fault)


def test_a_cut_image_is_found_only_by_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_tiny(tmp_path)
    data = (files.images / "b.jpg").read_bytes()
    (files.images / "b.jpg").write_bytes(data[: len(data) // 2])
    (fault,) = check_data(tmp_path)
    assert fault.id == 3
    assert re.search(r"image 3: .*b\.jpg: cannot be decoded", str(fault))
    monkeypatch.setattr("dsctool.data.checks.DECODE_LIMIT", 1)
    assert check_for_training(files, DataConfig(), masks=True).faults == ()


@pytest.mark.parametrize(("on_error", "found"), [("fail", 0), ("skip", 1)])
def test_large_sets_are_decoded_first_where_broken_images_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: Literal["fail", "skip"], found: int
) -> None:
    """Met in the middle of a run, such an image could only stop it, again at every --resume."""
    monkeypatch.setattr("dsctool.data.checks.DECODE_LIMIT", 1)
    files = write_tiny(tmp_path)
    (files.images / "b.jpg").write_bytes((files.images / "b.jpg").read_bytes()[:-200])
    checked = check_for_training(files, DataConfig(on_error=on_error), masks=True)
    assert len(checked.faults) == len(checked.exclude.images) == found


def test_sizes_are_checked_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsctool.data.checks.DECODE_LIMIT", 1)
    content = tiny_content()
    content["images"].append({"id": 8, "file_name": "a.png", "width": 61, "height": 40})
    with pytest.raises(DataError, match=r"image 8: .*61 x 40"):
        check_for_training(write_tiny(tmp_path, content), DataConfig(), masks=True)


def test_splits_must_have_the_same_categories(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    content = tiny_content()
    content["categories"][0]["name"] = "brush"
    (files.annotations.parent / "instances_val.json").write_text(json.dumps(content))
    files.images.rename(tmp_path / "val")
    (tmp_path / "train").symlink_to(tmp_path / "val")
    (fault,) = [fault for fault in check_data(tmp_path) if fault.severity == "error"]
    assert "instances_val.json: its categories are not the model's. Only in the data: brush" in str(fault)


def test_missing_semantic_maps_are_found(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    maps = tmp_path / "stuffthingmaps" / "train"
    maps.mkdir(parents=True)
    Image.new("L", (60, 40)).save(maps / "a.png")
    (fault,) = check_data(tmp_path)
    assert re.search(r"image 3: .*b\.png: no such file", str(fault))
    assert check_for_training(replace(files, semantic_maps=maps), DataConfig(), masks=True).faults == ()


@pytest.mark.parametrize("box", [[-1, 10, 20, 20], [40, 10, 21, 20], [0, 0, 60.5, 40.9]])
def test_boxes_may_stick_out_by_a_pixel(tmp_path: Path, box: list[float]) -> None:
    content = tiny_content()
    (x, y, width, height) = box
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    content["annotations"][0].update(bbox=box, segmentation=[outline], area=width * height)
    write_tiny(tmp_path, content)
    assert check_data(tmp_path) == []


def test_boxes_only_need_no_segmentation(tmp_path: Path) -> None:
    content = tiny_content()
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    write_tiny(tmp_path, content)
    assert len(check_data(tmp_path)) == 3
    assert check_data(tmp_path, masks=False) == []


def test_progress_is_told(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    told: list[tuple[str, int, int]] = []
    check_data(tmp_path, progress=lambda name, done, total: told.append((name, done, total)))
    assert told == [("annotations", 3, 3), ("train", 1, 2), ("train", 2, 2)]


def test_training_refuses_in_the_same_words(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["bbox"] = [10, 10, -20, 20]
    files = write_tiny(tmp_path, content)
    (fault,) = check_data(tmp_path)
    with pytest.raises(DataError) as refusal:
        check_for_training(files, DataConfig(), masks=True)
    assert str(fault) in str(refusal.value).splitlines()
    assert "data.on_error=skip" in str(refusal.value)


def test_training_may_skip_exactly_the_faulty_entries(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][1]["id"] = 11  # the later one of a duplicate goes
    content["images"].append({"id": 8, "file_name": "nope.png", "width": 60, "height": 40})
    files = write_tiny(tmp_path, content)
    config = DataConfig(on_error="skip")
    checked = check_for_training(files, config, masks=True)
    assert len(checked.faults) == 2
    dataset = CocoDataset.for_training(files, config, exclude=checked.exclude)
    assert [dataset.image_info(index).id for index in range(len(dataset))] == [7, 3]
    (annotation,) = dataset.annotations(0)
    assert annotation.label == 1


def test_faults_of_the_whole_file_cannot_be_skipped(tmp_path: Path) -> None:
    content = tiny_content()
    content["categories"][1]["id"] = 90
    with pytest.raises(DataError, match="duplicate id"):
        check_for_training(write_tiny(tmp_path, content), DataConfig(on_error="skip"), masks=True)


def test_training_lives_with_warnings(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["bbox"] = [10, 10, 20, 0]
    checked = check_for_training(write_tiny(tmp_path, content), DataConfig(), masks=True)
    assert [fault.severity for fault in checked.faults] == ["warning"]
    assert not checked.exclude.annotations


@pytest.mark.parametrize("subject", ["file", "category"])
def test_leaving_out_is_offered_only_where_it_helps(subject: Literal["file", "category"]) -> None:
    faults = [Fault(Path("a.json"), subject, None, 0, "x", "x"), Fault(Path("a.json"), "image", 1, 0, "x", "x")]
    with pytest.raises(DataError) as refusal:
        exclusions(faults, "fail")
    assert "data.on_error" not in str(refusal.value)


def test_a_long_refusal_is_cut_and_says_so() -> None:
    faults = [Fault(Path("a.json"), "annotation", number, number, "box", f"wrong {number}") for number in range(50)]
    with pytest.raises(DataError) as refusal:
        exclusions(faults, "fail")
    lines = str(refusal.value).splitlines()
    assert len(lines) == 22
    assert "30 more" in lines[20]
    assert lines[21].startswith("50 faults")


def test_equal_faults_are_one_line_that_names_the_first() -> None:
    faults = [Fault(Path("a.json"), "annotation", number + 7, number, "box", "wrong") for number in range(22)]
    with pytest.raises(DataError) as refusal:
        exclusions([*faults, Fault(Path("a.json"), "annotation", 1, 99, "box", "odd")], "fail")
    first, second, last = str(refusal.value).splitlines()
    assert first == "a.json: 22 x wrong (annotations 7, 8, 9, ...)"
    assert second == "a.json: annotation 1: odd"
    assert last.startswith("23 faults in the data: mend them")


def test_real_sets_are_clean(real_data: Path) -> None:
    for name in ("coco-mini", "fruits"):
        assert check_data(real_data / name) == []


def test_a_generated_set_is_clean(synthetic_root: Path) -> None:
    assert check_data(synthetic_root) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=json_values)
def test_no_value_anywhere_crashes_check_or_training(tmp_path: Path, data: st.DataObject, value: object) -> None:
    """Whatever replaces whichever value: a fault, or a data set that loads."""
    content = tiny_content()
    kind = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    entry = data.draw(st.sampled_from(content[kind]))
    entry[data.draw(st.sampled_from(sorted(entry)))] = value
    files = write_tiny(tmp_path / str(len(list(tmp_path.iterdir()))), content)
    size = ResizeConfig(short_sides=(40,))
    config = DataConfig(on_error="skip", train_resize=size)
    try:
        checked = check_for_training(files, config, masks=True)
        dataset = CocoDataset.for_training(files, config, exclude=checked.exclude, reading=checked.reading)
    except DataError:
        return
    for index in range(len(dataset)):
        assert dataset[index].targets.boxes.isfinite().all()
