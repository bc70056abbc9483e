"""The order of training samples: a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch
from torch.utils.data import Sampler

from dsctool.data.repeats import Repeats, sum_of_repeats, whole_repeats
from dsctool.rle import Ints


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which image to load, and the seed of its augmentation."""

    index: int
    seed: int


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of the processes that train together this one is.

    rank: from 0. world: how many there are.
    """

    rank: int = 0
    world: int = 1


ALONE = Ranks()
"""A run in one process."""


class EpochBatches(Sampler[list[SampleKey]]):
    """The batches that one process sees in one epoch, from any batch on.

    Every image comes once, or as ``repeats`` says. Images are shuffled; with ``groups``, a batch is filled from one
    group only, and the smaller batch that may be left in each group comes last. The same ``(seed, epoch)`` gives the
    same batches, with the same augmentation, wherever the iteration starts.

    Several processes share out the batches of one process that takes ``batch_size`` images for each of them, so that
    at every step all have equally many images, of one group. Where what is left in a group does not go round, images
    of the group come once more: fewer than there are processes.

    groups: group number per image. batch_size: images per batch and process.
    repeats: how often each image comes, on average; every epoch has as many images of each group. None: once.
    """

    def __init__(
        self,
        groups: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        ranks: Ranks = ALONE,
        repeats: Repeats | None = None,
    ) -> None:
        self.seed = seed
        self.epoch = epoch
        self.start_batch = start_batch
        self.ranks = ranks
        order = _shuffled(len(groups), seed, epoch) if repeats is None else _drawn(repeats, groups, seed, epoch)
        self._batches = _group_batches(order, groups, batch_size, ranks.world)

    def __len__(self) -> int:
        return max(len(self._batches) - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        position = sum(map(len, self._batches[: self.start_batch]))
        for batch in self._batches[self.start_batch :]:
            own = range(self.ranks.rank, len(batch), self.ranks.world)
            yield [SampleKey(batch[i], mixed_seed(self.seed, self.epoch, position + i)) for i in own]
            position += len(batch)


def mixed_seed(*numbers: int) -> int:
    """One seed from several non-negative numbers; neighbours give unrelated seeds.

    Zeros at the end change nothing: what a process draws that is alone, the first of several draws too.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def count_batches(groups: Sequence[int], batch_size: int, *, world: int = 1, repeats: Repeats | None = None) -> int:
    """Batches per epoch and process: the last of each group may be smaller."""
    once = np.ones(len(groups)) if repeats is None else repeats
    counts = [sum_of_repeats(once[members]) for members in _members(groups)]
    return sum(-(-count // (batch_size * world)) for count in counts)


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _drawn(repeats: Repeats, groups: Sequence[int], seed: int, epoch: int) -> list[int]:
    """Images as often as they come, in random order."""
    generator = np.random.default_rng(mixed_seed(seed, epoch))
    counts = np.zeros(len(groups), dtype=np.int64)
    for members in _members(groups):
        counts[members] = whole_repeats(repeats[members], generator)
    order: list[int] = generator.permutation(np.repeat(np.arange(len(groups)), counts)).tolist()
    return order


def _members(groups: Sequence[int]) -> list[Ints]:
    """The images of each group."""
    numbers = np.asarray(groups, dtype=np.int64)
    return [np.flatnonzero(numbers == group) for group in np.unique(numbers)]


def _group_batches(order: Sequence[int], groups: Sequence[int], batch_size: int, world: int) -> list[list[int]]:
    """The batches of all processes together: first all whole ones, then what is left in each group."""
    members: dict[int, list[int]] = {}
    whole: list[list[int]] = []
    size = batch_size * world
    for index in order:
        group = members.setdefault(groups[index], [])
        group.append(index)
        if len(group) % size == 0:
            whole.append(group[-size:])
    left = [(group, group[len(group) // size * size :]) for _, group in sorted(members.items())]
    return whole + [tail + list(islice(cycle(group), -len(tail) % world)) for group, tail in left if tail]
