"""Compressed runs, against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.rle import cut_out, decompress_runs


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_runs_come_back(runs: list[int]) -> None:
    runs[0] += 1
    encoded = coco_mask.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))["counts"]
    for counts in (encoded, encoded.decode()):
        found = decompress_runs(counts)
        assert found is not None
        assert found.tolist() == runs


def test_differences_start_at_the_fourth_run() -> None:
    found = decompress_runs("5123")
    assert found is not None
    assert np.array_equal(found, [5, 1, 2, 3 + 1])


@pytest.mark.parametrize("counts", ["", "o", "~", "/", "0 ", "o" * 8 + "0", "\u00e9", "\ud800", b"\xff"])
def test_other_text_is_none(counts: str | bytes) -> None:
    assert decompress_runs(counts) is None


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**81 - 1))
def test_a_mask_cut_out_is_what_is_drawn(height: int, width: int, bits: int) -> None:
    mask = np.array([bits >> place & 1 for place in range(height * width)], dtype=np.uint8).reshape(height, width)
    mask[: height // 3] = 0
    mask[:, : width // 3] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    for counts in (rle["counts"], rle["counts"].decode()):
        cut = cut_out({"size": [height, width], "counts": counts})
        if not mask.any():
            assert cut is None
            continue
        assert cut is not None
        inside, top, left = cut
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (top, left) == (rows[0], columns[0])
        assert np.array_equal(inside, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def test_no_mask_to_cut_out() -> None:
    with pytest.raises(ValueError, match="no run lengths"):
        cut_out({"size": [3, 3], "counts": "~"})
