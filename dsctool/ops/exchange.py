"""What keeps the host from waiting for the device: whatever it reads, and whatever it sends, stalls a GPU.

Numbers are filled in where they are needed, not sent; sizes that depend on values are read for many tensors at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def vector_like(like: Tensor, *values: float) -> Tensor:
    """``like.new_tensor(values)``, filled in on its device instead of copied to it."""
    return torch.stack([like.new_full((), value) for value in values])


def count_true(masks: Sequence[Tensor]) -> list[int]:
    """How many values of each mask, bool, are true: one read of the device for all."""
    counts: list[int] = torch.stack([mask.count_nonzero() for mask in masks]).tolist() if masks else []
    return counts


def ranked_rows(mask: Tensor, ranks: Tensor) -> Tensor:
    """Where ``mask (n,)`` is true for the first time, or for the one of rank r, from 0: ``(m,)`` of ranks, int64."""
    return torch.searchsorted(mask.cumsum(0), ranks + 1)


def rows_where(masks: Sequence[Tensor]) -> list[Tensor]:
    """Where each of the masks ``(n_i,)``, bool, is true: ascending indices, int64. One read of the device for all."""
    if not masks or masks[0].device.type == "cpu":  # where reading costs nothing
        return [mask.nonzero().flatten() for mask in masks]
    counts = count_true(masks)
    ranks = torch.arange(max(counts), device=masks[0].device)
    return [ranked_rows(mask, ranks[:count]) for mask, count in zip(masks, counts, strict=True)]
