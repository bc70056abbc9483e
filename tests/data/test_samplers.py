"""The order of training samples."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
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
