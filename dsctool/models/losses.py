"""The losses of the detectors, each a sum over all elements and the count that divides it.

They are float32, whatever precision the network computes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """A loss before it is divided, so that several processes can divide by what they count together.

    total: scalar, with gradients. count: samples, cells or pixels that it is the sum over; 0 counts as 1.
    """

    total: Tensor
    count: float | Tensor

    @property
    def value(self) -> Tensor:
        """The loss, a scalar."""
        return self.total / at_least_one(self.count)

    def __rmul__(self, weight: float) -> Mean:
        return Mean(weight * self.total, self.count)


def at_least_one(count: float | Tensor) -> float | Tensor:
    """What divides where nothing may have been counted."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)


def values(losses: Mapping[str, Mean]) -> dict[str, Tensor]:
    """The scalars, by name."""
    return {name: loss.value for name, loss in losses.items()}


def classification_loss(logits: Tensor, labels: Tensor) -> Mean:
    """Mean cross entropy of ``(R, K+1)`` logits; 0 with gradients where there are no rows."""
    return Mean(F.cross_entropy(logits.float(), labels, reduction="sum"), len(labels))


def box_loss(deltas: Tensor, targets: Tensor, *, beta: float, count: float | Tensor) -> Mean:
    """Smooth L1 of ``(p, 4)`` deltas, summed and divided by ``count``."""
    return Mean(F.smooth_l1_loss(deltas.float(), targets.float(), beta=beta, reduction="sum"), count)


def mask_loss(logits: Tensor, targets: Tensor) -> Mean:
    """Binary cross entropy of the annotated class's logits ``(p, s, s)``, averaged over pixels.

    0 with gradients where there are no positives.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return Mean(total, targets.numel())


def semantic_loss(logits: Tensor, labels: Tensor, *, ignore: int = 255, average_valid: bool = False) -> Mean:
    """Cross entropy of ``(N, C, h, w)`` logits with ``(N, h, w)`` labels.

    Divided by the number of all cells (HTC as published), or with ``average_valid`` of the labelled ones.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignore, reduction="sum")
    return Mean(total, torch.count_nonzero(labels != ignore) if average_valid else labels.numel())
