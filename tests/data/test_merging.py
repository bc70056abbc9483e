"""Annotation files as one: classes, ids, images that several have."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from dsctool.data.layout import SplitFiles
from dsctool.data.merging import Shared, merge, open_source, refuse_leaks
from dsctool.errors import DataError
from tests.data.tiny import tiny_content, write_tiny


def another() -> dict[str, Any]:
    """The same images with other ids, classes in another order and with others, and no annotations yet."""
    return {
        "images": [
            {"id": 1, "file_name": "b.jpg", "width": 40, "height": 60},
            {"id": 2, "file_name": "a.png", "width": 60, "height": 40},
        ],
        "annotations": [],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "airplane", "supercategory": "vehicle"}],
    }


def square(identity: int, category: int, x: float = 10) -> dict[str, Any]:
    """In ``a.png`` of :func:`another`; at 10 it is the first annotation of the tiny set."""
    outline = [x, 10, x + 20, 10, x + 20, 30, x, 30]
    box = {"bbox": [x, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [outline]}
    return {"id": identity, "image_id": 2, "category_id": category, **box}


def merged(*files: SplitFiles, shared: Shared = "refuse", rename: bool = True) -> dict[str, Any]:
    stream = io.BytesIO()
    merge([open_source(each) for each in files], shared=shared, rename=rename).write(stream)
    content: dict[str, Any] = json.loads(stream.getvalue())
    return content


def test_classes_go_by_name_and_ids_from_1(tmp_path: Path) -> None:
    content = another()
    content["annotations"] = [square(70, 9, x=35) | {"attributes": {"sure": True}}]
    content["images"] = content["images"][1:]
    first = tiny_content()
    first["annotations"] = first["annotations"][2:]  # of b.jpg, which the other one does not have
    both = merged(write_tiny(tmp_path / "a", first), write_tiny(tmp_path / "b", content))
    assert [(each["id"], each["name"]) for each in both["categories"]] == [
        (5, "airplane"),
        (90, "toothbrush"),
        (91, "cat"),
    ]
    assert [(each["id"], each["file_name"]) for each in both["images"]] == [(1, "a.png"), (2, "b.jpg")]
    facts = [(each["id"], each["image_id"], each["category_id"]) for each in both["annotations"]]
    assert facts == [(1, 1, 5), (2, 2, 5)], "the second file's airplane is the first one's"
    assert both["annotations"][0]["attributes"] == {"sure": True}


@pytest.mark.parametrize(
    ("shared", "expected"),
    [("keep", [(90, 10), (5, 0), (91, 35)]), ("first", [(90, 10), (5, 0)]), ("last", [(90, 10), (91, 35)])],
)
def test_annotations_that_differ(tmp_path: Path, shared: Shared, expected: list[tuple[int, float]]) -> None:
    """Of a.png both have a toothbrush at 10; the first has an airplane besides, the second a cat."""
    content = another()
    content["categories"].append({"id": 3, "name": "toothbrush"})
    content["annotations"] = [square(1, 3), square(2, 5, x=35)]
    files = write_tiny(tmp_path / "a"), write_tiny(tmp_path / "b", content)
    both = merged(*files, shared=shared)
    assert len(both["images"]) == 2
    found = [(each["category_id"], each["bbox"][0]) for each in both["annotations"] if each["image_id"] == 1]
    assert found == expected
    assert len(both["annotations"]) == len(expected) + 1, "those of b.jpg, which only the first has"
    with pytest.raises(DataError, match=r"1 image has other annotations .*a\.png.*--shared keep"):
        merged(*files)


def test_equal_annotations_are_kept_once(tmp_path: Path) -> None:
    """Whatever their order and ids, and however the mask is written."""
    content = deepcopy(tiny_content())
    content["annotations"].reverse()
    for each in content["annotations"]:
        each["id"] += 100
    content["annotations"][1]["segmentation"] = {"size": [40, 60], "counts": [0, 5, 35, 5, 2355]}
    both = merged(write_tiny(tmp_path / "a"), write_tiny(tmp_path / "b", content))
    assert (len(both["images"]), len(both["annotations"])) == (2, 3)


def test_images_of_one_name_and_other_content(tmp_path: Path) -> None:
    files = write_tiny(tmp_path / "a"), write_tiny(tmp_path / "b"), write_tiny(tmp_path / "c")
    for each in files[1:]:
        (each.images / "a.png").write_bytes((files[0].images / "a.png").read_bytes() + b"other")
    both = merged(*files)
    assert [each["file_name"] for each in both["images"]] == ["a.png", "b.jpg", "a-2.png"], "b and c have the same one"
    assert len(both["annotations"]) == 5
    with pytest.raises(DataError, match="is another one than that of"):
        merged(*files, rename=False)


def test_sizes_tell_images_apart_where_files_are_missing(tmp_path: Path) -> None:
    content = another()
    content["images"][1]["width"] = 61
    files = write_tiny(tmp_path / "a"), write_tiny(tmp_path / "b", content)
    (files[1].images / "a.png").unlink()
    (files[1].images / "b.jpg").unlink()
    assert len(merged(*files)["images"]) == 3


def test_what_would_be_learnt_and_measured_is_refused(tmp_path: Path) -> None:
    sources = [open_source(write_tiny(tmp_path / name)) for name in "ab"]
    train, val = (merge([source], rename=True) for source in sources)
    with pytest.raises(DataError, match=r"is in split val of .* and in split train"):
        refuse_leaks({"train": train, "val": val})
    for path in sources[1].files.images.iterdir():
        path.write_bytes(path.read_bytes() + b"other")
    refuse_leaks({"train": train, "val": val})


def test_classes_that_names_do_not_tell_apart(tmp_path: Path) -> None:
    content = tiny_content()
    content["categories"][1]["name"] = "toothbrush"
    with pytest.raises(DataError, match="several categories are called toothbrush"):
        open_source(write_tiny(tmp_path / "a", content))


def test_faults_are_refused_in_the_words_of_check(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["category_id"] = 77
    with pytest.raises(DataError, match="annotation 11: unknown category"):
        open_source(write_tiny(tmp_path / "a", content))
