"""Polygons and run-length encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dsctool.data.segmentations import segmentation_problem
from tests.data.masks import decode_mask

SIZE = (20, 30)
SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]


@st.composite
def bitmaps(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed, share = draw(st.integers(0, 10**6)), draw(st.sampled_from([0.01, 0.5, 0.99]))
    bitmap = np.random.default_rng(seed).random((height, width)) < share
    bitmap[0, 0] = True
    return bitmap.astype(np.uint8)


@given(bitmaps())
def test_compressed_and_plain_runs_decode_to_the_bitmap(bitmap: np.ndarray) -> None:
    encoded = coco_mask.encode(np.asfortranarray(bitmap))
    flat = bitmap.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *([0] if flat[0] else []), *changes, len(flat)]).tolist()
    for counts in (encoded["counts"].decode(), runs):
        rle: Any = {"size": list(bitmap.shape), "counts": counts}
        assert segmentation_problem(rle, bitmap.shape) is None
        assert (decode_mask(rle, bitmap.shape).numpy() == bitmap).all()


def test_polygons_are_drawn_together() -> None:
    mask = decode_mask([[0, 0, 4, 0, 4, 4, 0, 4], SQUARE], SIZE)
    assert mask.shape == SIZE
    assert mask.sum() == 16 + 100
    assert mask[1, 1] == mask[10, 10] == 1
    assert mask[4, 10] == 0


def test_a_figure_of_eight_is_not_degenerate() -> None:
    assert segmentation_problem([[0, 0, 10, 10, 10, 0, 0, 10]], SIZE) is None


def test_a_flat_part_is_a_warning() -> None:
    problem = segmentation_problem([SQUARE, [1, 1, 2, 2, 3, 3]], SIZE)
    assert problem is not None
    assert problem.severity == "warning"


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "empty"),
        ([[]], "polygon 1 is empty"),
        ([SQUARE, [1, 2, 3, 4, 5]], "polygon 2 has an odd number"),
        ([[1, 2, 3, 4]], "fewer than 3"),
        ([[1, 1, 2, 2, 3, 3]], "no area"),
        ([[4, 4, 4, 4, 4, 4]], "no area"),
        (SQUARE, "polygon 1 must be a list of numbers"),
        ([["1", 2, 3, 4, 5, 6]], "a string where a number"),
        ([[True, 2, 3, 4, 5, 6]], "a boolean where a number"),
        ([[None, 2, 3, 4, 5, 6]], "null where a number"),
        ([[float("nan"), 2, 3, 4, 5, 6]], "not finite"),
        ([[1, 2, 3, float("inf"), 5, 6]], "not finite"),
        ([[1, 2, 3, 10**400, 5, 6.5]], "not finite"),
        ([SQUARE, [1, 2, 3, 70, 5, 6.5]], "polygon 2 reaches far out of the image, which is 30 x 20"),
        ([[-40, 2, 3, 7, 5, 6.5]], "polygon 1 reaches far out"),
        ([[-9, 2, -3, 7, 0, 6.5]], "outside the image"),
        ([[30, 2, 33, 7, 35, 6.5], [3, -4, 6, 0, 9, -2]], "outside the image"),
        ({"size": None, "counts": [600]}, "has size null"),
        (None, "not null"),
        ("polygon", "not a string"),
        (5, "not a number"),
        ({}, "missing key 'size'"),
        ({"size": [20, 30]}, "missing key 'counts'"),
        ({"size": [30, 20], "counts": [600]}, r"size \[30, 20\]"),
        ({"size": "20x30", "counts": [600]}, "size"),
        ({"size": [20.0, 30.0], "counts": [600]}, "size"),
        ({"size": [20, 30], "counts": None}, "not null"),
        ({"size": [20, 30], "counts": [1, 2.5]}, "other values"),
        ({"size": [20, 30], "counts": [0, -5, 605]}, "negative"),
        ({"size": [20, 30], "counts": [0, 5]}, "cover 5 pixels"),
        ({"size": [20, 30], "counts": [600]}, "no pixel"),
        ({"size": [20, 30], "counts": "~~~~"}, "not the compressed text"),
        ({"size": [20, 30], "counts": "oooooooo"}, "not the compressed text"),
        ({"size": [20, 30], "counts": "11"}, "cover 2 pixels"),
    ],
)
def test_faults_are_told(segmentation: object, words: str) -> None:
    import re

    problem = segmentation_problem(segmentation, SIZE)
    assert problem is not None, "no fault found"
    assert re.search(words, problem.message), problem.message
    assert problem.severity == "error"


@settings(max_examples=300)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_no_text_reaches_pycocotools_that_it_cannot_decode(counts: str) -> None:
    rle: Any = {"size": [3, 4], "counts": counts}
    if segmentation_problem(rle, (3, 4)) is None:
        assert decode_mask(rle, (3, 4)).sum() > 0
