"""The generated data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from dsctool.config.schema import DataConfig, SplitConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import find_split
from dsctool.data.segmentations import decode_mask
from dsctool.data.shapes import CLASSES
from dsctool.data.synthetic import synthesize
from dsctool.errors import DataError


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _masks(root: Path) -> list[np.ndarray]:
    """The masks of every training image, ``(G, h, w)``."""
    dataset = CocoDataset.for_training(find_split(root, SplitConfig(), "train"), DataConfig())
    images = []
    for index in range(len(dataset)):
        info = dataset.image_info(index)
        size = (info.height, info.width)
        segmentations = [each.segmentation for each in dataset.annotations(index)]
        images.append(np.stack([decode_mask(each, size).numpy() for each in segmentations if each is not None]))
    return images


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
    assert first != other
    assert sorted(first) == [
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "train/000001.jpg",
        "train/000002.jpg",
        "val/000001.jpg",
    ]


def test_training_images_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    synthesize(tmp_path / "few", images=1, seed=1)
    synthesize(tmp_path / "more", images=2, val_images=1, seed=1)
    assert (tmp_path / "few/train/000001.jpg").read_bytes() == (tmp_path / "more/train/000001.jpg").read_bytes()
    assert not (tmp_path / "few/annotations/instances_val.json").exists()


def test_masks_are_the_visible_parts(synthetic_root: Path) -> None:
    for masks in _masks(synthetic_root):
        # An unhidden outline is a polygon, which pycocotools may draw a pixel wider than the hidden ones' bitmaps.
        assert (masks.sum(axis=0) > 1).mean() < 0.01
        assert (masks.sum(axis=(1, 2)) >= 60).all()


def test_shapes_huddle_and_some_are_cut_in_two(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", images=16, seed=0)
    masks = [mask for masks in _masks(tmp_path / "set") for mask in masks]
    assert len(masks) > 40
    assert sum(_pieces(mask) > 1 for mask in masks) >= 2
    content = json.loads((tmp_path / "set/annotations/instances_train.json").read_text())
    kinds = {type(annotation["segmentation"]) for annotation in content["annotations"]}
    assert kinds == {list, dict}, "whole shapes are polygons, hidden ones run-length encoded"
    assert {annotation["category_id"] for annotation in content["annotations"]} == set(range(1, len(CLASSES) + 1))


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
