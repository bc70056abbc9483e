"""The order of training samples: a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch

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


Batches = list[list[SampleKey]]
"""The samples of each batch of an optimiser step."""


class EpochSteps(Iterable[Batches]):
    """What one process sees in one epoch, from any optimiser step on: the batches of every step.

    Every image comes once, or as ``repeats`` says. Images are shuffled; with ``groups``, a step is filled from one
    group only, and the smaller step that may be left in each group comes last. The same ``(seed, epoch)`` gives the
    same steps, with the same augmentation, wherever the iteration starts, and however many processes and batches share
    a step's images.

    Several processes get equally many images of every step. Where what is left in a group does not go round, images
    of the group come once more: fewer than there are processes.

    groups: group number per image. batch_size: images per batch and process. accumulate: batches per step and process.
    repeats: how often each image comes, on average; every epoch has as many images of each group. None: once.
    """

    def __init__(
        self,
        groups: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        accumulate: int = 1,
        start_step: int = 0,
        ranks: Ranks = ALONE,
        repeats: Repeats | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.start_step = start_step
        self.ranks = ranks
        order = _shuffled(len(groups), seed, epoch) if repeats is None else _drawn(repeats, groups, seed, epoch)
        self._steps = _group_steps(order, groups, batch_size * accumulate * ranks.world)

    def __len__(self) -> int:
        return max(len(self._steps) - self.start_step, 0)

    def __iter__(self) -> Iterator[Batches]:
        before = self._steps[: self.start_step]
        first = sum(map(len, before))
        # Images that come once more have positions behind all others.
        again = sum(map(len, self._steps)) + sum(-len(step) % self.ranks.world for step in before)
        for step in self._steps[self.start_step :]:
            places = list(enumerate(step, start=first))
            first += len(step)
            repeated = list(islice(cycle(step), -len(step) % self.ranks.world))
            places += enumerate(repeated, start=again)
            again += len(repeated)
            own = [
                SampleKey(index, mixed_seed(self.seed, self.epoch, position))
                for position, index in places[self.ranks.rank :: self.ranks.world]
            ]
            yield [own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)]

    @property
    def batches(self) -> list[int]:
        """How many batches each step has."""
        shares = [-(-len(step) // self.ranks.world) for step in self._steps[self.start_step :]]
        return [-(-share // self.batch_size) for share in shares]


def mixed_seed(*numbers: int) -> int:
    """One seed from several non-negative numbers; neighbours give unrelated seeds.

    Zeros at the end change nothing: what a process draws that is alone, the first of several draws too.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def count_steps(groups: Sequence[int], images: int, *, repeats: Repeats | None = None) -> int:
    """Steps per epoch of so many images each: the last of each group may be smaller."""
    once = np.ones(len(groups)) if repeats is None else repeats
    counts = [sum_of_repeats(once[members]) for members in _members(groups)]
    return sum(-(-count // images) for count in counts)


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


def _group_steps(order: Sequence[int], groups: Sequence[int], images: int) -> list[list[int]]:
    """The images of every step of all processes together: first all whole ones, then what is left in each group."""
    members: dict[int, list[int]] = {}
    whole: list[list[int]] = []
    for index in order:
        group = members.setdefault(groups[index], [])
        group.append(index)
        if len(group) == images:
            whole.append(group.copy())
            group.clear()
    return whole + [left for _, left in sorted(members.items()) if left]
