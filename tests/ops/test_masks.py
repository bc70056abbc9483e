"""Masks: recorded numbers of the reference, exactness of the encoding, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from dsctool.coco_results import Rle
from dsctool.ops import masks as mask_ops
from dsctool.ops.masks import encode_masks, mask_targets, paste_masks, paste_probabilities
from dsctool.terms import Size
from tests.conftest import RECORDINGS


def reference_paste(probs: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """The published rule over the whole image, one mask at a time: ``(n, h, w)`` probabilities."""
    height, width = size
    pasted = []
    for prob, (x1, y1, x2, y2) in zip(probs, boxes, strict=True):
        u = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
        v = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
        u[u.isinf()], v[v.isinf()] = 0, 0
        grid = torch.stack([u.expand(height, width), v[:, None].expand(height, width)], dim=-1)
        pasted.append(F.grid_sample(prob[None, None], grid[None], align_corners=False)[0, 0])
    return torch.stack(pasted) if pasted else torch.zeros(0, height, width)


def random_masks(count: int, size: Size, *, seed: int = 0, cells: int = 28) -> tuple[Tensor, Tensor]:
    """Smooth random masks, some boxes reaching out of the image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 5, generator=generator) * 1.6 - 0.3
    probs = F.interpolate(coarse, (cells, cells), mode="bilinear")[:, 0].clamp(0, 1)
    height, width = size
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height]) * 1.2 - 5
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return probs, torch.cat([low, high], dim=1)


def bitmaps(rles: list[Rle]) -> Tensor:
    return torch.stack([torch.from_numpy(coco_mask.decode(rle).astype(bool)) for rle in rles])


def encoded_by_pycocotools(pasted: Tensor) -> list[Rle]:
    fortran = np.asfortranarray(pasted.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    return [Rle(size=list(rle["size"]), counts=rle["counts"].decode()) for rle in coco_mask.encode(fortran)]


# --- paste ---------------------------------------------------------------------------------------


def test_paste_agrees_with_the_recording(device: torch.device) -> None:
    recorded = np.load(RECORDINGS / "component_mask_paste.npz")
    height, width = (int(side) for side in recorded["img_hw"])
    expected = np.unpackbits(recorded["binary"])[: 6 * height * width].reshape(6, height, width).astype(bool)
    probs, boxes = (torch.from_numpy(recorded[name]).to(device) for name in ("masks", "boxes"))

    pasted = paste_masks(probs, boxes, (height, width)).cpu().numpy()

    different = (pasted != expected).sum(axis=(1, 2))
    assert different.tolist() == [0] * 6
    assert expected.sum() > 1000


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_paste_agrees_with_recorded_probabilities_at_any_threshold(threshold: float) -> None:
    recorded = np.load(RECORDINGS / "component_mask_paste.npz")
    size = (int(recorded["img_hw"][0]), int(recorded["img_hw"][1]))
    boxes = torch.from_numpy(recorded["boxes"])

    pasted = paste_masks(torch.from_numpy(recorded["masks"]), boxes, size, threshold=threshold)

    y, x = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
    near_x = (x > boxes[:, :1].floor() - 1) & (x < boxes[:, 2:3].ceil() + 1)
    near_y = (y > boxes[:, 1:2].floor() - 1) & (y < boxes[:, 3:].ceil() + 1)
    near = near_y[:, :, None] & near_x[:, None, :]
    assert torch.equal(pasted, torch.from_numpy(recorded["soft"] >= threshold) & near)


@pytest.mark.parametrize("size", [(37, 61), (200, 90), (1, 1)])
def test_paste_is_the_published_rule(size: Size) -> None:
    probs, boxes = random_masks(25, size)
    assert torch.equal(paste_masks(probs, boxes, size), reference_paste(probs, boxes, size) >= 0.5)


@pytest.mark.parametrize("size", [(37, 61), (1, 1)])
def test_probabilities_are_those_that_paste_compares(size: Size) -> None:
    probs, boxes = random_masks(25, size)
    pasted = paste_probabilities(probs, boxes, size)
    assert torch.equal(pasted >= 0.5, paste_masks(probs, boxes, size))
    near = pasted > 0
    assert torch.equal(pasted[near], reference_paste(probs, boxes, size)[near])
    whole = paste_probabilities(probs, boxes, size, whole_pixels=True)
    assert torch.equal(whole > 0.5, paste_masks(probs, boxes, size, whole_pixels=True))
    alone = torch.cat([paste_probabilities(probs[i : i + 1], boxes[i : i + 1], size) for i in range(25)])
    assert torch.equal(alone, pasted)
    assert paste_probabilities(probs[:0], boxes[:0], size).shape == (0, *size)


def test_threshold_is_inclusive() -> None:
    probs = torch.full((1, 28, 28), 0.5)
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    assert paste_masks(probs, boxes, (32, 32)).sum() > 0
    assert paste_masks(probs.nextafter(torch.zeros(())), boxes, (32, 32)).sum() == 0


def test_small_tiles_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, boxes = random_masks(20, (120, 90))
    expected_masks, expected_rles = paste_masks(probs, boxes, (120, 90)), encode_masks(probs, boxes, (120, 90))
    monkeypatch.setattr(mask_ops, "TILE_PIXELS", 500)
    assert torch.equal(paste_masks(probs, boxes, (120, 90)), expected_masks)
    assert encode_masks(probs, boxes, (120, 90)) == expected_rles


# --- encode --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(37, 61), (64, 64), (3, 400), (400, 3), (1, 1)])
def test_encode_is_paste_then_encode(size: Size, device: torch.device) -> None:
    probs, boxes = (values.to(device) for values in random_masks(40, size, seed=1))
    assert encode_masks(probs, boxes, size) == encoded_by_pycocotools(paste_masks(probs, boxes, size))


def test_encode_joins_runs_across_full_columns() -> None:
    """Full-height masks are one run over many columns, up to the image's last pixel."""
    probs = torch.ones(3, 28, 28)
    boxes = torch.tensor([[0.0, 0.0, 6.0, 4.0], [2.0, -50.0, 4.0, 50.0], [-9.0, -9.0, 99.0, 2.0]])
    rles = encode_masks(probs, boxes, (4, 6))
    assert bitmaps(rles)[0].all()
    assert rles == encoded_by_pycocotools(paste_masks(probs, boxes, (4, 6)))


def test_encode_noise() -> None:
    """Masks of many short runs."""
    probs = torch.rand(5, 28, 28, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[0.0, 0.0, 50.0, 40.0]]).repeat(5, 1) + torch.arange(5)[:, None] * 1.37
    assert encode_masks(probs, boxes, (44, 60)) == encoded_by_pycocotools(paste_masks(probs, boxes, (44, 60)))


def test_no_detections() -> None:
    assert encode_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (30, 40)) == []
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (30, 40)).shape == (0, 30, 40)


def test_degenerate_boxes_sample_the_middle_of_the_mask() -> None:
    """Infinite coordinates become 0, as in the reference; a box outside the image has an empty mask."""
    probs = torch.ones(4, 28, 28)
    boxes = torch.tensor([[10.2, 5, 10.2, 15], [4, 7.7, 30, 7.7], [3.1, 3.1, 3.1, 3.1], [200, 200, 220, 220]])
    pasted = paste_masks(probs, boxes, (20, 40))
    assert pasted[0, 5:15, 9:12].all()
    assert pasted[1, 6:9, 4:30].all()
    assert pasted[2, 2:5, 2:5].all()
    assert pasted[3].sum() == 0
    assert encode_masks(probs, boxes, (20, 40)) == encoded_by_pycocotools(pasted)


def test_a_pixel_centre_on_a_degenerate_side_is_background() -> None:
    boxes = torch.tensor([[10.5, 5.0, 10.5, 15.0]])
    pasted = paste_masks(torch.ones(1, 28, 28), boxes, (20, 40))
    assert pasted[0, 5:15, 9].all()
    assert not pasted[0, :, 10].any()


def test_low_precision_inputs_are_computed_in_float32(device: torch.device) -> None:
    probs, boxes = (values.to(device) for values in random_masks(8, (300, 500), seed=3))
    half_probs, half_boxes = probs.bfloat16(), boxes.bfloat16()
    expected = encode_masks(half_probs.float(), half_boxes.float(), (300, 500))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert encode_masks(half_probs, half_boxes, (300, 500)) == expected


def test_encode_samples_in_bounded_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of a large image's size is made: every sampled group stays within the limit."""
    monkeypatch.setattr(mask_ops, "TILE_PIXELS", 1 << 16)
    sample, sampled = mask_ops._sample, []

    def counting(probs: Tensor, boxes: Tensor, tiles: mask_ops._Tiles) -> Tensor:
        result = sample(probs, boxes, tiles)
        sampled.append(result.numel())
        return result

    monkeypatch.setattr(mask_ops, "_sample", counting)
    probs, boxes = random_masks(6, (900, 1200), seed=4)
    rles = encode_masks(probs, boxes, (900, 1200))
    assert max(sampled) <= 1 << 16
    assert len(rles) == 6


# --- targets -------------------------------------------------------------------------------------


def recorded_targets(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    recorded = np.load(RECORDINGS / "component_mask_target.npz")
    names = ("gt_masks", "proposals", "gt_inds", "target")
    masks, boxes, indices, expected = (torch.from_numpy(recorded[name]).to(device) for name in names)
    return masks, boxes, indices, expected


def test_targets_agree_with_the_recording(device: torch.device) -> None:
    masks, boxes, indices, expected = recorded_targets(device)
    targets = mask_targets(masks, boxes, indices, 28)
    assert targets.dtype == torch.float32
    assert (targets != expected).sum(dim=(1, 2)).tolist() == [0] * 6


@pytest.mark.parametrize("values", [1, 64 * 80, 3 * 64 * 80])
def test_targets_in_several_passes(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, boxes, indices, expected = recorded_targets(torch.device("cpu"))
    many = torch.cat([masks, masks.flip(0), masks[:1]]).bool()
    monkeypatch.setattr(mask_ops, "BITMAP_VALUES", values)
    for offset, row in ((0, indices), (2, 1 - indices)):
        assert torch.equal(mask_targets(many, boxes, row + offset, 28), expected.float())


def test_targets_of_boxes_beyond_the_bitmap() -> None:
    """The box is clipped first: a full bitmap gives a full target."""
    masks = torch.ones(1, 20, 30, dtype=torch.bool)
    boxes = torch.tensor([[-10.0, -10.0, 45.0, 60.0]])
    assert mask_targets(masks, boxes, torch.tensor([0]), 7).eq(1).all()


def test_targets_without_positives_or_instances() -> None:
    none, index = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert mask_targets(torch.ones(2, 8, 8, dtype=torch.bool), none, index, 28).shape == (0, 28, 28)
    assert mask_targets(torch.zeros(0, 8, 8, dtype=torch.bool), none, index, 28).shape == (0, 28, 28)


def test_targets_under_autocast(device: torch.device) -> None:
    masks, boxes, indices, expected = recorded_targets(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        targets = mask_targets(masks, boxes, indices, 28)
    assert torch.equal(targets, expected.float())
