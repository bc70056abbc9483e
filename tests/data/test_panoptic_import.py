"""Instances and stuff maps from panoptic truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.config.schema import SplitConfig
from dsctool.data.checks import check_data
from dsctool.data.layout import find_split
from dsctool.data.panoptic_import import import_panoptic
from dsctool.errors import DataError


@pytest.fixture
def bare(synthetic_root: Path, tmp_path: Path) -> Path:
    """A set with images and panoptic truth alone."""
    root = tmp_path / "set"
    shutil.copytree(synthetic_root, root, ignore=shutil.ignore_patterns("instances_*", "stuffthingmaps"))
    return root


def instances(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_it_is_what_the_truth_was_made_of(synthetic_root: Path, bare: Path) -> None:
    """Instances, maps and names, all as a generated set has them."""
    done = CliRunner().invoke(app, ["data", "from-panoptic", str(bare)])
    assert done.exit_code == 0, done.output
    assert "data.semantic=stuffthingmaps" in done.stderr
    for split in ("train", "val"):
        ours, theirs = (instances(root / f"annotations/instances_{split}.json") for root in (bare, synthetic_root))
        assert ours["images"] == theirs["images"]
        assert ours["annotations"] == theirs["annotations"]
        assert ours["categories"] == theirs["categories"]
        for path in (synthetic_root / "stuffthingmaps" / split).iterdir():
            made = bare / "stuffthingmaps" / split / path.name
            assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(path)))
    names = [(root / "stuffthingmaps/labels.txt").read_text() for root in (bare, synthetic_root)]
    assert names[0] == names[1]
    assert check_data(bare) == []


def test_nothing_is_written_over(synthetic_root: Path, bare: Path) -> None:
    own = bare / "annotations/instances_val.json"
    shutil.copy(synthetic_root / "annotations/instances_train.json", own)
    before = own.read_bytes()
    import_panoptic(bare)
    assert own.read_bytes() == before
    with pytest.raises(DataError, match=r"labels\.txt: is there already"):
        import_panoptic(bare)


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = instances(path)
    how(content)
    path.write_text(json.dumps(content))


def rename(content: dict[str, Any], name: str) -> None:
    content["images"][0]["file_name"] = name


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an id of nine bits": (
        lambda content: content["categories"][0].update(id=256),
        "maps of 8 bits hold ids from 1 to 255|unknown category",
    ),
    "a name that leads out": (lambda content: rename(content, "../../x.jpg"), "leads out|no name in a folder"),
    "another name": (lambda content: content["categories"][0].update(name="cat"), "category 1 is"),
    "no images": (lambda content: content.pop("images"), "is in no entry of 'images'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_leave_nothing(bare: Path, name: str) -> None:
    how, said = FAULTS[name]
    change(bare / "annotations/panoptic_train.json", how)
    before = sorted(bare.rglob("*"))
    with pytest.raises(DataError, match=said):
        import_panoptic(bare)
    left = [path for path in sorted(bare.rglob("*")) if path not in before]
    assert [path for path in left if path.name != "stuffthingmaps"] == []


def test_real_truth(real_data: Path, tmp_path: Path) -> None:
    """COCO's two images: the masks that others drew from them, and categories beyond COCO-Stuff's."""
    root = tmp_path / "set"
    shutil.copytree(real_data / "panoptic" / "coco-panoptic-2img", root)
    import_panoptic(root)
    assert find_split(root, SplitConfig(split="val2017"), "val").semantic_classes == 200
    assert [str(fault) for fault in check_data(root) if "from_panoptic" not in str(fault)] == []
    ours = instances(root / "annotations/instances_val2017.json")["annotations"]
    theirs = instances(root / "annotations/instances_from_panoptic_val2017.json")["annotations"]
    assert len(ours) == len(theirs) == 43

    def key(item: dict[str, Any]) -> tuple[int, int, float, list[float], int]:
        return item["image_id"], item["category_id"], item["area"], item["bbox"], item["iscrowd"]

    assert sorted(map(key, ours)) == sorted(map(key, theirs))
    areas = sorted(int(coco_mask.area(item["segmentation"])) for item in ours)
    assert areas == sorted(item["area"] for item in theirs)
