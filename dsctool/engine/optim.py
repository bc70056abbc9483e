"""The optimiser and its learning rate, a pure function of the step."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from dsctool.config.schema import OptimConfig


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a drop at each milestone, or a straight line or half a wave to zero.

    base_lr: learning rate after the warm-up, scaled to the effective batch.
    warmup_steps, warmup_factor: step i of the warm-up uses ``lr * (1 - (1 - i / warmup_steps) * (1 - warmup_factor))``.
    milestones: optimiser steps from which the learning rate is multiplied by ``gamma`` once more.
    steps: optimiser steps of the whole run, over which the rate falls to zero; None: it does not.
    shape: how it falls: with the share ``t`` of the run, ``1 - t`` or ``(1 + cos(pi t)) / 2`` (Loshchilov and Hutter
        2017, without restarts).
    """

    base_lr: float
    warmup_steps: int
    warmup_factor: float
    milestones: tuple[int, ...]
    gamma: float
    steps: int | None = None
    shape: Literal["linear", "cosine"] = "linear"

    def at(self, step: int) -> float:
        """Learning rate of the 0-based optimiser step ``step``."""
        rate = self.base_lr * self.gamma ** bisect_right(self.milestones, step)
        if self.steps is not None:
            done = step / self.steps
            rate *= 1 - done if self.shape == "linear" else (1 + math.cos(math.pi * done)) / 2
        if step < self.warmup_steps:
            rate *= 1 - (1 - step / self.warmup_steps) * (1 - self.warmup_factor)
        return rate


def build_schedule(
    config: OptimConfig, *, effective_batch: int, steps_per_epoch: int, epochs: int, steps: int | None = None
) -> Schedule:
    """The schedule for ``effective_batch`` images a step: linear scaling from ``config.reference_batch``.

    steps: of the whole run, where it does not end with an epoch.
    """
    scale = effective_batch / config.reference_batch if config.scale_lr else 1.0
    milestones = config.milestones if config.decay == "milestones" else ()
    return Schedule(
        base_lr=config.lr * scale,
        warmup_steps=config.warmup_steps,
        warmup_factor=config.warmup_factor,
        milestones=tuple(sorted(epoch * steps_per_epoch for epoch in milestones)),
        gamma=config.gamma,
        steps=None if config.decay == "milestones" else steps or epochs * steps_per_epoch,
        shape="cosine" if config.decay == "cosine" else "linear",
    )


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that train, in groups of one learning rate and weight decay each.

    As published there is one group, and weight decay applies to all of it.
    """
    groups = parameter_groups(model, config)
    match config.kind:
        case "sgd":
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        case "adamw":
            return torch.optim.AdamW(
                groups,
                lr=config.lr,
                betas=(config.momentum, 0.999),
                weight_decay=config.weight_decay,
                fused=True,
            )


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """What trains, as PyTorch's optimisers take it: ``params``, ``weight_decay`` and ``lr_factor`` of each group."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = config.decay_norms or parameter.ndim > 1
            key = (lr_factor(name, config), config.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


_BACKBONE = re.compile(r"(?:backbone|rfp\.backbones\.\d+)\.(?:layer(\d)\.)?")
_TOP_STAGE = 4
_PARTS = {"neck": "neck", "rfp": "neck", "rpn": "rpn", "cascade": "cascade"}


def lr_factor(name: str, config: OptimConfig) -> float:
    """What the learning rate of the parameter of this name is multiplied by; 1 where it is of no part of a detector."""
    factors = config.lr_factors
    if backbone := _BACKBONE.match(name):
        stage = int(backbone[1] or 0)  # 0: the stem
        return factors.backbone * config.layer_decay ** (_TOP_STAGE + 1 - stage)
    part = _PARTS.get(name.partition(".")[0])
    return 1.0 if part is None else getattr(factors, part)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` in the next step, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)  # states of older runs have none


def gradient_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """The joint L2 norm of all gradients, a scalar on their device."""
    return nn.utils.get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])


def clip_gradients(optimizer: torch.optim.Optimizer, *, norm: torch.Tensor, max_norm: float | None) -> None:
    """Scale the gradients, whose joint L2 norm is ``norm``, down to ``max_norm`` (None: leave them)."""
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(_parameters(optimizer), max_norm, norm)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
