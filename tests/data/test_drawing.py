"""Masks drawn at the size they are used at are those that are drawn in the image and resized."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from dsctool.coco_results import encode_bitmap
from dsctool.data.drawing import Undrawn, areas_of, bitmaps
from dsctool.ops.spans import Spans
from dsctool.terms import Size


def _masks(count: int, size: Size, seed: int) -> Tensor:
    """Of single pixels and larger pieces; one has none."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, *size, generator=generator) < torch.linspace(0, 0.9, count)[:, None, None]
    masks[count // 2 :, size[0] // 3 :, : size[1] // 2 + 1] = True
    return masks.to(torch.uint8)


def _spans(masks: Tensor) -> list[Spans]:
    return [Spans.of(encode_bitmap(mask)) for mask in masks]


def _resized(masks: Tensor, size: Size) -> Tensor:
    return functional.resize(tv_tensors.Mask(masks), list(size), antialias=False).as_subclass(Tensor)


SIDES = st.integers(1, 40)


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.integers(0, 1000))
def test_as_bitmaps_that_are_resized(source: Size, target: Size, seed: int) -> None:
    masks, crowds = _masks(4, source, seed), _masks(2, source, seed + 1)
    drawn, drawn_crowds = Undrawn(_spans(masks), _spans(crowds), source).at(target)
    assert drawn_crowds is not None
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, _resized(masks, target))
    assert torch.equal(drawn_crowds, _resized(crowds, target))


@pytest.mark.parametrize("target", [(800, 1067), (333, 1), (961, 1281)])
def test_sides_where_precision_decides(target: Size) -> None:
    """In float64 some of the pixels would be others."""
    rows = torch.arange(2371)[:, None] >> torch.arange(12)[:, None, None] & 1  # a row's number in bits
    masks = rows.expand(-1, -1, 5).to(torch.uint8)
    drawn, _ = Undrawn(_spans(masks), None, (2371, 5)).at(target)
    assert torch.equal(drawn, _resized(masks, target))


def test_none() -> None:
    drawn, crowds = Undrawn([], None, (3, 4)).at((6, 8))
    assert drawn.shape == (0, 6, 8)
    assert crowds is None
    assert bitmaps([], (2, 3)).shape == (0, 2, 3)
    assert areas_of([]).shape == (0,)


def test_areas() -> None:
    masks = _masks(3, (9, 7), 0)
    assert areas_of(_spans(masks)).tolist() == np.asarray(masks).sum(axis=(1, 2)).tolist()
