"""Validation images taken from the training images."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsctool.data.holdout import held_out
from dsctool.data.records import ImageInfo


def images(wide: int, high: int) -> list[ImageInfo]:
    shapes = [(20, 10)] * wide + [(10, 20)] * high
    return [ImageInfo(7 * number + 3, f"{number}.jpg", *shape) for number, shape in enumerate(shapes)]


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.99), st.integers(0, 9))
def test_both_orientations_give_their_share(wide: int, high: int, share: float, seed: int) -> None:
    infos = images(wide, high)
    chosen = held_out(infos, share, seed)
    assert chosen <= set(range(len(infos)))
    if len(infos) > 1:
        assert 0 < len(chosen) < len(infos)
        of_wide = sum(infos[place].width == 20 for place in chosen)
        assert abs(of_wide - share * wide) <= 1
        assert abs(len(chosen) - of_wide - share * high) <= 1


def test_ids_and_seed_decide_and_not_the_order_of_the_file() -> None:
    infos = images(30, 20)
    ids = {infos[place].id for place in held_out(infos, 0.2, seed=1)}
    turned = infos[::-1]
    assert ids == {turned[place].id for place in held_out(turned, 0.2, seed=1)}
    assert ids != {infos[place].id for place in held_out(infos, 0.2, seed=2)}
    assert held_out(images(3, 0), 0.34, seed=0) == frozenset({1}), "on every machine"
