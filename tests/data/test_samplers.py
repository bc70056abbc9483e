"""The order of training samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
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
