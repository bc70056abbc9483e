"""The order of training samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsctool.data.samplers import EpochBatches, count_batches, mixed_seed

groups_lists = st.lists(st.integers(0, 1), min_size=1, max_size=60)
sizes = st.integers(1, 7)


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


@given(groups_lists, sizes, st.integers(0, 30))
def test_starting_later_gives_the_same_rest(groups: list[int], batch_size: int, start: int) -> None:
    whole = list(EpochBatches(groups, batch_size=batch_size, seed=3, epoch=5))
    rest = EpochBatches(groups, batch_size=batch_size, seed=3, epoch=5, start_batch=start)
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
