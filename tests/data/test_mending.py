"""What can be mended without guessing is mended, said with its id, and in order afterwards; all else is as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsctool.data.checks import check_splits
from dsctool.data.faults import Fault
from dsctool.data.layout import SplitFiles
from dsctool.data.mending import mend
from tests.data.pieces import HEIGHT, WIDTH, pieces, write_pieces

Change = Callable[[dict[str, Any]], object]


def _all(change: Change) -> Change:
    return lambda content: [change(entry) for entry in content["annotations"]]


def _first(**values: object) -> Change:
    return lambda content: content["annotations"][0].update(values)


def _images(**values: object) -> Change:
    return lambda content: [entry.update(values) for entry in content["images"]]


def _out_of_order(content: dict[str, Any]) -> None:
    """Half of the references as text."""
    for entry in content["annotations"][::2]:
        entry["image_id"] = str(entry["image_id"])
        entry["category_id"] = float(entry["category_id"])


def _named_images(content: dict[str, Any]) -> None:
    for entry in content["images"]:
        entry["id"] = f"img{entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"img{entry['image_id']}"


def _again(content: dict[str, Any]) -> None:
    content["annotations"] += [{**entry, "id": entry["id"] + 100} for entry in content["annotations"]]


def _image_again(content: dict[str, Any]) -> None:
    content["images"].append({**content["images"][0], "id": 99})
    content["annotations"] += [{**e, "id": e["id"] + 100, "image_id": 99} for e in content["annotations"][:4]]


SPOILT: dict[str, tuple[Change, str, int]] = {
    # what is done, what is said of it, and of how many entries
    "no iscrowd": (_all(lambda e: e.pop("iscrowd")), "iscrowd is 0 now", 12),
    "false": (_all(lambda e: e.update(iscrowd=False)), "iscrowd is 0 now, not false", 12),
    "text": (_all(lambda e: e.update(iscrowd="0")), 'iscrowd is 0 now, not "0"', 12),
    "null": (_all(lambda e: e.update(iscrowd=None)), "iscrowd is 0 now", 12),
    "no area": (_all(lambda e: e.pop("area")), "area is that of the mask now", 12),
    "area 0": (_all(lambda e: e.update(area=0)), "area is that of the mask now", 12),
    "negative area": (_first(area=-5), "area is that of the mask now", 1),
    "area of the image": (_all(lambda e: e.update(area=WIDTH * HEIGHT)), "area is that of the mask now", 12),
    "no box": (_all(lambda e: e.pop("bbox")), "bbox is that of the mask now", 12),
    "null box": (_first(bbox=None), "bbox is that of the mask now", 1),
    "three numbers": (_first(bbox=[1, 2, 3]), "bbox is that of the mask now", 1),
    "flat box": (_first(bbox=[1, 2, 0, 3]), "bbox is that of the mask now", 1),
    "box far out": (_first(bbox=[300, 10, 20, 20]), "bbox is that of the mask now", 1),
    "corners": (
        _all(lambda e: e.update(bbox=[*e["bbox"][:2], e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]])),
        "bbox is that of the mask now",
        12,
    ),
    "stray points": (
        _all(lambda e: e["segmentation"].append([5, 5, 6, 6])),
        "fewer than 3 points left out: 1 of 2",
        12,
    ),
    "an empty part": (_first(segmentation=[[21, 10, 45, 10, 45, 24, 21, 24], []]), "left out: 1 of 2", 1),
    "objects twice": (_again, "left out: repeats annotation", 12),
    "an image twice": (_image_again, "of the file of image 1, which gets its annotations", 1),
    "equal entries": (lambda c: c["images"].append(dict(c["images"][0])), "an earlier entry is equal", 1),
    "one id twice": (lambda c: c["annotations"][1].update(id=1), "has id 13 now: an earlier one has its id", 1),
    "id 0": (lambda c: c["annotations"][0].update(id=0), "has id 13 now: COCO's evaluator takes 0 for none", 1),
    "an empty part and box": (
        lambda c: c["annotations"].append({**c["annotations"][0], "id": 50, "segmentation": [[]], "bbox": []}),
        "left out: an object without a mask",
        1,
    ),
    "no ids": (_all(lambda e: e.pop("id")), "has id", 12),
    "ids of text": (_all(lambda e: e.update(id=str(e["id"]))), "has id", 12),
    "names as ids": (_all(lambda e: e.update(id=f"a{e['id']}")), "has id", 12),
    "references of other types": (_out_of_order, "image_id is", 6),
    "images with names as ids": (_named_images, "ids are whole numbers", 3),
    "file names": (lambda c: c["images"][0].update(file_name="D:\\x\\1.PNG"), "the only file that fits", 1),
    "no sizes": (lambda c: [c["images"][0].pop(key) for key in ("width", "height")], "width and height are", 1),
    "sides as floats": (_images(width=96.0, height=64.0), "width and height are", 3),
    "sides as text": (_images(width="96", height="64"), "width and height are", 3),
    "no sides": (_images(width=0, height=None), "width and height are", 3),
    "one side": (lambda c: c["images"][0].pop("height"), "width and height are", 1),
    "parts without area": (
        _all(lambda e: e["segmentation"].append([5, 5] * 4)),
        "polygons without an area left out: 1 of 2",
        12,
    ),
    "shares as boxes": (
        _all(lambda e: e.update(bbox=[v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(e["bbox"])])),
        "bbox is that of the mask now",
        12,
    ),
    "empty object": (
        lambda c: c["annotations"].append({**c["annotations"][0], "id": 50, "segmentation": [], "bbox": [0] * 4}),
        "left out: an object without a mask",
        1,
    ),
}


def _left(files: SplitFiles, content: object) -> list[Fault]:
    mended = files.annotations.with_name("mended.json")
    mended.write_text(json.dumps(content))
    return check_splits([(replace(files, annotations=mended), True)])


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_mended_is_said_and_then_in_order(tmp_path: Path, kind: str) -> None:
    change, words, count = SPOILT[kind]
    content = pieces()
    change(content)
    files = write_pieces(tmp_path, content)
    mended = mend(files)
    said = [fault for fault in mended.changes if words in fault.message]
    assert len(said) == count, mended.changes
    assert all(str(fault).startswith(f"{files.annotations}: ") for fault in said)
    assert _left(files, mended.content) == []
    assert json.loads(files.annotations.read_text()) == content, "the file itself stays"
    again = mend(replace(files, annotations=files.annotations.with_name("mended.json")))
    assert (again.changes, again.content) == ([], mended.content)


@pytest.mark.parametrize("kind", ["no area", "no box", "corners", "objects twice", "stray points", "an image twice"])
def test_the_mended_file_is_what_was_there_before(tmp_path: Path, kind: str) -> None:
    content = pieces()
    SPOILT[kind][0](content)
    mended = mend(write_pieces(tmp_path, content)).content
    assert mended == pieces()


def test_a_box_over_the_border_is_cut_and_keeps_its_mask(tmp_path: Path) -> None:
    content = pieces()
    outline = [86, 50, WIDTH + 2, 50, WIDTH + 2, HEIGHT + 3, 86, HEIGHT + 3]
    content["annotations"][0].update(bbox=[86, 50, 12, 17], segmentation=[outline], area=140)
    files = write_pieces(tmp_path, content)
    mended = mend(files)
    assert [str(change).partition(": ")[2] for change in mended.changes] == [
        "annotation 1: bbox is cut at the border of the image, [86, 50, 10, 14]"
    ]
    assert mended.content["annotations"][0]["segmentation"] == [outline]
    assert _left(files, mended.content) == []


def _turn(entry: dict[str, Any]) -> None:
    """Points in the order y, x: a box from them would be of another place."""
    points = entry["segmentation"][0]
    entry["segmentation"] = [[value for pair in zip(points[1::2], points[::2], strict=True) for value in pair]]


def _share(entry: dict[str, Any]) -> None:
    """All of an image are drawn as one pixel, as if they were one object."""
    if entry["id"] % 4 < 2:
        entry["segmentation"] = [[v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(entry["segmentation"][0])]]
        entry["bbox"] = [v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(entry["bbox"])]


def _grow(entry: dict[str, Any]) -> None:
    """Boxes of whole things of which the masks show a part, say."""
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x - 10, y - 8, w * 1.2 + 10, h * 1.5 + 8]


@pytest.mark.parametrize("change", [_turn, _share, _grow])
def test_masks_that_may_be_wrong_mend_nothing(tmp_path: Path, change: Change) -> None:
    content = pieces()
    _all(change)(content)
    assert mend(write_pieces(tmp_path, content)).changes == []


def test_nothing_is_mended_in_an_image_of_another_size_than_its_file(tmp_path: Path) -> None:
    """Boxes would be cut where the image does not end."""
    content = pieces()
    _images(width=80, height=60)(content)
    assert mend(write_pieces(tmp_path, content)).changes == []


def test_all_else_is_kept(tmp_path: Path) -> None:
    content = {"info": {"year": 2020}, "licenses": [{"id": 1}], **pieces()}
    content["annotations"][0].update(attributes={"occluded": True}, keypoints=[1, 2, 2])
    content["images"][0]["license"] = 1
    assert mend(write_pieces(tmp_path, copy.deepcopy(content))).content == content


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=json_values)
def test_no_value_anywhere_crashes_and_mending_twice_changes_nothing_more(
    tmp_path: Path, data: st.DataObject, value: object
) -> None:
    content = pieces()
    kind = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    entry = data.draw(st.sampled_from(content[kind]))
    entry[data.draw(st.sampled_from(sorted(entry)))] = value
    files = write_pieces(tmp_path / str(len(list(tmp_path.iterdir()))), content)
    mended = mend(files)
    files.annotations.write_text(json.dumps(mended.content))
    assert mend(files).changes == []
