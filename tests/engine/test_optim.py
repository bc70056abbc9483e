"""The learning rate is the published one at every step; the optimiser takes what trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.config.schema import OptimConfig
from dsctool.engine.optim import (
    build_optimizer,
    build_schedule,
    clip_gradients,
    gradient_norm,
    lr_factor,
    set_learning_rate,
)
from dsctool.models.build import build_detector


def test_linear_scaling_from_the_reference_batch() -> None:
    schedule = build_schedule(
        OptimConfig(lr=0.02, reference_batch=16), effective_batch=2, steps_per_epoch=10, epochs=12
    )
    assert schedule.base_lr == pytest.approx(0.0025)


def test_scaling_can_be_switched_off() -> None:
    schedule = build_schedule(OptimConfig(lr=0.02, scale_lr=False), effective_batch=2, steps_per_epoch=10, epochs=12)
    assert schedule.base_lr == 0.02


def test_published_schedule_step_by_step() -> None:
    """The 1x schedule on 16 images a step: mmcv's linear warm-up, then a tenth after epochs 8 and 11."""
    schedule = build_schedule(OptimConfig(), effective_batch=16, steps_per_epoch=1000, epochs=12)
    for step in (0, 1, 250, 499):
        assert schedule.at(step) == pytest.approx(0.02 * (1 - (1 - step / 500) * (1 - 0.001)))
    assert schedule.at(0) == pytest.approx(0.02 * 0.001)
    for step, rate in {500: 0.02, 7999: 0.02, 8000: 0.002, 10999: 0.002, 11000: 0.0002, 11999: 0.0002}.items():
        assert schedule.at(step) == pytest.approx(rate), step


EPOCH = 7330
"""Steps of 16 images in an epoch of COCO."""
LONG = {
    "detectors_htc_r50_mstrain_40e_coco": {
        0: 0.02 / 3, 250: 0.04 / 3, 499: 0.02 * (1 - 2 / 1500), 500: 0.02,
        263_879: 0.02, 263_880: 0.002, 285_869: 0.002, 285_870: 0.0002, 293_199: 0.0002,
    },
    "cascade_mask_rcnn_r50_fpn_3x_coco": {
        0: 0.00002, 250: 0.01001, 499: 0.02 * (1 - 0.999 / 500), 500: 0.02,
        197_909: 0.02, 197_910: 0.002, 241_889: 0.002, 241_890: 0.0002, 263_879: 0.0002,
    },
    "cascade_rcnn_r50_fpn_20e_coco": {0: 0.00002, 117_279: 0.02, 117_280: 0.002, 139_269: 0.002, 139_270: 0.0002},
}  # fmt: skip
"""Learning rates by step, counted by hand: the warm-up's start, middle and end, and both sides of each drop."""
ALIKE = {
    "detectors_htc_r50_mstrain_40e_coco": "detectors_htc_x101_32x4d_mstrain_40e_coco",
    "cascade_mask_rcnn_r50_fpn_3x_coco": "cascade_rcnn_r50_fpn_3x_coco",
    "cascade_rcnn_r50_fpn_20e_coco": "cascade_mask_rcnn_r50_fpn_20e_coco",
}


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_long_schedules_of_shipped_configurations(name: str, other: bool) -> None:
    config = load_config(ALIKE[name] if other else name)
    schedule = build_schedule(config.optim, effective_batch=16, steps_per_epoch=EPOCH, epochs=config.train.epochs)
    for step, rate in LONG[name].items():
        assert schedule.at(step) == pytest.approx(rate, rel=1e-9), step
    alone = build_schedule(config.optim, effective_batch=1, steps_per_epoch=16 * EPOCH, epochs=config.train.epochs)
    assert alone.at(500) == pytest.approx(0.02 / 16)


def test_detectors_long_recipe_clips() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([42.0, 56.0])  # norm 70
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    limit = load_config("detectors_htc_r50_mstrain_40e_coco").optim.clip_norm
    clip_gradients(optimizer, norm=gradient_norm(optimizer), max_norm=limit)
    assert parameter.grad.tolist() == pytest.approx([21.0, 28.0])


def test_linear_decay_ends_at_zero_and_knows_no_milestones() -> None:
    config = OptimConfig(decay="linear", warmup_steps=4, warmup_factor=0.5, milestones=(1,))
    schedule = build_schedule(config, effective_batch=16, steps_per_epoch=10, epochs=2)
    for step, rate in {0: 0.01, 2: 0.015 * 0.9, 4: 0.02 * 0.8, 10: 0.01, 19: 0.001, 20: 0.0}.items():
        assert schedule.at(step) == pytest.approx(rate), step


def test_cosine_decay_ends_at_zero() -> None:
    """The rates of PyTorch's own schedule at every step, and half of it in the middle of the run."""
    config = OptimConfig(decay="cosine", warmup_steps=4, warmup_factor=0.5, milestones=(1,))
    schedule = build_schedule(config, effective_batch=16, steps_per_epoch=10, epochs=2)
    for step, rate in {0: 0.01, 10: 0.01, 20: 0.0}.items():
        assert schedule.at(step) == pytest.approx(rate, abs=1e-12), step
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        warm = 1 if step >= 4 else 0.5 + step / 8
        assert schedule.at(step) == pytest.approx(warm * theirs.get_last_lr()[0]), step
        optimizer.step()
        theirs.step()


PARTS = {
    "backbone.conv1.weight": ("backbone", 5),
    "backbone.layer1.0.conv2.weight": ("backbone", 4),
    "backbone.layer4.1.bn1.bias": ("backbone", 1),
    "rfp.backbones.0.layer3.0.conv1.weight": ("backbone", 2),
    "rfp.backbones.1.bn1.weight": ("backbone", 5),
    "rfp.fusion.weight": ("neck", 0),
    "neck.lateral_convs.0.conv.weight": ("neck", 0),
    "rpn.deltas.bias": ("rpn", 0),
    "cascade.mask_heads.2.logits.weight": ("cascade", 0),
    "head.weight": (None, 0),
}


@pytest.mark.parametrize("name", PARTS)
def test_rates_by_part_and_stage(name: str) -> None:
    factors = {"backbone": 0.5, "neck": 2.0, "rpn": 3.0, "cascade": 4.0}
    config = OptimConfig.model_validate({"lr_factors": factors, "layer_decay": 0.7})
    part, stages = PARTS[name]
    assert lr_factor(name, config) == pytest.approx(factors.get(part or "", 1.0) * 0.7**stages)
    assert lr_factor(name, OptimConfig()) == 1.0


@pytest.mark.parametrize("name", ["detectors_tiny", "dsc_tiny"])
def test_every_parameter_of_a_detector_belongs_to_a_part(name: str) -> None:
    model = build_detector(fit_limits(load_config(name)), num_classes=3)
    factors = {"backbone": 0.5, "neck": 2.0, "rpn": 3.0, "cascade": 4.0}
    config = OptimConfig.model_validate({"lr_factors": factors, "decay_norms": False, "layer_decay": 0.9})
    groups = build_optimizer(model, config).param_groups
    stages = [0.5 * 0.9**depth for depth in range(1, 6)]
    assert {group["lr_factor"] for group in groups} == {*stages, 2.0, 3.0, 4.0}
    assert sum(len(group["params"]) for group in groups) == len([p for p in model.parameters() if p.requires_grad])
    own = {id(parameter) for part in model.backbones for parameter in part.parameters()}
    for group in groups:
        inside = {id(parameter) in own for parameter in group["params"]}
        assert inside == {group["lr_factor"] in stages}
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


def test_a_step_follows_the_factors() -> None:
    """Plain gradient descent: each weight moves by its own rate times the gradient, and its own decay."""
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1), "cascade": nn.Linear(1, 1)})
    config = OptimConfig.model_validate(
        {"lr_factors": {"backbone": 0.1}, "decay_norms": False, "weight_decay": 0.5, "momentum": 0}
    )
    optimizer = build_optimizer(model, config)
    before = {name: parameter.item() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_learning_rate(optimizer, 0.2)
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate = 0.2 * (0.1 if name.startswith("backbone") else 1)
        decay = 0.5 if name.endswith("weight") else 0.0
        assert parameter.item() == pytest.approx(before[name] - rate * (1 + decay * before[name])), name


def test_no_warmup() -> None:
    schedule = build_schedule(OptimConfig(warmup_steps=0), effective_batch=16, steps_per_epoch=10, epochs=12)
    assert schedule.at(0) == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_only_what_trains_is_optimised_and_all_of_it_decays(kind: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    optimizer = build_optimizer(model, OptimConfig(kind=kind, weight_decay=0.01))
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}
    assert group["weight_decay"] == 0.01


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, [0.6, 0.8]), (None, [3.0, 4.0]), (10.0, [3.0, 4.0])])
def test_clipping(max_norm: float | None, expected: list[float]) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    optimizer = torch.optim.SGD([parameter, nn.Parameter(torch.zeros(1))], lr=1.0)  # the second has no gradient
    norm = gradient_norm(optimizer)
    clip_gradients(optimizer, norm=norm, max_norm=max_norm)
    assert norm.item() == pytest.approx(5.0)
    assert parameter.grad.tolist() == pytest.approx(expected)
