"""The generated data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from dsctool.config.schema import DataConfig, SplitConfig
from dsctool.data.checks import check_data
from dsctool.data.coco import CocoDataset
from dsctool.data.columns import read_columns
from dsctool.data.layout import find_split, find_splits
from dsctool.data.panoptic import read_panoptic
from dsctool.data.records import Category, read_annotation_file
from dsctool.data.rules import Needs
from dsctool.data.stats import OVERLAPS, describe
from dsctool.data.stuff import name_channels, read_labels
from dsctool.data.synthetic.dataset import synthesize
from dsctool.data.synthetic.scenes import CLASSES, STUFF
from dsctool.errors import DataError


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _content(root: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    return content


def _masks(root: Path) -> list[np.ndarray]:
    """The masks of every training image, ``(G, h, w)``."""
    files = find_split(root, SplitConfig(), "train")
    reading = read_columns(read_annotation_file(files.annotations), Needs())
    columns = reading.annotations
    return [
        np.stack([columns.shapes.bitmap(row, info.size) for row in np.flatnonzero(columns.image == image).tolist()])
        for image, info in enumerate(reading.images)
    ]


def _pieces(mask: np.ndarray) -> int:
    """Parts that do not touch; corners count as touching, crumbs of under 4 x 4 pixels do not count."""
    rows, columns = np.nonzero(mask)
    mask = mask[rows.min() : rows.max() + 1 : 2, columns.min() : columns.max() + 1 : 2]
    inside = torch.from_numpy(mask).float()
    labels = torch.arange(1.0, mask.size + 1).reshape(mask.shape) * inside
    while not torch.equal(labels, spread := max_pool2d(labels[None], 3, 1, 1)[0] * inside):
        labels = spread
    return int((labels[labels > 0].unique(return_counts=True)[1] >= 4).sum())


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(tmp_path / name, images=2, val_images=1, seed=seed)
    first, second, other = (_files(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert not [name for name in first if first[name] == other[name] and not name.endswith("labels.txt")]
    assert sorted(first) == [
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "annotations/panoptic_train.json",
        "annotations/panoptic_train/000001.png",
        "annotations/panoptic_train/000002.png",
        "annotations/panoptic_val.json",
        "annotations/panoptic_val/000001.png",
        "stuffthingmaps/labels.txt",
        "stuffthingmaps/train/000001.png",
        "stuffthingmaps/train/000002.png",
        "stuffthingmaps/val/000001.png",
        "train/000001.jpg",
        "train/000002.jpg",
        "val/000001.jpg",
    ]


def test_several_processes_give_the_same_files(tmp_path: Path) -> None:
    """The command shares images out to all cores; this process has torch, and draws them alone."""
    words = ["synth", "--output", "other", "--images", "9", "--val-images", "1", "--seed", "4", "--size", "64x80"]
    command = [sys.executable, "-m", "dsctool", "data", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    synthesize(tmp_path / "here", images=9, val_images=1, seed=4, size=(64, 80))
    here, other = _files(tmp_path / "here"), _files(tmp_path / "other")
    assert here == other
    assert not [name for name, data in here.items() if str(tmp_path).encode() in data], "no file names its place"


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    synthesize(tmp_path / "few", images=1, seed=1)
    synthesize(tmp_path / "more", images=2, val_images=1, seed=1)
    few, more = _files(tmp_path / "few"), _files(tmp_path / "more")
    for name in ("train/000001.jpg", "stuffthingmaps/train/000001.png"):
        assert few[name] == more[name]
    assert few["train/000001.jpg"] != more["val/000001.jpg"], "the splits differ"
    annotations = [each for each in _content(tmp_path / "more")["annotations"] if each["image_id"] == 1]
    assert _content(tmp_path / "few")["annotations"] == annotations
    assert not (tmp_path / "few/annotations/instances_val.json").exists()


def test_masks_are_the_visible_parts_and_boxes_are_tight(synthetic_root: Path) -> None:
    entries = _content(synthetic_root)["annotations"]
    for image, masks in enumerate(_masks(synthetic_root), start=1):
        assert (masks.sum(axis=0) <= 1).all(), "every pixel belongs to one object at most"
        semantic = np.asarray(Image.open(synthetic_root / f"stuffthingmaps/train/{image:06d}.png"))
        own = [each for each in entries if each["image_id"] == image]
        for mask, entry in zip(masks, own, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
            assert entry["bbox"] == [columns[0], rows[0], *size]
            assert entry["area"] == mask.sum() >= 80
            assert (semantic[mask > 0] == entry["category_id"] - 1).all()
        assert (semantic[masks.sum(axis=0) == 0] >= len(CLASSES)).all()


def test_the_size_is_the_one_asked_for(tmp_path: Path, synthetic_root: Path) -> None:
    synthesize(tmp_path / "set", images=1, val_images=1, seed=0, size=(96, 160))
    for split in ("train", "val"):
        assert [(image["height"], image["width"]) for image in _content(tmp_path / "set", split)["images"]] == [
            (96, 160)
        ]
        assert Image.open(tmp_path / "set" / split / "000001.jpg").size == (160, 96)
        assert Image.open(tmp_path / "set" / "stuffthingmaps" / split / "000001.png").size == (160, 96)
    sizes = {(image["height"], image["width"]) for image in _content(synthetic_root)["images"]}
    assert len(sizes) > 1, "without a size, sizes vary"


def test_stuff_maps_supervise_the_semantic_branch(synthetic_root: Path) -> None:
    files = find_split(synthetic_root, SplitConfig(), "train")
    dataset = CocoDataset.for_training(files, DataConfig(semantic="stuffthingmaps"))
    values = torch.cat([sample.targets.semantic.unique() for sample in map(dataset.__getitem__, range(8))])
    values = values[values != 255]
    assert set(values.tolist()) == set(range(len(CLASSES) + len(STUFF))), "every class, every kind of ground"
    names = (synthetic_root / "stuffthingmaps" / "labels.txt").read_text().splitlines()
    assert names == [f"{value}: {name}" for value, name in enumerate((*CLASSES, *STUFF))]


def test_some_are_cut_in_two_and_sizes_range_widely(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", images=16, seed=0)
    masks = [mask for masks in _masks(tmp_path / "set") for mask in masks]
    assert len(masks) > 100
    assert sum(_pieces(mask) > 1 for mask in masks) >= 2
    entries = _content(tmp_path / "set")["annotations"]
    assert {entry["category_id"] for entry in entries} == set(range(1, len(CLASSES) + 1))
    smallest, largest = np.quantile([max(entry["bbox"][2:]) for entry in entries], (0.02, 0.98))
    assert smallest > 16
    assert largest > 5 * smallest


def test_huddle_is_the_share_that_overlaps_its_own_kind(tmp_path: Path) -> None:
    shares = []
    for huddle in (0.0, 0.5, 1.0):
        synthesize(tmp_path / str(huddle), images=7, seed=3, size=(128, 128), huddle=huddle)
        (stats,) = map(describe, find_splits(tmp_path / str(huddle)))
        shares.append(stats.overlapping_same_class[OVERLAPS.index(0.3)] / stats.instances)
        assert stats.instances > 40
        assert check_data(tmp_path / str(huddle)) == []
    assert shares[0] <= 0.02
    assert 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.5


def test_chosen_classes_keep_their_ids(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", images=4, seed=2, size=(96, 96), classes=("shell", "fish"))
    content = _content(tmp_path / "set")
    assert [(each["id"], each["name"]) for each in content["categories"]] == [(3, "fish"), (5, "shell")]
    assert {entry["category_id"] for entry in content["annotations"]} == {3, 5}
    truth = read_panoptic(tmp_path / "set/annotations/panoptic_train.json")
    classes = [Category(3, "fish"), Category(5, "shell")]
    channels = name_channels(read_labels(tmp_path / "set/stuffthingmaps/labels.txt"), classes)
    assert channels is not None
    stuff = [(each.id, each.name) for each in channels.stuff]
    assert stuff == [(kind.id, kind.name) for kind in truth.categories if not kind.is_thing], "no class that is absent"
    assert check_data(tmp_path / "set") == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": (20, 192)}, "size 20x192 .*from 64 to 4096"),
        ({"size": (192, 5000)}, "size 192x5000"),
        ({"huddle": 1.5}, "huddle 1.5: must lie between 0"),
        ({"huddle": float("nan")}, "huddle nan"),
        ({"classes": ("fish", "cat")}, "classes cat: name one or more of crab, eel,"),
        ({"classes": ()}, "classes none: "),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        synthesize(tmp_path / "set", images=1, seed=0, **values)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        synthesize(tmp_path / "set", images=1, seed=0)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    synthesize(tmp_path / "set", images=1, seed=0)
    assert (tmp_path / "set/train/000001.jpg").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(DataError, match="No space left"):
        synthesize(tmp_path / "set", images=1, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_panoptic_truth_is_that_of_instances_and_stuff_maps(synthetic_root: Path) -> None:
    truth = read_panoptic(synthetic_root / "annotations" / "panoptic_train.json")
    kinds = {category.id: category for category in truth.categories}
    instances = _masks(synthetic_root)
    categories = {each["id"]: each["name"] for each in _content(synthetic_root)["categories"]}
    assert {id_: kind.name for id_, kind in kinds.items() if kind.is_thing} == categories
    assert [kind.name for kind in kinds.values() if not kind.is_thing] == list(STUFF)
    assert len({kind.color for kind in kinds.values()}) == len(kinds)
    assert len(truth.entries) == len(instances) > 0
    for entry, masks in zip(truth.entries.values(), instances, strict=True):
        ids = truth.ids(entry)
        semantic = np.asarray(Image.open(synthetic_root / "stuffthingmaps/train" / entry.file_name))
        assert set(np.unique(ids)) == {segment.id for segment in entry.segments}
        things = [segment for segment in entry.segments if kinds[segment.category_id].is_thing]
        assert len(things) == len(masks)
        for segment, mask in zip(things, masks, strict=True):
            assert np.array_equal(ids == segment.id, mask)
        for segment in entry.segments:
            assert segment.area == np.count_nonzero(ids == segment.id)
            assert set(np.unique(semantic[ids == segment.id])) == {segment.category_id - 1}
