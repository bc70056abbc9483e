"""Masks as spans of columns, against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.ops.spans import Spans, Window
from dsctool.rle import Rle

Bitmap = NDArray[np.uint8]
SIDES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def bitmaps(count: int) -> st.SearchStrategy[list[Bitmap]]:
    """Of one size."""
    return SIDES.flatmap(
        lambda shape: st.lists(
            arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)), min_size=count, max_size=count
        )
    )


def encoded(bitmap: Bitmap) -> Rle:
    rle: Rle = coco_mask.encode(np.asfortranarray(bitmap))
    return rle


def assert_is(mask: Spans, bitmap: Bitmap) -> None:
    """The same pixels, and as few spans as there can be."""
    text = mask.rle((bitmap.shape[0], bitmap.shape[1]))["counts"]
    assert text == encoded(bitmap)["counts"].decode()  # type: ignore[union-attr]
    places = [(column, row) for column, row in zip(mask.column.tolist(), mask.top.tolist(), strict=True)]
    assert places == sorted(set(places))
    assert (mask.bottom > mask.top).all()
    assert mask.area == bitmap.sum()


@settings(max_examples=60, deadline=None)
@given(bitmaps(2), st.tuples(*[st.integers(0, 9)] * 4))
def test_every_operation_is_that_of_bitmaps(pair: list[Bitmap], sides: tuple[int, ...]) -> None:
    a, b = pair
    one, other = (Spans.of(encoded(each)) for each in pair)
    height, width = a.shape
    (x1, x2), (y1, y2) = sorted(sides[:2]), sorted(sides[2:])
    window = Window(x1, y1, min(x2, width), min(y2, height))
    inside = np.zeros_like(a)
    inside[y1:y2, x1:x2] = 1
    assert_is(one, a)
    assert_is(Spans.union([one, other]), a | b)
    assert one.common(other) == (a & b).sum()
    assert_is(one.inside(window), a & inside)
    assert_is(one.outside(window), a & (1 - inside))
    assert_is(one.moved(2, 3), np.pad(a, ((3, 0), (2, 0))))
    assert one.along(0).area == a.any(axis=1).sum()
    assert one.along(1).area == a.any(axis=0).sum()
    pixels, box = one.bitmap()
    drawn = np.zeros_like(a)
    drawn[box.y1 : box.y2, box.x1 : box.x2] = pixels
    assert (drawn == a).all()
    assert box == Window(0, 0, 0, 0) or pixels.any(axis=0)[[0, -1]].all()


@settings(max_examples=30, deadline=None)
@given(bitmaps(1), st.integers(1, 9), st.integers(1, 9))
def test_made_smaller_it_takes_the_nearest_pixels(one: list[Bitmap], height: int, width: int) -> None:
    (bitmap,) = one
    source = bitmap.shape[0], bitmap.shape[1]
    target = min(height, source[0]), min(width, source[1])
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(int) for large, small in zip(source, target, strict=True)
    )
    small = Spans.of(encoded(bitmap)).resized(source, target)
    assert_is(small, bitmap[np.ix_(rows, columns)])


def test_rectangles_and_what_is_no_mask() -> None:
    assert_is(Spans.rectangle(Window(1, 0, 3, 2)), np.asarray([[0, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=np.uint8))
    for empty in (Window(2, 2, 2, 5), Window(2, 5, 4, 5), Window(3, 0, 1, 4)):
        assert Spans.rectangle(empty).area == 0
    with pytest.raises(ValueError, match="run-length"):
        Spans.of(Rle(size=[2, 2], counts="~"))


def test_an_image_of_600_megapixels_takes_what_its_mask_takes() -> None:
    """Not what its pixels would: 600 MB."""
    window = Window(29_000, 19_000, 29_100, 19_050)
    mask = Spans.rectangle(window)
    rle = mask.rle((20_000, 30_000))
    assert coco_mask.area(rle) == 5000
    assert coco_mask.toBbox(rle).tolist() == [29_000, 19_000, 100, 50]
    assert Spans.of(rle).box == window
    assert mask.resized((20_000, 30_000), (400, 600)).box == Window(580, 380, 582, 381)
