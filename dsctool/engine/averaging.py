"""The moving average of a run's weights, which is what a run with ``train.ema`` measures and gives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dsctool.models.detector import Detector

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: Detector, decay: float, *, updates: int = 0) -> AveragedModel:
    """An average that starts as a copy of ``model``; ``update_parameters(model)`` after a step takes it along.

    Each update keeps ``min(decay, (1 + n) / (10 + n))`` of the average after ``n`` before it, so that the first weights
    are soon forgotten. Statistics of batch norms are averaged like weights; whole numbers are copied.

    updates: how many it has had already, for a run that goes on.
    """
    average = AveragedModel(model, multi_avg_fn=_Toward(decay), use_buffers=True)
    average.n_averaged.fill_(updates)
    average.requires_grad_(False)
    return average


class _Toward:
    """Moves averages to the current values, as PyTorch calls it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averages: Tensors, current: Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        share = 1 - min(self.decay, (1 + count) / (10 + count))
        if averages[0].is_floating_point():  # they come by type
            torch._foreach_lerp_(averages, current, share)
        else:
            torch._foreach_copy_(averages, current)
