"""The optimiser and its learning rate, a pure function of the step."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch import nn

from dsctool.config.schema import OptimConfig


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a drop at each milestone or a straight line to zero.

    base_lr: learning rate after the warm-up, scaled to the effective batch.
    warmup_steps, warmup_factor: step i of the warm-up uses ``lr * (1 - (1 - i / warmup_steps) * (1 - warmup_factor))``.
    milestones: optimiser steps from which the learning rate is multiplied by ``gamma`` once more.
    steps: optimiser steps of the whole run, over which the rate falls to zero in a straight line; None: it does not.
    """

    base_lr: float
    warmup_steps: int
    warmup_factor: float
    milestones: tuple[int, ...]
    gamma: float
    steps: int | None = None

    def at(self, step: int) -> float:
        """Learning rate of the 0-based optimiser step ``step``."""
        rate = self.base_lr * self.gamma ** bisect_right(self.milestones, step)
        if self.steps is not None:
            rate *= 1 - step / self.steps
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
        steps=(steps or epochs * steps_per_epoch) if config.decay == "linear" else None,
    )


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that train; weight decay applies to all of them, as published."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match config.kind:
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        case "adamw":
            return torch.optim.AdamW(
                parameters,
                lr=config.lr,
                betas=(config.momentum, 0.999),
                weight_decay=config.weight_decay,
                fused=True,
            )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` for every parameter in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def gradient_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """The joint L2 norm of all gradients, a scalar on their device."""
    return nn.utils.get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])


def clip_gradients(optimizer: torch.optim.Optimizer, *, norm: torch.Tensor, max_norm: float | None) -> None:
    """Scale the gradients, whose joint L2 norm is ``norm``, down to ``max_norm`` (None: leave them)."""
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(_parameters(optimizer), max_norm, norm)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
