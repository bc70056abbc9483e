"""Augmented training sets: what is random follows from seed, epoch and place alone, and every model learns from it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch

from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config, DataConfig, SplitConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import find_split
from dsctool.data.loader import TrainLoader
from dsctool.data.samplers import ALONE, Ranks, SampleKey
from dsctool.data.transforms import Batch
from dsctool.engine.sets import open_data
from dsctool.engine.setup import prepare
from dsctool.engine.step import optimizer_step
from dsctool.errors import ConfigError, DataError

SMALL = (
    "data.train_resize={short_sides: [64], long_side: 96}",
    "data.test_resize={short_sides: [64], long_side: 96}",
    "data.workers=0",
    "train.batch_size=3",
    "train.eval_interval=0",
)
PASTING = ("data.copy_paste={probability: 0.8, instances: [1, 5]}", "data.color={}")
JITTER, CROP = "data.jitter={size: 64, scale: [0.3, 1.6]}", "data.crop={size: 56, min_visible: 0.1}"


def configured(*overrides: str, name: str = "htc_tiny") -> Config:
    return override_config(load_config(name), [*SMALL, *overrides])


def loader(
    dataset: CocoDataset, config: Config, *, workers: int = 0, batch_size: int = 3, ranks: Ranks = ALONE
) -> TrainLoader:
    data = config.data.model_copy(update={"workers": workers})
    return TrainLoader(dataset, data, batch_size=batch_size, seed=7, epochs=3, ranks=ranks)


def same(left: Batch, right: Batch) -> bool:
    """In every pixel and number."""
    fields = ("boxes", "labels", "masks", "crowd", "semantic")
    pairs = [(left[0].tensor, right[0].tensor)]
    pairs += [(getattr(a, name), getattr(b, name)) for a, b in zip(left[1], right[1], strict=True) for name in fields]
    return left[2] == right[2] and all(a is b if a is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("semantic", "cutting"), [("instances", JITTER), ("instances", CROP), ("stuffthingmaps", JITTER), ("none", CROP)]
)
def test_any_worker_and_any_point_of_return_give_the_same_batches(
    synthetic_root: Path, semantic: str, cutting: str
) -> None:
    config = configured(*PASTING, cutting, f"data.semantic={semantic}")
    dataset = open_data(config, synthetic_root).train_set
    with loader(dataset, config) as alone:
        epochs = [list(chain(*alone.epoch(number))) for number in (0, 1)]
        state = torch.get_rng_state()
        assert not any(map(same, *epochs)), "epochs differ"
    with loader(dataset, config, workers=2) as others:
        rest = list(chain(*others.epoch(1, start=1)))
    assert len(rest) == len(epochs[1]) - 1
    assert all(map(same, rest, epochs[1][1:]))
    assert torch.equal(torch.get_rng_state(), state)
    targets = [target for batch in epochs[0] for target in batch[1]]
    assert all((target.semantic is None) == (semantic == "none") for target in targets)
    assert all(target.masks is not None and target.masks.flatten(1).any(1).all() for target in targets)


def test_processes_share_the_augmented_samples_of_one(synthetic_root: Path) -> None:
    config = configured(*PASTING, JITTER)
    dataset = open_data(config, synthetic_root).train_set
    (whole,) = next(loader(dataset, config).epoch(0))
    shares = [loader(dataset, config, batch_size=1, ranks=Ranks(rank, 3)) for rank in range(3)]
    parts = [next(share.epoch(0))[0] for share in shares]
    assert torch.equal(torch.cat([part[0].tensor for part in parts]), whole[0].tensor), "one canvas for all"


def test_jittered_batches_are_all_of_one_shape_and_of_both_orientations(synthetic_root: Path) -> None:
    config = configured(JITTER, "data.group_by_aspect=true")
    dataset = open_data(config, synthetic_root).train_set
    batches = loader(dataset, config)
    assert len(batches) == 3, "8 images: no smaller batch for each orientation"
    assert {tuple(batch[0].tensor.shape[-2:]) for (batch,) in batches.epoch(0)} == {(64, 64)}


def test_a_set_with_pasting_can_be_sent_to_processes_that_are_not_forked(synthetic_root: Path) -> None:
    dataset = open_data(configured(*PASTING, JITTER), synthetic_root).train_set
    there = pickle.loads(pickle.dumps(dataset))
    for seed in range(3):
        assert torch.equal(there[SampleKey(1, seed)].image, dataset[SampleKey(1, seed)].image)


def test_pasting_adds_instances_of_other_images(synthetic_root: Path) -> None:
    plain = open_data(configured(), synthetic_root).train_set
    pasting = open_data(
        configured("data.copy_paste={probability: 1, instances: [2, 5], min_visible: 0}"), synthetic_root
    )
    counts = [
        [len(data[SampleKey(index, seed)].targets.boxes) for index in range(8) for seed in range(2)]
        for data in (plain, pasting.train_set)
    ]
    assert sum(counts[1]) > sum(counts[0]) + 10
    assert pasting.train_set.num_instances == plain.num_instances, "what the data have, not what is made of them"


def test_pasting_needs_masks_and_something_to_paste_from(synthetic_root: Path) -> None:
    files = find_split(synthetic_root, SplitConfig(), "train")
    data = DataConfig.model_validate({"copy_paste": {}})
    with pytest.raises(ConfigError, match=r"data\.copy_paste needs masks"):
        CocoDataset.for_training(files, data, masks=False)


def test_a_second_image_that_cannot_be_read_is_named(tmp_path: Path, synthetic_root: Path) -> None:
    dataset = open_data(configured("data.copy_paste={probability: 1}"), synthetic_root).train_set
    name = dataset.image_info(0).file_name
    (tmp_path / name).symlink_to(dataset.files.images / name)
    dataset.files = replace(dataset.files, images=tmp_path)
    with pytest.raises(DataError, match=r"instances_train\.json: image [2-8]: .*no such file"):
        list(map(dataset.__getitem__, [SampleKey(0, seed) for seed in range(20)]))


def test_boxes_alone_can_be_cut(synthetic_root: Path) -> None:
    config = override_config(
        load_config("cascade_rcnn_r50_fpn_1x_coco"), [*SMALL, CROP, "data.color={}", "model.num_classes=null"]
    )
    dataset = open_data(config, synthetic_root).train_set
    for seed in range(10):
        sample = dataset[SampleKey(0, seed)]
        assert sample.targets.masks is None
        assert sample.image.shape[-2:] <= (56, 56)
        boxes = sample.targets.boxes
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()


@pytest.mark.parametrize(("name", "geometry"), [("htc_tiny", "current"), ("fast_dsc_tiny", "mmdet1")])
def test_models_learn_from_augmented_images(synthetic_root: Path, name: str, geometry: str) -> None:
    """Also from a batch in which nothing is left of any instance, which ``keep_empty: false`` does not prevent."""
    settings = (*PASTING, JITTER, f"model.geometry={geometry}", "data.keep_empty=false", "train.batch_size=1")
    setup = prepare(configured(*settings, name=name), data=synthetic_root, device=torch.device("cpu"))
    (batch,) = next(setup.batches.epoch(0))
    for each in (batch, without_instances(batch)):
        result = optimizer_step(setup.model, setup.optimizer, [each], rate=1e-3, max_norm=35.0)
        assert all(loss.isfinite() for loss in result.losses.values())
        assert result.grad_norm > 0


def without_instances(batch: Batch) -> Batch:
    images, targets, infos = batch
    emptied = []
    for target in targets:
        assert target.masks is not None
        emptied.append(replace(target, boxes=target.boxes[:0], labels=target.labels[:0], masks=target.masks[:0]))
    return images, emptied, infos


def test_crowds_stay_crowds(tmp_path: Path, synthetic_root: Path) -> None:
    """They lose what is covered, and are never pasted."""
    content = json.loads((synthetic_root / "annotations" / "instances_train.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["iscrowd"] = int(number % 3 == 0)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (tmp_path / "train").symlink_to(synthetic_root / "train")
    config = configured("data.copy_paste={probability: 1, instances: [5, 9], min_visible: 0}", "data.flip=0")
    dataset = open_data(config, tmp_path).train_set
    plain = open_data(configured("data.flip=0"), tmp_path).train_set
    smaller = 0
    for index in range(8):
        there, found = (each[SampleKey(index, 3)].targets for each in (plain, dataset))
        assert found.crowd is not None
        assert there.crowd is not None
        assert len(found.crowd) <= len(there.crowd)
        smaller += len(found.crowd) < len(there.crowd) or not torch.equal(found.crowd, there.crowd)
    assert smaller > 0
