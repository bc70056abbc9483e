"""RoIAlign on a CPU against torchvision's operator, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from dsctool.ops import roi_align_cpu
from dsctool.ops.roi_align import boxes_to_rois, pyramid_roi_align, roi_align, roi_levels


def some_rois(count: int, *, seed: int = 0) -> Tensor:
    """RoIs on two images of 100x140 pixels: inside, across the border, far outside, without area."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 150 - 20
    size = torch.rand(count, 2, generator=generator) ** 2 * 120
    rois = torch.cat([torch.arange(count)[:, None] % 2, start, start + size], dim=1).float()
    rois[0, 1:] = torch.tensor([400.0, 400.0, 450.0, 460.0])
    rois[1, 1:] = torch.tensor([10.0, 10.0, 10.0, 30.0])
    rois[2, 1:] = torch.tensor([-300.0, -300.0, 500.0, 500.0])
    return rois


@pytest.mark.parametrize("output_size", [7, 14])
@pytest.mark.parametrize("pool", [1, 2])
def test_equals_torchvision(device: torch.device, output_size: int, pool: int) -> None:
    rois = some_rois(40).to(device)
    ours, theirs = (torch.randn(2, 5, 13, 18, device=device).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    pooled = roi_align(ours, rois, output_size=output_size, stride=8, pool=pool)
    expected = torchvision_roi_align(theirs, rois, output_size * pool, 1 / 8, 0, True)
    expected = torch.nn.functional.avg_pool2d(expected, pool)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    pooled.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept_terms", [0, 100_000], ids=["built anew", "kept"])
def test_large_problems_are_cut_into_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, kept_terms: int
) -> None:
    features, rois = torch.randn(2, 3, 13, 18, requires_grad=True), some_rois(40)
    whole = roi_align(features, rois, output_size=7, stride=8)
    whole_grad = torch.autograd.grad(whole.square().sum(), features)[0]
    monkeypatch.setattr(roi_align_cpu, "MAX_TERMS", 5000)
    monkeypatch.setattr(roi_align_cpu, "KEPT_TERMS", kept_terms)
    parts = roi_align(features, rois, output_size=7, stride=8)
    parts_grad = torch.autograd.grad(parts.square().sum(), features)[0]
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(parts_grad, whole_grad, rtol=1e-4, atol=1e-4)


def test_pyramid_pools_every_roi_on_its_level(device: torch.device) -> None:
    strides = (4, 8, 16, 32)
    levels = [torch.randn(2, 3, 512 // s, 640 // s, device=device, requires_grad=True) for s in strides]
    rois = some_rois(30).to(device) * torch.tensor([1.0, 3.0, 3.0, 3.0, 3.0], device=device)
    pooled = pyramid_roi_align(levels, rois, output_size=7, strides=strides)
    for row, level in enumerate(roi_levels(rois[:, 1:], num_levels=4).tolist()):
        single = torchvision_roi_align(levels[level], rois[row : row + 1], 7, 1 / strides[level], 0, True)
        torch.testing.assert_close(pooled[row], single[0], rtol=1e-4, atol=1e-5)


def test_without_rois_there_is_still_a_gradient(device: torch.device) -> None:
    levels = [torch.randn(1, 3, size, size, device=device, requires_grad=True) for size in (16, 8)]
    pooled = pyramid_roi_align(levels, torch.zeros(0, 5, device=device), output_size=7, strides=(4, 8))
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in levels)


def test_without_maps_and_rois_there_is_still_a_gradient(device: torch.device) -> None:
    """As where the features of positive RoIs are aligned and there are none."""
    maps = torch.zeros(0, 3, 7, 7, device=device, requires_grad=True)
    pooled = roi_align(maps, torch.zeros(0, 5, device=device), output_size=7, stride=1)
    pooled.sum().backward()
    assert maps.grad is not None
    assert maps.grad.shape == (0, 3, 7, 7)


def test_boxes_of_all_images_in_one_tensor() -> None:
    rois = boxes_to_rois([torch.ones(2, 4), torch.zeros(0, 4), torch.full((1, 4), 3.0)])
    assert rois[:, 0].tolist() == [0, 0, 2]
    assert rois.shape == (3, 5)
