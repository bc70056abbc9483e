"""What is read for many tensors at once is what each of them says."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dsctool.ops.exchange import count_true, ranked_rows, rows_where, vector_like

MASKS = st.lists(st.lists(st.booleans(), max_size=12), max_size=4)


@given(MASKS)
def test_rows_and_ranks(drawn: list[list[bool]]) -> None:
    masks = [torch.tensor(values, dtype=torch.bool) for values in drawn]
    expected = [[row for row, value in enumerate(values) if value] for values in drawn]
    assert count_true(masks) == [len(rows) for rows in expected]
    assert [rows.tolist() for rows in rows_where(masks)] == expected
    for mask, rows in zip(masks, expected, strict=True):
        assert ranked_rows(mask, torch.arange(len(rows))).tolist() == rows
        assert ranked_rows(mask, torch.arange(len(rows))[1::2]).tolist() == rows[1::2]


def test_vectors_have_the_type_of_their_model() -> None:
    for like in (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), torch.zeros(1)):
        values = vector_like(like, 3, 4)
        assert torch.equal(values, torch.tensor([3, 4], dtype=like.dtype))
        assert values.dtype == like.dtype
