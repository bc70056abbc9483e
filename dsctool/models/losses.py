"""The losses of the detectors, each a sum over all elements divided by a count the caller states.

They are float32, whatever precision the network computes in.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of ``(R, K+1)`` logits; 0 with gradients where there are no rows."""
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(len(labels), 1)


def box_loss(deltas: Tensor, targets: Tensor, *, beta: float, count: float) -> Tensor:
    """Smooth L1 of ``(p, 4)`` deltas, summed and divided by ``count``."""
    return F.smooth_l1_loss(deltas.float(), targets.float(), beta=beta, reduction="sum") / count


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of the annotated class's logits ``(p, s, s)``, averaged over pixels.

    0 with gradients where there are no positives.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return total / max(targets.numel(), 1)


def semantic_loss(logits: Tensor, labels: Tensor, *, ignore: int = 255, average_valid: bool = False) -> Tensor:
    """Cross entropy of ``(N, C, h, w)`` logits with ``(N, h, w)`` labels.

    Divided by the number of all cells (HTC as published), or with ``average_valid`` of the labelled ones.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignore, reduction="sum")
    count = (labels != ignore).sum().clamp(min=1) if average_valid else labels.numel()
    return total / count
