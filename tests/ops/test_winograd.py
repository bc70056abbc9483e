"""Winograd's convolution against an ordinary one in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsctool.ops import winograd
from dsctool.ops.winograd import pays, transform_filters, winograd_conv


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def case(images: int, channels: int, out: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(images, channels, height, width), torch.randn(out, channels, 3, 3), torch.randn(out)


def off_by(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> float:
    """The largest error, as a share of the largest result."""
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


SIZES = [(1, 1), (3, 5), (4, 4), (7, 7), (8, 9), (14, 14), (13, 70), (70, 13)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("images", [1, 3, 40])
def test_is_a_convolution(images: int, size: tuple[int, int]) -> None:
    x, weight, bias = case(images, 6, 5, *size)
    assert off_by(winograd_conv(x, transform_filters(weight), bias), x, weight, bias) < 2e-6


def test_errs_little_more_than_a_direct_convolution() -> None:
    x, weight, bias = case(4, 256, 256, 14, 14)
    own = off_by(winograd_conv(x, transform_filters(weight), bias), x, weight, bias)
    direct = off_by(F.conv2d(x, weight, bias, padding=1), x, weight, bias)
    print(f"largest error: {own:.1e} of the largest result, direct {direct:.1e}")
    assert own < 4e-6


@pytest.mark.parametrize("at_once", [1, 3, 16, 1000])
def test_how_many_tiles_go_together_does_not_matter(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = case(5, 6, 4, 11, 18)
    monkeypatch.setattr(winograd, "TILES_AT_ONCE", at_once)
    assert off_by(winograd_conv(x, transform_filters(weight), bias), x, weight, bias) < 2e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_of_memory(layout: torch.memory_format) -> None:
    x, weight, bias = case(2, 6, 4, 9, 10)
    x = x.contiguous(memory_format=layout)
    found = winograd_conv(x, transform_filters(weight.contiguous(memory_format=layout)), bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert off_by(found, x, weight, bias) < 2e-6
    assert off_by(winograd_conv(x[:, :, 1:, 2:], transform_filters(weight), bias), x[:, :, 1:, 2:], weight, bias) < 2e-6


def test_no_images() -> None:
    x, weight, bias = case(0, 6, 4, 9, 10)
    assert winograd_conv(x, transform_filters(weight), bias).shape == (0, 4, 9, 10)


def test_what_is_not_finite_stays_so() -> None:
    x, weight, bias = case(1, 6, 4, 8, 8)
    x[0, 0, 0, 0] = torch.nan
    found = winograd_conv(x, transform_filters(weight), bias)
    assert found[0, :, :2, :2].isnan().all()
    assert found[0, :, 4:, 4:].isfinite().all()


def test_where_it_pays() -> None:
    x, weight = torch.zeros(64, 256, 14, 14), torch.zeros(256, 256, 3, 3)
    assert pays(x, weight)
    assert not pays(x[:1], weight)
    assert not pays(x.bfloat16(), weight.bfloat16())
    assert not pays(x.double(), weight.double())
    assert not pays(x[:, :64], weight[:, :64])
    assert not pays(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x, weight)
