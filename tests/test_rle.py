"""Compressed runs, against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.rle import decompress_runs


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
