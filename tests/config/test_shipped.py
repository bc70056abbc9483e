"""The shipped configurations say what the published models are."""

from __future__ import annotations

import pytest

from dsctool.config.loading import load_config
from dsctool.config.model_schema import CascadeRcnnConfig, HtcConfig
from dsctool.config.names import list_configs, shipped_paths

NAMES = list(shipped_paths())
PUBLISHED = [name for name in NAMES if name.endswith("_coco")]
TINY = [name for name in NAMES if name.endswith("_tiny")]


def test_all_are_there() -> None:
    assert set(NAMES) >= {
        "htc_r50_fpn_1x_coco",
        "htc_r50_fpn_20e_coco",
        "htc_without_semantic_r50_fpn_1x_coco",
        "htc_r101_fpn_20e_coco",
        "htc_x101_32x4d_fpn_16x1_20e_coco",
        "htc_x101_64x4d_fpn_16x1_20e_coco",
        "cascade_rcnn_r50_fpn_1x_coco",
        "cascade_mask_rcnn_r50_fpn_1x_coco",
        "htc_tiny",
        "cascade_mask_rcnn_tiny",
    }


def test_each_has_one_line_of_description() -> None:
    for config in list_configs():
        assert config.description, config.name
        assert "\n" not in config.description, config.name
        assert load_config(config.name).description == config.description


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short_and_gradients_are_clipped(name: str) -> None:
    assert len(shipped_paths()[name].read_text().splitlines()) <= 15
    assert load_config(name).optim.clip_norm == 35


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe(name: str) -> None:
    config = load_config(name)
    epochs, milestones = (20, (16, 19)) if "_20e_" in name else (12, (8, 11))
    assert (config.train.epochs, config.optim.milestones) == (epochs, milestones)
    assert (config.optim.kind, config.optim.lr, config.optim.reference_batch) == ("sgd", 0.02, 16)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.warmup_steps) == (0.9, 1e-4, 500)
    assert config.train.batch_size == (1 if "_16x1_" in name else 2)
    assert (config.model.num_classes, config.model.backbone.frozen_stages) == (80, 1)
    assert (config.data.keep_empty, config.model.backbone.norm) == (False, "batch")


@pytest.mark.parametrize(
    ("name", "depth", "groups", "width", "weights"),
    [
        ("htc_r50_fpn_1x_coco", 50, 1, 64, "ResNet50_Weights.IMAGENET1K_V1"),
        ("htc_r101_fpn_20e_coco", 101, 1, 64, "ResNet101_Weights.IMAGENET1K_V1"),
        ("htc_x101_32x4d_fpn_16x1_20e_coco", 101, 32, 4, None),
        ("htc_x101_64x4d_fpn_16x1_20e_coco", 101, 64, 4, "ResNeXt101_64X4D_Weights.IMAGENET1K_V1"),
        ("cascade_mask_rcnn_r50_fpn_1x_coco", 50, 1, 64, "ResNet50_Weights.IMAGENET1K_V1"),
    ],
)
def test_backbones(name: str, depth: int, groups: int, width: int, weights: str | None) -> None:
    backbone = load_config(name).model.backbone
    assert (backbone.depth, backbone.groups, backbone.width_per_group, backbone.weights) == (
        depth,
        groups,
        width,
        weights,
    )


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("htc")])
def test_published_htc(name: str) -> None:
    config = load_config(name)
    cascade = config.model.cascade
    assert isinstance(cascade, HtcConfig)
    assert cascade.low_quality_matches
    assert config.postprocess.score_threshold == 0.001
    assert config.data.semantic == ("none" if "without_semantic" in name else "stuffthingmaps")


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("cascade")])
def test_published_cascade_rcnn(name: str) -> None:
    config = load_config(name)
    cascade = config.model.cascade
    assert isinstance(cascade, CascadeRcnnConfig)
    assert not cascade.low_quality_matches
    assert config.postprocess.score_threshold == 0.05
    assert config.data.semantic == "none"
    assert (cascade.mask_head is not None) == ("mask" in name)


@pytest.mark.parametrize("name", TINY)
def test_tiny_configs_train_from_scratch_on_small_batches(name: str) -> None:
    config = load_config(name)
    backbone = config.model.backbone
    assert (backbone.frozen_stages, backbone.weights, backbone.norm) == (-1, None, "group")
    assert not backbone.freeze_norm_statistics
    assert config.data.keep_empty
    assert config.model.num_classes is None
    assert config.data.train_resize.short_sides == config.data.test_resize.short_sides == (256,)
