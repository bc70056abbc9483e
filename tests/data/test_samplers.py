"""The order of training samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsctool.data.samplers import Batches, EpochSteps, Ranks, SampleKey, count_steps, mixed_seed

groups_lists = st.lists(st.integers(0, 1), min_size=1, max_size=60)
sizes = st.integers(1, 7)
few = st.integers(1, 5)


def keys_of(steps: Iterable[Batches]) -> list[list[SampleKey]]:
    """The samples of each step."""
    return [[key for batch in step for key in batch] for step in steps]


@given(groups_lists, sizes, few, st.integers(0, 9), st.integers(0, 9))
def test_every_image_comes_once_in_steps_of_one_group(
    groups: list[int], batch_size: int, accumulate: int, seed: int, epoch: int
) -> None:
    order = EpochSteps(groups, batch_size=batch_size, accumulate=accumulate, seed=seed, epoch=epoch)
    steps = list(order)
    keys = keys_of(steps)
    assert sorted(key.index for step in keys for key in step) == list(range(len(groups)))
    assert all(len({groups[key.index] for key in step}) == 1 for step in keys)
    assert sum(len(step) < batch_size * accumulate for step in keys) <= 2
    assert all(len(batch) == batch_size for step in steps for batch in step[:-1])
    assert all(0 < len(step[-1]) <= batch_size for step in steps)
    assert [len(step) for step in steps] == order.batches
    assert len(steps) == len(order) == count_steps(groups, batch_size * accumulate)


def shares(groups: list[int], batch_size: int, accumulate: int, world: int) -> list[EpochSteps]:
    """The steps of every process."""
    return [
        EpochSteps(groups, batch_size=batch_size, accumulate=accumulate, seed=3, epoch=5, ranks=Ranks(rank, world))
        for rank in range(world)
    ]


@given(groups_lists, sizes, few, few)
def test_processes_share_the_steps_of_one(groups: list[int], batch_size: int, accumulate: int, world: int) -> None:
    """What a step of one process with a batch for all would hold, and nothing else but what makes the parts equal."""
    alone = EpochSteps(groups, batch_size=batch_size * accumulate * world, seed=3, epoch=5)
    ranks = shares(groups, batch_size, accumulate, world)
    assert len({tuple(rank.batches) for rank in ranks}) == 1, "all take part in every exchange"
    again = Counter[int]()
    for (whole,), *parts in zip(alone, *map(keys_of, ranks), strict=True):
        assert len({len(part) for part in parts}) == 1
        dealt = [part[i] for i in range(len(parts[0])) for part in parts]
        assert dealt[: len(whole)] == whole, "with the same augmentation"
        repeated = dealt[len(whole) :]
        assert len(repeated) < world
        again.update(groups[key.index] for key in repeated)
        assert {groups[key.index] for key in dealt} == {groups[whole[0].index]}
    assert again == {group: -count % world for group, count in Counter(groups).items() if count % world}
    keys = [key for rank in ranks for step in keys_of(rank) for key in step]
    assert len({key.seed for key in keys}) == len(keys), "also an image that comes again looks otherwise"


@given(groups_lists, sizes, few, st.integers(0, 30), few, st.data())
def test_starting_later_gives_the_same_rest(
    groups: list[int], batch_size: int, accumulate: int, start: int, world: int, data: st.DataObject
) -> None:
    ranks = Ranks(data.draw(st.integers(0, world - 1)), world)

    def steps(start: int) -> EpochSteps:
        return EpochSteps(
            groups, batch_size=batch_size, accumulate=accumulate, seed=3, epoch=5, start_step=start, ranks=ranks
        )

    whole, rest = steps(0), steps(start)
    assert list(rest) == list(whole)[start:]
    assert rest.batches == whole.batches[start:]
    assert len(rest) == len(rest.batches)


def test_seed_and_epoch_change_order_and_augmentation() -> None:
    def keys(seed: int, epoch: int) -> list[tuple[int, int]]:
        steps = EpochSteps([0] * 30, batch_size=4, seed=seed, epoch=epoch)
        return [(key.index, key.seed) for step in keys_of(steps) for key in step]

    runs = [keys(0, 0), keys(0, 1), keys(1, 0)]
    assert len({tuple(index for index, _ in run) for run in runs}) == 3
    assert len({seed for run in runs for _, seed in run}) == 90


def test_seeds_fit_torch() -> None:
    assert all(0 <= mixed_seed(0, epoch, position) < 2**63 for epoch in range(20) for position in range(20))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_first_process_draws_what_a_lone_one_does(seed: int, step: int) -> None:
    assert mixed_seed(seed, step, 0) == mixed_seed(seed, step)
    assert mixed_seed(seed, step, 1) != mixed_seed(seed, step)


@st.composite
def repeated(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """Groups, and how often each image comes."""
    groups = draw(groups_lists)
    repeats = st.one_of(st.floats(0, 4), st.integers(0, 3).map(float), st.just(1.0))
    return groups, np.array(draw(st.lists(repeats, min_size=len(groups), max_size=len(groups))))


@settings(max_examples=40, deadline=None)
@given(repeated(), sizes, few, st.integers(0, 3))
def test_images_come_as_often_as_they_should(
    data: tuple[list[int], np.ndarray], batch_size: int, world: int, epoch: int
) -> None:
    """Each its number rounded up or down, but for few; every epoch has as many of each group, and as many batches."""
    groups, repeats = data
    dealt: list[list[SampleKey]] = []
    for rank in range(world):
        ranks = Ranks(rank, world)
        steps = EpochSteps(groups, batch_size=batch_size, seed=3, epoch=epoch, ranks=ranks, repeats=repeats)
        assert len(steps) == count_steps(groups, batch_size * world, repeats=repeats)
        dealt += keys_of(steps)
    assert all(len({groups[key.index] for key in batch}) == 1 for batch in dealt)
    assert len({key.seed for batch in dealt for key in batch}) == sum(map(len, dealt))
    alone = EpochSteps(groups, batch_size=batch_size * world, seed=3, epoch=epoch, repeats=repeats)
    counts = Counter(key.index for step in keys_of(alone) for key in step)
    for index, number in enumerate(repeats):
        assert np.floor(number) <= counts[index] <= np.floor(number) + 2
    for group in {0, 1}:
        members = [index for index, own in enumerate(groups) if own == group]
        total = sum(counts[index] for index in members)
        assert abs(total - repeats[members].sum()) <= 0.5 + 1e-9


@settings(max_examples=30, deadline=None)
@given(repeated(), sizes, st.integers(0, 30), few)
def test_repeated_images_after_a_return(
    data: tuple[list[int], np.ndarray], batch_size: int, start: int, world: int
) -> None:
    def steps(start: int) -> list[Batches]:
        ranks = Ranks(world - 1, world)
        order = EpochSteps(
            data[0],
            batch_size=batch_size,
            accumulate=2,
            seed=3,
            epoch=5,
            start_step=start,
            ranks=ranks,
            repeats=data[1],
        )
        return list(order)

    assert steps(start) == steps(0)[start:]


def test_on_average_images_come_as_often_as_they_should() -> None:
    repeats = np.array([1.0, 1.25, 2.5, 0.1, 3.75, 0.0, 1.4])
    counts: Counter[int] = Counter()
    for epoch in range(400):
        steps = EpochSteps([0] * 7, batch_size=2, seed=1, epoch=epoch, repeats=repeats)
        counts.update(key.index for step in keys_of(steps) for key in step)
    assert [counts[index] / 400 for index in range(7)] == pytest.approx(repeats, abs=0.08)


def test_once_each_is_what_it_was_without_repeats_but_for_the_order() -> None:
    plain = EpochSteps([0, 1] * 5, batch_size=2, seed=1, epoch=0)
    once = EpochSteps([0, 1] * 5, batch_size=2, seed=1, epoch=0, repeats=np.ones(10))
    for order in (plain, once):
        assert sorted(key.index for step in keys_of(order) for key in step) == list(range(10))
