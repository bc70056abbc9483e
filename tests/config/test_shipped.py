"""The shipped configurations say what the published models are."""

from __future__ import annotations

import pytest

from dsctool.config.loading import load_config
from dsctool.config.model_schema import CascadeRcnnConfig, HtcConfig
from dsctool.config.names import list_configs, shipped_paths
from dsctool.config.schema import ResizeConfig

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


SCHEDULES = {"_1x_": (12, (8, 11)), "_20e_": (20, (16, 19)), "_3x_": (36, (27, 33)), "_40e_": (40, (36, 39))}
"""Epochs, and those after which the rate drops."""
SEVERAL_SIZES = {
    "_3x_": ((640, 800), 1333),
    "mstrain_40e": ((400, 1200), 1333),
    "mstrain_400_1400": ((400, 1400), 1600),
}
"""Shorter sides, any whole number between them, and the longest longer one."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    data = load_config(name).data
    one = ResizeConfig(short_sides=(800,), long_side=1333)
    several = [
        ResizeConfig(short_sides=sides, sample="range", long_side=longest)
        for words, (sides, longest) in SEVERAL_SIZES.items()
        if words in name
    ]
    assert data.train_resize == (several or [one])[0]
    assert data.test_resize == one, "also after training on several sizes"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TINY])
def test_training_starts_and_averages_as_that_of_the_published_weights(name: str) -> None:
    config = load_config(name)
    cascade, rfp = config.model.cascade, config.model.neck.rfp
    choices = {
        "mask head": getattr(getattr(cascade, "mask_head", None), "init", None),
        "semantic": None if cascade.semantic_branch is None else cascade.semantic_branch.loss_average,
        "ASPP": None if rfp is None else rfp.aspp_init,
        "feedback": None if rfp is None else rfp.feedback_init,
    }
    boxes_only = name.startswith(("cascade_rcnn", "detectors_cascade_rcnn"))
    semantic = not boxes_only and not name.startswith("cascade_mask_rcnn")
    recursive = "detectors" in name or "_rfp_" in name
    assert choices == {
        "mask head": None if boxes_only else "kaiming",
        "semantic": "valid_pixels" if semantic else None,
        "ASPP": "kaiming" if recursive else None,
        "feedback": "zeros" if recursive else None,
    }


@pytest.mark.parametrize("name", ["htc_r50_fpn_1x_coco", "dsc_r50_fpn_1x_coco"])
def test_another_key_of_a_block_leaves_these_choices(name: str) -> None:
    changed = load_config(name, ["model.cascade.mask_head.convs=2", "model.cascade.semantic.convs=2"]).model.cascade
    assert not isinstance(changed, CascadeRcnnConfig)
    assert (changed.mask_head.init, changed.semantic.loss_average) == ("kaiming", "valid_pixels")


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_is_measured_with_soft_suppression(name: str) -> None:
    soft = name == "detectors_htc_x101_32x4d_mstrain_40e_coco"
    assert load_config(name).postprocess.nms == ("soft" if soft else "box")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe(name: str) -> None:
    config = load_config(name)
    epochs, milestones = next(schedule for words, schedule in SCHEDULES.items() if words in name)
    assert (config.train.epochs, config.optim.milestones) == (epochs, milestones)
    assert (config.optim.kind, config.optim.lr, config.optim.reference_batch) == ("sgd", 0.02, 16)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.warmup_steps) == (0.9, 1e-4, 500)
    assert config.optim.warmup_factor == (1 / 3 if "_40e_" in name else 0.001)
    assert config.train.batch_size == (1 if "_16x1_" in name or "x101_32x4d_mstrain_40e" in name else 2)
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
