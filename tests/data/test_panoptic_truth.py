"""What is wrong with panoptic truth, and what it holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.data.checks import check_data
from dsctool.data.panoptic import read_ids, read_panoptic, write_ids
from dsctool.data.panoptic_truth import check_panoptic, describe_panoptic, panoptic_files

Content = dict[str, Any]


@pytest.fixture
def truth(synthetic_root: Path, tmp_path: Path) -> Path:
    """A panoptic file that may be written to, with its PNGs."""
    shutil.copytree(synthetic_root / "annotations", tmp_path / "annotations")
    return tmp_path / "annotations" / "panoptic_val.json"


def changed(path: Path, change: Callable[[Content], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def segments(content: Content) -> list[dict[str, Any]]:
    """Of the first image."""
    found: list[dict[str, Any]] = content["annotations"][0]["segments_info"]
    return found


def erase_first(path: Path) -> None:
    """Give the first segment's pixels to nobody."""
    png = path.with_suffix("") / "000001.png"
    ids = read_ids(png)
    write_ids(png, np.where(ids == 1, 0, ids))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an id of the pixels is not listed": (
        lambda path: changed(path, lambda content: segments(content).pop(0)),
        "segment 1 is in the pixels, and not in segments_info",
    ),
    "a listed id has no pixels": (erase_first, "segment 1 is in segments_info, and not in the pixels"),
    "an area disagrees": (
        lambda path: changed(path, lambda content: segments(content)[0].update(area=5)),
        "pixels, and area says 5",
    ),
    "stuff is a crowd": (
        lambda path: changed(path, lambda content: segments(content)[-1].update(iscrowd=1)),
        "is stuff and a crowd; only things come in crowds",
    ),
    "a PNG is missing": (
        lambda path: (path.with_suffix("") / "000001.png").unlink(),
        "panoptic_val/000001.png: no such file",
    ),
    "a PNG is damaged": (
        lambda path: (path.with_suffix("") / "000001.png").write_bytes(b"\x89PNG"),
        "panoptic_val/000001.png: ",
    ),
    "an image has no entry": (
        lambda path: changed(path, lambda content: content["annotations"].pop(0)),
        "image 1: has no entry in annotations, so it cannot be measured",
    ),
    "the file is no JSON": (lambda path: path.write_text("{"), "panoptic_val.json: "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(truth: Path, name: str) -> None:
    spoil, said = FAULTS[name]
    assert check_panoptic(truth) == []
    spoil(truth)
    (fault,) = check_panoptic(truth)
    assert said in str(fault)
    assert str(fault).startswith(f"{truth}:")
    assert fault.severity == ("warning" if name == "stuff is a crowd" else "error")


def test_data_check_looks_at_it(synthetic_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(synthetic_root, root)
    assert check_data(root) == []
    erase_first(root / "annotations/panoptic_train.json")
    (fault,) = check_data(root)
    assert "segment 1 is in segments_info" in str(fault)
    done = CliRunner().invoke(app, ["data", "check", str(root)])
    assert done.exit_code == 1
    assert "panoptic_train.json: image 1:" in done.stdout


def test_numbers_are_those_of_the_pixels(truth: Path) -> None:
    """One object becomes a crowd and another one void."""
    changed(truth, lambda content: segments(content)[1].update(iscrowd=1))
    changed(truth, lambda content: segments(content).pop(0))
    erase_first(truth)
    found, content = describe_panoptic(truth), json.loads(truth.read_text())
    listed = [(entry, segment) for entry in content["annotations"] for segment in entry["segments_info"]]
    maps = {entry["image_id"]: read_ids(truth.with_suffix("") / entry["file_name"]) for entry in content["annotations"]}
    pixels = sum(ids.size for ids in maps.values())
    assert (found.name, found.images, found.crowds) == ("val", len(maps), 1)
    assert found.void == sum(np.count_nonzero(ids == 0) for ids in maps.values()) / pixels > 0
    for category, counted in zip(content["categories"], found.categories, strict=True):
        own = [(e["image_id"], s) for e, s in listed if s["category_id"] == category["id"]]
        single = [(image, s) for image, s in own if not s["iscrowd"]]
        assert (counted.id, counted.name) == (category["id"], category["name"])
        assert (counted.segments, counted.images) == (len(single), len({image for image, _ in single}))
        assert counted.share == sum(np.count_nonzero(maps[image] == s["id"]) for image, s in own) / pixels
    things = sum(each.segments for each in found.categories if each.is_thing)
    assert (found.things, found.stuff) == (things, len(listed) - 1 - things)


def test_data_stats_shows_it(synthetic_root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "stats", str(synthetic_root), "--json", str(tmp_path / "stats.json")])
    assert done.exit_code == 0, done.output
    assert "panoptic train" in done.stdout
    told = json.loads((tmp_path / "stats.json").read_text())["panoptic"]
    assert [each["name"] for each in told] == ["train", "val"]
    assert sum(each["share"] for each in told[0]["categories"]) == pytest.approx(1)


def test_real_truth_has_no_faults(real_data: Path) -> None:
    """COCO's own two images."""
    root = real_data / "panoptic" / "coco-panoptic-2img"
    files = panoptic_files(root)
    assert files
    for file in files:
        assert [fault for fault in check_panoptic(file) if fault.severity == "error"] == []
        numbers, truth = describe_panoptic(file), read_panoptic(file)
        assert numbers.things + numbers.stuff + numbers.crowds == sum(len(e.segments) for e in truth.entries.values())
