"""The order of training samples: a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which image to load, and the seed of its augmentation."""

    index: int
    seed: int


class EpochBatches(Sampler[list[SampleKey]]):
    """The batches of one epoch, from any batch on.

    Every image comes once. Images are shuffled; with ``groups``, a batch is filled from one group only,
    and the smaller batch that may be left in each group comes last. The same ``(seed, epoch)`` gives the
    same batches, with the same augmentation, wherever the iteration starts.

    groups: group number per image.
    """

    def __init__(self, groups: Sequence[int], *, batch_size: int, seed: int, epoch: int, start_batch: int = 0) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.start_batch = start_batch
        self._batches = _group_batches(_shuffled(len(groups), seed, epoch), groups, batch_size)

    def __len__(self) -> int:
        return max(len(self._batches) - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        position = sum(map(len, self._batches[: self.start_batch]))
        for batch in self._batches[self.start_batch :]:
            seeds = (mixed_seed(self.seed, self.epoch, position + offset) for offset in range(len(batch)))
            yield [SampleKey(index, seed) for index, seed in zip(batch, seeds, strict=True)]
            position += len(batch)


def mixed_seed(*numbers: int) -> int:
    """One seed from several non-negative numbers; neighbours give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def count_batches(groups: Sequence[int], batch_size: int) -> int:
    """Batches per epoch: the last of each group may be smaller."""
    counts = np.unique(np.asarray(groups, dtype=np.int64), return_counts=True)[1]
    return int(sum(-(-count // batch_size) for count in counts))


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _group_batches(order: Sequence[int], groups: Sequence[int], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    open_batches: dict[int, list[int]] = {}
    for index in order:
        batch = open_batches.setdefault(groups[index], [])
        batch.append(index)
        if len(batch) == batch_size:
            batches.append(open_batches.pop(groups[index]))
    return batches + [open_batches[group] for group in sorted(open_batches)]
