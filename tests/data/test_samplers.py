"""The order of training samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsctool.data.samplers import EpochBatches, Ranks, SampleKey, count_batches, mixed_seed

groups_lists = st.lists(st.integers(0, 1), min_size=1, max_size=60)
sizes = st.integers(1, 7)
worlds = st.integers(1, 5)


@given(groups_lists, sizes, st.integers(0, 9), st.integers(0, 9))
def test_every_image_comes_once_in_batches_of_one_group(
    groups: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = list(EpochBatches(groups, batch_size=batch_size, seed=seed, epoch=epoch))
    assert sorted(key.index for batch in batches for key in batch) == list(range(len(groups)))
    assert all(len({groups[key.index] for key in batch}) == 1 for batch in batches)
    assert all(len(batch) <= batch_size for batch in batches)
    assert sum(len(batch) < batch_size for batch in batches) <= 2
    assert len(batches) == count_batches(groups, batch_size)


def shares(groups: list[int], batch_size: int, world: int) -> list[list[list[SampleKey]]]:
    """The batches of every process."""
    return [
        list(EpochBatches(groups, batch_size=batch_size, seed=3, epoch=5, ranks=Ranks(rank, world)))
        for rank in range(world)
    ]


@given(groups_lists, sizes, worlds)
def test_processes_share_the_batches_of_one(groups: list[int], batch_size: int, world: int) -> None:
    """What a step of one process with a batch for all would hold, and nothing else but what makes the parts equal."""
    alone = EpochBatches(groups, batch_size=batch_size * world, seed=3, epoch=5)
    ranks = shares(groups, batch_size, world)
    assert {len(batches) for batches in ranks} == {count_batches(groups, batch_size, world=world)} == {len(alone)}
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) <= batch_size
        dealt = Counter(key.index for part in parts for key in part)
        repeated = dealt - Counter(key.index for key in whole)
        assert dealt.keys() >= {key.index for key in whole}
        assert repeated.total() < world
        assert len({groups[index] for index in dealt}) == 1


@given(groups_lists, sizes, worlds)
def test_an_epoch_of_all_processes_holds_every_image(groups: list[int], batch_size: int, world: int) -> None:
    keys = [key for batches in shares(groups, batch_size, world) for batch in batches for key in batch]
    counts = Counter(key.index for key in keys)
    assert sorted(counts) == list(range(len(groups)))
    again = Counter(groups[index] for index in (counts - Counter(range(len(groups)))).elements())
    assert again == {group: -count % world for group, count in Counter(groups).items() if count % world}
    assert len({key.seed for key in keys}) == len(keys), "also an image that comes again looks otherwise"


@given(groups_lists, sizes, st.integers(0, 30), worlds, st.data())
def test_starting_later_gives_the_same_rest(
    groups: list[int], batch_size: int, start: int, world: int, data: st.DataObject
) -> None:
    ranks = Ranks(data.draw(st.integers(0, world - 1)), world)
    whole = list(EpochBatches(groups, batch_size=batch_size, seed=3, epoch=5, ranks=ranks))
    rest = EpochBatches(groups, batch_size=batch_size, seed=3, epoch=5, start_batch=start, ranks=ranks)
    assert list(rest) == whole[start:]
    assert len(rest) == len(whole[start:])


def test_seed_and_epoch_change_order_and_augmentation() -> None:
    def keys(seed: int, epoch: int) -> list[tuple[int, int]]:
        batches = EpochBatches([0] * 30, batch_size=4, seed=seed, epoch=epoch)
        return [(key.index, key.seed) for batch in batches for key in batch]

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
@given(repeated(), sizes, worlds, st.integers(0, 3))
def test_images_come_as_often_as_they_should(
    data: tuple[list[int], np.ndarray], batch_size: int, world: int, epoch: int
) -> None:
    """Each its number rounded up or down, but for few; every epoch has as many of each group, and as many batches."""
    groups, repeats = data
    dealt: list[list[SampleKey]] = []
    for rank in range(world):
        ranks = Ranks(rank, world)
        batches = EpochBatches(groups, batch_size=batch_size, seed=3, epoch=epoch, ranks=ranks, repeats=repeats)
        assert len(list(batches)) == count_batches(groups, batch_size, world=world, repeats=repeats)
        dealt += batches
    assert all(len({groups[key.index] for key in batch}) == 1 for batch in dealt)
    assert len({key.seed for batch in dealt for key in batch}) == sum(map(len, dealt))
    alone = EpochBatches(groups, batch_size=batch_size * world, seed=3, epoch=epoch, repeats=repeats)
    counts = Counter(key.index for batch in alone for key in batch)
    for index, number in enumerate(repeats):
        assert np.floor(number) <= counts[index] <= np.floor(number) + 2
    for group in {0, 1}:
        members = [index for index, own in enumerate(groups) if own == group]
        total = sum(counts[index] for index in members)
        assert abs(total - repeats[members].sum()) <= 0.5 + 1e-9


@settings(max_examples=30, deadline=None)
@given(repeated(), sizes, st.integers(0, 30), worlds)
def test_repeated_images_after_a_return(
    data: tuple[list[int], np.ndarray], batch_size: int, start: int, world: int
) -> None:
    def batches(start: int) -> list[list[SampleKey]]:
        ranks = Ranks(world - 1, world)
        return list(
            EpochBatches(
                data[0], batch_size=batch_size, seed=3, epoch=5, start_batch=start, ranks=ranks, repeats=data[1]
            )
        )

    assert batches(start) == batches(0)[start:]


def test_on_average_images_come_as_often_as_they_should() -> None:
    repeats = np.array([1.0, 1.25, 2.5, 0.1, 3.75, 0.0, 1.4])
    counts: Counter[int] = Counter()
    for epoch in range(400):
        batches = EpochBatches([0] * 7, batch_size=2, seed=1, epoch=epoch, repeats=repeats)
        counts.update(key.index for batch in batches for key in batch)
    assert [counts[index] / 400 for index in range(7)] == pytest.approx(repeats, abs=0.08)


def test_once_each_is_what_it_was_without_repeats_but_for_the_order() -> None:
    plain = EpochBatches([0, 1] * 5, batch_size=2, seed=1, epoch=0)
    once = EpochBatches([0, 1] * 5, batch_size=2, seed=1, epoch=0, repeats=np.ones(10))
    assert sorted(k.index for b in plain for k in b) == sorted(k.index for b in once for k in b) == list(range(10))
