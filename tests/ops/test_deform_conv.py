"""Deformable convolution against torchvision's operator and a recording, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from dsctool.ops.deform_conv import deformable_conv
from tests.parity.published import difference, recording


def test_equals_its_recording() -> None:
    recorded = recording("component_deform_conv")
    out = deformable_conv(
        torch.from_numpy(recorded["input"]),
        torch.from_numpy(recorded["offset"]),
        torch.from_numpy(recorded["weight"]),
        stride=int(recorded["stride"]),
        padding=int(recorded["padding"]),
        dilation=1,
    )
    assert difference(out, recorded["output"]) < 1e-5 * abs(recorded["output"]).max()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 3, 4)])
def test_equals_torchvision(device: torch.device, stride: int, dilation: int, groups: int, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 8, 13, 18, device=device).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(12, 8 // groups, 3, 3, device=device).contiguous(memory_format=layout).requires_grad_()
    height, width = (13 + stride - 1) // stride, (18 + stride - 1) // stride
    # offsets of several cells, so that samples leave the map on every side
    offset = (torch.randn(2, 18, height, width, device=device) * 5).requires_grad_()
    ours = deformable_conv(x, offset, weight, stride=stride, padding=dilation, dilation=dilation, groups=groups)
    theirs = deform_conv2d(x, offset, weight, stride=stride, padding=dilation, dilation=dilation)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, offset, weight), grad),
        torch.autograd.grad(theirs, (x, offset, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    offset = torch.rand(1, 18, 5, 6, dtype=torch.float64) * 0.8 + 0.1  # away from the kinks at whole cells
    inputs = [t.requires_grad_() for t in (x, offset, weight)]
    assert torch.autograd.gradcheck(
        lambda x, o, w: deformable_conv(x, o, w, stride=1, padding=1, dilation=1), inputs, eps=1e-6, atol=1e-5
    )


def test_without_offsets_it_is_the_plain_convolution(device: torch.device) -> None:
    x, weight = torch.randn(1, 4, 7, 9, device=device), torch.randn(6, 4, 3, 3, device=device)
    offset = torch.zeros(1, 18, 7, 9, device=device)
    expected = torch.nn.functional.conv2d(x, weight, padding=3, dilation=3)
    result = deformable_conv(x, offset, weight, stride=1, padding=3, dilation=3)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_offsets_that_are_not_finite_show_in_the_result(device: torch.device) -> None:
    x, weight = torch.randn(1, 4, 7, 9, device=device), torch.randn(6, 4, 3, 3, device=device)
    offset = torch.zeros(1, 18, 7, 9, device=device)
    offset[0, 0, 3, 4] = torch.nan
    result = deformable_conv(x, offset, weight, stride=1, padding=1, dilation=1)
    assert result.isfinite().sum() >= 6 * (7 * 9 - 1)
