"""Training on windows of images: what a sample shows is the part of the image that it says, with all that is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config
from dsctool.data.coco import CocoDataset
from dsctool.data.images import read_image
from dsctool.data.loader import TrainLoader
from dsctool.data.samplers import SampleKey
from dsctool.data.tiles import tiles_of
from dsctool.engine.sets import check_sets, open_data
from dsctool.engine.setup import augmentations
from dsctool.errors import ConfigError
from dsctool.ops.spans import Window

HEIGHT, WIDTH, SIDE = 90, 200, 64


def configured(*words: str, name: str = "htc_tiny") -> Config:
    small = ["data.train_resize.short_sides=[64]", "data.workers=0", "data.flip=0", "train.eval_interval=0"]
    return override_config(load_config(name), [*small, *words])


TILES = (f"data.tiles.size={SIDE}", "data.tiles.min_visible=0.3")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose red and green say where a pixel is; rectangles and a crowd; the second no larger than a window."""
    folder = tmp_path_factory.mktemp("tiled")
    (folder / "annotations").mkdir()
    (folder / "train").mkdir()
    images, annotations = [], []
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate([(HEIGHT, WIDTH), (SIDE, 50)], start=1):
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([columns, rows, np.full_like(rows, number)], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "train" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for count in range(14):
            w, h = random.integers(10, 40, 2).tolist()
            x, y = random.integers(0, (width - w, height - h)).tolist()
            bitmap = np.zeros((height, width), dtype=np.uint8, order="F")
            bitmap[y : y + h, x : x + w] = 1
            rle = coco_mask.encode(bitmap)
            entry: dict[str, Any] = {"image_id": number, "category_id": count % 2 + 1, "iscrowd": int(count == 13)}
            entry |= {"id": len(annotations) + 1, "area": w * h, "bbox": [x, y, w, h]}
            annotations.append(entry | {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})
    categories = [{"id": 1, "name": "pea"}, {"id": 2, "name": "bean"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(truth))
    return folder


def opened(root: Path, *words: str, name: str = "htc_tiny") -> CocoDataset:
    return open_data(configured(*words, name=name), root).train_set


@pytest.mark.parametrize("semantic", ["instances", "none"])
def test_a_sample_is_a_part_of_its_image(root: Path, semantic: str) -> None:
    dataset = opened(root, *TILES, f"data.semantic={semantic}")
    truth = json.loads((root / "annotations" / "instances_train.json").read_text())["annotations"][:13]
    corners, ignored = set(), 0
    for seed in range(12):
        torch.manual_seed(seed)
        part = dataset._annotated(0)
        assert part.image.shape == (3, SIDE, SIDE)
        x, y = (int(part.image[channel].min()) for channel in (0, 1))
        corners.add((x, y))
        assert part.image[0].max() - x == part.image[1].max() - y == SIDE - 1
        assert part.masks is not None
        assert part.crowd is not None
        expected = []
        for entry in truth:
            whole = coco_mask.decode(entry["segmentation"])
            seen = whole[y : y + SIDE, x : x + SIDE]
            if seen.sum() >= 0.3 * whole.sum():
                rows, columns = np.nonzero(seen)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                expected.append((seen.tolist(), entry["category_id"] - 1, [float(side) for side in box]))
            else:
                ignored += bool(seen.any())
        found = zip(part.masks.tolist(), part.labels.tolist(), part.boxes.tolist(), strict=True)
        assert list(found) == expected
    assert len(corners) > 6
    assert ignored > 0, "some are seen too little"


def test_an_image_no_larger_than_a_window_is_as_ever(root: Path) -> None:
    tiled, plain = opened(root, *TILES), opened(root)
    one, other = (dataset[SampleKey(1, 5)] for dataset in (tiled, plain))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.targets.boxes, other.targets.boxes)
    assert one.targets.semantic is not None
    assert other.targets.semantic is not None
    assert torch.equal(one.targets.semantic, other.targets.semantic)


def test_an_epoch_has_as_many_windows_as_cover_the_images(root: Path) -> None:
    config = configured(*TILES)
    dataset = open_data(config, root).train_set
    assert config.data.tiles is not None
    count = len(tiles_of((HEIGHT, WIDTH), config.data.tiles))
    assert count == 8
    assert dataset.repeats is not None
    assert dataset.repeats.tolist() == [count, 1]
    loader = TrainLoader(dataset, config.data, batch_size=1, seed=0, epochs=2)
    epochs = [[batch for step in loader.epoch(number) for batch in step] for number in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [9, 9]
    again = [batch for step in loader.epoch(1) for batch in step]
    assert all(torch.equal(a[0].tensor, b[0].tensor) for a, b in zip(epochs[1], again, strict=True))
    shown = [batch[0].tensor for batch in epochs[0] if batch[2][0].image_id == 1]
    assert not all(torch.equal(shown[0], each) for each in shown)
    assert open_data(configured(), root).train_set.repeats is None


def test_limits_follow_the_fullest_window(root: Path) -> None:
    """Not the image, of which no window shows everything."""
    assert opened(root).most_instances == 13
    assert opened(root, "data.tiles.size=100").most_instances == 13, "of the smaller image"
    config = configured("data.tiles.size=20")
    truth = json.loads((root / "annotations" / "instances_train.json").read_text())["annotations"]
    most = 0
    for image, size in ((1, (HEIGHT, WIDTH)), (2, (SIDE, 50))):
        boxes = [entry["bbox"] for entry in truth if entry["image_id"] == image and not entry["iscrowd"]]
        assert config.data.tiles is not None
        for x1, y1, x2, y2 in tiles_of(size, config.data.tiles):
            meeting = [x < x2 and y < y2 and x + w > x1 and y + h > y1 for x, y, w, h in boxes]
            most = max(most, sum(meeting))
    assert open_data(config, root).train_set.most_instances == most


@pytest.mark.parametrize(
    "words",
    [
        ["data.jitter.size=64"],
        ["data.crop.size=48", "data.copy_paste.probability=1"],
        ["data.tiles.around=0", "data.repeat_factor=0.9"],
    ],
)
def test_windows_with_other_augmentation(root: Path, words: list[str]) -> None:
    dataset = opened(root, *TILES, *words)
    for seed in range(4):
        sample = dataset[SampleKey(0, seed)]
        assert torch.equal(sample.image, dataset[SampleKey(0, seed)].image)
        targets = sample.targets
        assert targets.masks is not None
        assert targets.masks.shape[-2:] == sample.image.shape[-2:]
        assert len(targets.masks) == len(targets.boxes) == len(targets.labels)
        assert not len(targets.boxes) or (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()


def test_windows_of_boxes_alone(root: Path) -> None:
    dataset = opened(root, *TILES, "model.cascade.mask_head=null", "data.semantic=none", name="cascade_mask_rcnn_tiny")
    for seed in range(6):
        targets = dataset[SampleKey(0, seed)].targets
        assert targets.masks is None
        assert (targets.boxes >= 0).all()
        assert (targets.boxes <= 64).all()


@pytest.mark.parametrize("span", ["percentile", "minmax", "[20,90]"])
def test_windows_have_the_range_of_the_whole_image(root: Path, span: str, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(30, 10, 30 + SIDE, 10 + SIDE)
    monkeypatch.setattr("dsctool.data.coco.random_window", lambda *_: window)
    grey = ["model.backbone.in_channels=1", "data.mean=[114]", "data.std=[58]", "data.channels=[1]"]
    dataset = opened(root, *TILES, f"data.image_range={span}", *grey)
    whole = read_image(root / "train" / "1.png", (HEIGHT, WIDTH), dataset.channels)
    assert torch.equal(dataset._annotated(0).image, whole[:, 10 : 10 + SIDE, 30 : 30 + SIDE])
    assert whole.shape[0] == 1
    assert not torch.equal(whole, read_image(root / "train" / "1.png")[:1])


def test_losses_of_whole_images_are_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.val_losses=false, or data\.tiles=null"):
        check_sets(configured(*TILES, "train.val_losses=true", "train.eval_interval=1"), root)


def test_it_is_said_what_training_does() -> None:
    assert "windows of 64 pixels" in augmentations(configured(*TILES).data)
    assert "windows" not in augmentations(configured().data)
