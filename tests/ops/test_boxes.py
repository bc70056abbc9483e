"""Properties of box geometry."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou as torchvision_box_iou

from dsctool.ops.boxes import (
    MAX_LOG_RATIO,
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    enlarge_boxes,
    scale_boxes,
)

STDS = (0.1, 0.1, 0.2, 0.2)
coordinate = st.floats(-50, 300, width=32)
side = st.floats(1, 200, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> Tensor:
    """One to five boxes with sides of at least a pixel."""
    rows = draw(st.lists(st.tuples(coordinate, coordinate, side, side), min_size=1, max_size=5))
    x, y, w, h = torch.tensor(rows).unbind(dim=1)
    return torch.stack([x, y, x + w, y + h], dim=1)


@given(boxes(), boxes())
def test_iou_agrees_with_torchvision(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(box_iou(a, b), torchvision_box_iou(a, b), rtol=1e-4, atol=1e-5)


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert box_iou(point, point).item() == 0


@given(boxes(), boxes())
def test_decoding_undoes_encoding(a: Tensor, b: Tensor) -> None:
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    ratio = ((b[:, 2:] - b[:, :2]) / (a[:, 2:] - a[:, :2])).log().abs()
    within = (ratio < MAX_LOG_RATIO).all(dim=1)
    decoded = decode_boxes(a, encode_boxes(a, b, STDS), STDS)
    torch.testing.assert_close(decoded[within], b[within], rtol=1e-3, atol=0.05)


def test_decoding_limits_growth_and_shrinkage() -> None:
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).repeat(2, 1)
    deltas = torch.tensor([[0.0, 0.0, 50.0, 50.0], [0.0, 0.0, -50.0, -50.0]])
    sides = decode_boxes(box, deltas, (1, 1, 1, 1))
    torch.testing.assert_close(sides[:, 2] - sides[:, 0], torch.tensor([1000.0, 0.256]), rtol=1e-4, atol=1e-3)


@given(boxes(), st.floats(0.5, 3))
def test_enlarging_keeps_centres_and_multiplies_sides(a: Tensor, ratio: float) -> None:
    larger = enlarge_boxes(a, ratio)
    torch.testing.assert_close(larger[:, :2] + larger[:, 2:], a[:, :2] + a[:, 2:], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(larger[:, 2:] - larger[:, :2], ratio * (a[:, 2:] - a[:, :2]), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(enlarge_boxes(larger, 1 / ratio), a, rtol=1e-4, atol=1e-2)


@given(boxes())
def test_clipped_boxes_lie_in_the_image_and_stay_there(a: Tensor) -> None:
    clipped = clip_boxes(a, (100, 200))
    assert bool((clipped >= 0).all())
    assert bool((clipped[:, 0::2] <= 200).all())
    assert bool((clipped[:, 1::2] <= 100).all())
    assert bool((box_area(clipped) <= box_area(a) * 1.001 + 1e-3).all())
    torch.testing.assert_close(clip_boxes(clipped, (100, 200)), clipped)


@given(boxes())
def test_scaling_there_and_back(a: Tensor) -> None:
    there = scale_boxes(a, source=(100, 200), target=(150, 187))
    torch.testing.assert_close(scale_boxes(there, source=(150, 187), target=(100, 200)), a, rtol=1e-4, atol=1e-3)
