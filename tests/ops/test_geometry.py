"""The geometry of mmdet 1.x against slow definitions, box by box and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms

from dsctool.models.postprocess import Postprocess, Selected
from dsctool.models.rpn import base_anchors, grid_anchors
from dsctool.models.targets import assign
from dsctool.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes, enlarge_boxes, scale_boxes
from dsctool.ops.geometry import CURRENT, Mmdet1Geometry, resize_factor, resized
from dsctool.ops.masks import encode_masks, mask_targets, paste_masks, resized_crops
from dsctool.ops.roi_align import pyramid_roi_align, roi_align, roi_levels
from tests.ops import mmdet1
from tests.ops.mmdet1 import half_open, inclusive
from tests.ops.test_masks import encoded_by_pycocotools

MMDET1 = Mmdet1Geometry()
STDS = (0.1, 0.1, 0.2, 0.2)
SIZE = (90, 120)


def some_boxes(count: int, *, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Of mmdet 1.x, with their last pixels, inside an image of ``size``; the first has one pixel."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([size[1] - 1.0, size[0] - 1.0])
    corners = torch.rand(count, 2, 2, generator=generator) * limit
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    boxes[0] = torch.tensor([7.0, 8.0, 7.0, 8.0])
    return boxes


def equal(found: Tensor, expected: object, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=tolerance, atol=tolerance)


# --- what half-open boxes make the same --------------------------------------------------------------


def test_iou() -> None:
    one, other = some_boxes(12), some_boxes(9, seed=1)
    expected = [[mmdet1.iou(a, b) for b in other.tolist()] for a in one.tolist()]
    equal(box_iou(half_open(one), half_open(other)), expected)
    equal(box_area(half_open(one)), [mmdet1.area(box) for box in one.tolist()])


def test_assignment_with_matches_of_low_quality() -> None:
    boxes, gts = some_boxes(60), some_boxes(7, seed=3)
    boxes[20] = boxes[21] = torch.tensor([30.0, 30.0, 36.0, 36.0])
    gts[1] = torch.tensor([30.0, 30.0, 34.0, 40.0])
    for positive, negative, least in ((0.7, 0.3, 0.3), (0.5, 0.5, 0.5), (0.7, 0.7, 0.2)):
        found = assign(
            half_open(boxes),
            half_open(gts),
            positive_iou=positive,
            negative_iou=negative,
            min_positive_iou=least,
            low_quality_matches=True,
        )
        expected = mmdet1.assign(boxes.tolist(), gts.tolist(), positive, negative, least)
        assert found.tolist() == expected
        assert len(set(expected)) > 2


def test_encoding() -> None:
    boxes, targets = some_boxes(20), some_boxes(20, seed=1)
    pairs = zip(boxes.tolist(), targets.tolist(), strict=True)
    equal(encode_boxes(half_open(boxes), half_open(targets), STDS), [mmdet1.encode(a, b, STDS) for a, b in pairs])


def test_decoding_and_clipping() -> None:
    boxes, deltas = some_boxes(200), torch.randn(200, 4, generator=torch.Generator().manual_seed(2)) * 6
    deltas[::5] = deltas[::5] * 10
    moved = MMDET1.clip(decode_boxes(half_open(boxes), deltas, STDS), SIZE)
    expected = [mmdet1.decode(a, b, STDS, SIZE) for a, b in zip(boxes.tolist(), deltas.tolist(), strict=True)]
    equal(inclusive(moved), expected, 1e-3)
    sides = inclusive(moved)
    assert (sides[:, 2] == SIZE[1] - 1).any()
    assert (sides[:, 0] == SIZE[1] - 1).any(), "some lie outside, and have a pixel's width left"
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert not torch.equal(moved, CURRENT.clip(moved, (SIZE[0] - 1, SIZE[1] - 1)))


def test_levels() -> None:
    boxes = some_boxes(300, size=(1000, 1200))
    boxes[:4] = torch.tensor([[0, 0, side - 1, side - 1] for side in (111.9, 112.0, 224.0, 447.9)])
    expected = [mmdet1.level(box) for box in boxes.tolist()]
    assert roi_levels(half_open(boxes), num_levels=4).tolist() == expected
    assert expected[:4] == [0, 1, 2, 2]
    assert roi_levels(boxes, num_levels=4).tolist() != expected


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_box_nms(threshold: float) -> None:
    boxes, scores = some_boxes(80, size=(40, 40)), torch.rand(80, 2, generator=torch.Generator().manual_seed(4))
    kept = Postprocess(score_threshold=0.2, nms_iou=threshold, max_per_image=100)(half_open(boxes), scores)

    def suppress(found: list[list[float]], score: list[float]) -> list[tuple[int, float]]:
        return [(row, score[row]) for row in mmdet1.nms(found, score, threshold)]

    check_selected(kept, mmdet1.by_class(suppress, boxes.double().numpy(), scores.double().numpy(), 0.2))
    today = batched_nms(boxes, scores[:, 0], torch.zeros(80), threshold)
    assert len(today) != len(batched_nms(half_open(boxes), scores[:, 0], torch.zeros(80), threshold))


@pytest.mark.parametrize("seed", range(3))
def test_soft_nms(seed: int) -> None:
    """As for 53.3: linear, above an IoU of 0.5, what falls below 0.001 is dropped, the best hundred of all classes."""
    generator = torch.Generator().manual_seed(seed)
    boxes, scores = some_boxes(60, size=(30, 30), seed=seed), torch.rand(60, 3, generator=generator) ** 6
    kept = Postprocess(score_threshold=0.001, nms_iou=0.5, max_per_image=100, nms="soft")(half_open(boxes), scores)

    def suppress(found: list[list[float]], score: list[float]) -> list[tuple[int, float]]:
        return mmdet1.soft_nms(found, score, 0.5)

    check_selected(kept, mmdet1.by_class(suppress, boxes.double().numpy(), scores.double().numpy(), 0.001))
    assert len(kept.scores) == 100 or len(kept.scores) < int((scores > 0.001).sum())
    assert not set(kept.scores.tolist()) <= set(scores.flatten().tolist()), "some are weakened"


def check_selected(kept: Selected, expected: list[tuple[float, int, int]]) -> None:
    equal(kept.scores, [score for score, _, _ in expected], 1e-5)
    assert list(zip(kept.labels.tolist(), kept.rois.tolist(), strict=True)) == [tuple(each[1:]) for each in expected]


def test_enlarged_boxes_keep_their_centre_and_have_the_ratio() -> None:
    """DSC's, which mmdet 1.x did not have: widths with the last pixel in them."""
    boxes = some_boxes(9)
    larger = inclusive(enlarge_boxes(half_open(boxes), 1.6))
    for box, large in zip(boxes.tolist(), larger.tolist(), strict=True):
        assert large[2] - large[0] + 1 == pytest.approx(1.6 * (box[2] - box[0] + 1), abs=1e-3)
        assert large[0] + large[2] == pytest.approx(box[0] + box[2], abs=1e-3)


# --- what differs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("scale", [4, 8])
def test_anchors(stride: int, scale: float) -> None:
    ratios = (0.5, 1.0, 2.0)
    base = MMDET1.anchors(base_anchors(stride, scale=scale, ratios=ratios), stride)
    found, expected = grid_anchors(base, (3, 4), stride), mmdet1.anchors((3, 4), stride, scale, ratios)
    assert inclusive(found).tolist() == expected
    image = (stride * 9, stride * 10)
    wide = grid_anchors(base, (9, 10), stride)
    inside = [mmdet1.is_inside(box, image) for box in inclusive(wide).tolist()]
    assert MMDET1.inside(wide, image).tolist() == inside


def test_anchors_that_touch_the_border_are_inside() -> None:
    anchors = torch.tensor([[0.0, 0.0, 32.0, 20.0], [0.0, 0.0, 33.0, 20.0], [-1.0, 0.0, 9.0, 9.0]])
    assert MMDET1.inside(anchors, (20, 32)).tolist() == [True, False, False]
    assert [mmdet1.is_inside(box, (20, 32)) for box in inclusive(anchors).tolist()] == [True, False, False]
    assert CURRENT.inside(anchors, (20, 32)).tolist() == [False, False, False]


@pytest.mark.parametrize("bins", [7, 14])
def test_roi_align(bins: int, device: torch.device) -> None:
    """Of boxes on every level of a pyramid, one of a pixel and one that reaches over the border."""
    strides = (4, 8, 16, 32)
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(1, 2, 320 // s, 480 // s, generator=generator) for s in strides]
    boxes = some_boxes(10, size=(320, 480))
    boxes[1] = torch.tensor([-60.0, -20.0, 500.0, 340.0])
    boxes[2] = torch.tensor([440.0, 300.0, 479.0, 319.0])
    boxes[3] = torch.tensor([20.0, 30.0, 299.0, 250.0])
    rois = torch.cat([torch.zeros(10, 1), half_open(boxes)], dim=1).to(device)
    maps = [x.clone().to(device).requires_grad_() for x in levels]
    pooled = pyramid_roi_align(maps, rois, output_size=bins, strides=strides, geometry=MMDET1)
    used = set()
    for row, box in enumerate(boxes.tolist()):
        level = mmdet1.level(box)
        used.add(level)
        expected = mmdet1.roi_align(levels[level][0].double().numpy(), box, bins, strides[level])
        equal(pooled[row].detach().cpu(), expected, 1e-4)
    assert used == {0, 1, 2, 3}
    # Linear in the features: values and gradients have the same product.
    weights = torch.randn_like(pooled)
    (pooled * weights).sum().backward()
    product = sum((x.grad * x.detach()).sum() for x in maps if x.grad is not None)
    torch.testing.assert_close(product, (pooled * weights).sum().detach(), rtol=1e-4, atol=1e-2)


def test_roi_align_of_a_single_map_and_its_means() -> None:
    """The semantic feature, pooled to 14 bins whatever is asked for, and averaged."""
    feature = torch.randn(1, 2, 12, 15, generator=torch.Generator().manual_seed(0))
    boxes = some_boxes(4, size=(96, 120))
    rois = torch.cat([torch.zeros(4, 1), half_open(boxes)], dim=1)
    pooled = roi_align(feature, rois, output_size=7, stride=8, pool=2, geometry=MMDET1)
    for row, box in enumerate(boxes.tolist()):
        expected = mmdet1.roi_align(feature[0].double().numpy(), box, 14, 8)
        equal(pooled[row], expected.reshape(2, 7, 2, 7, 2).mean(axis=(2, 4)))


@given(st.integers(20, 900), st.integers(20, 900), st.integers(30, 1200), st.floats(1, 2.5))
def test_one_factor_for_both_axes(height: int, width: int, short: int, ratio: float) -> None:
    size, long = (height, width), round(short * ratio)
    factor, target = mmdet1.factor(size, short, long), resized(size, short, long)
    geometry = Mmdet1Geometry(resizes=((10, 10), (short, long)))
    boxes = some_boxes(5, size=size)
    assert resize_factor(size, short, long) == factor
    there = geometry.scale(half_open(boxes), source=size, target=target)
    if size == target:
        assert torch.equal(there, half_open(boxes))
        return
    equal(inclusive(there), [[side * factor for side in box] for box in boxes.tolist()], 1e-3)
    back = geometry.scale(half_open(boxes), source=target, target=size)
    equal(inclusive(back), [[side / factor for side in box] for box in boxes.tolist()], 1e-3)


def test_the_factor_is_not_that_of_the_rounded_sizes() -> None:
    geometry, box = Mmdet1Geometry(resizes=((800, 1333),)), torch.tensor([[0.0, 0.0, 640.0, 427.0]])
    there = geometry.scale(box, source=(427, 640), target=(800, 1199))
    assert there[0, 2].item() == pytest.approx(639 * 800 / 427 + 1, abs=1e-3)
    assert CURRENT.scale(box, source=(427, 640), target=(800, 1199))[0, 2].item() == 1199
    foreign = geometry.scale(box, source=(427, 640), target=(213, 320))
    assert foreign[0, 2].item() == pytest.approx(320.5), "of the longer sides, where nothing else is known"


def masks_and_boxes(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(12, 1, 5, 5, generator=generator) * 1.6 - 0.3
    probs = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")[:, 0].clamp(0, 1)
    boxes = some_boxes(12, seed=seed)
    boxes[1] = torch.tensor([0.9, 0.9, 119.0, 89.0])
    boxes[2] = torch.tensor([10.99, 20.01, 10.2, 50.0])  # decoded boxes of less than a pixel end before they begin
    return probs, boxes


@pytest.mark.parametrize("seed", range(3))
def test_paste(seed: int, device: torch.device) -> None:
    probs, boxes = masks_and_boxes(seed)
    pasted = paste_masks(probs.to(device), half_open(boxes).to(device), SIZE, whole_pixels=True).cpu()
    expected = [mmdet1.paste(p.double().numpy(), b, SIZE) for p, b in zip(probs, boxes.tolist(), strict=True)]
    assert (pasted.numpy() != np.stack(expected)).sum() <= 2, "where a probability is a half but for rounding"
    rles = encode_masks(probs.to(device), half_open(boxes).to(device), SIZE, whole_pixels=True)
    assert rles == encoded_by_pycocotools(pasted)
    assert not torch.equal(pasted, paste_masks(probs, half_open(boxes), SIZE))


def test_a_half_is_background_and_a_mask_fills_its_box() -> None:
    box = torch.tensor([[3.7, 2.2, 9.4, 6.9]])
    assert not paste_masks(torch.full((1, 28, 28), 0.5), box, (12, 14), whole_pixels=True).any()
    (full,) = paste_masks(torch.ones(1, 28, 28), box, (12, 14), whole_pixels=True)
    expected = torch.zeros(12, 14, dtype=torch.bool)
    expected[2:6, 3:9] = True  # to int(6.9 - 1) and int(9.4 - 1), with these
    assert torch.equal(full, expected)


def test_tiles_do_not_matter_to_whole_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, boxes = masks_and_boxes(0)
    whole = paste_masks(probs, half_open(boxes), SIZE, whole_pixels=True)
    monkeypatch.setattr("dsctool.ops.masks.TILE_PIXELS", 700)
    assert torch.equal(paste_masks(probs, half_open(boxes), SIZE, whole_pixels=True), whole)


@pytest.mark.parametrize("size", [14, 28])
def test_mask_targets(size: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.nn.functional.interpolate(torch.rand(3, 1, 30, 40, generator=generator), SIZE)[:, 0] > 0.5
    boxes = torch.cat([some_boxes(20), some_boxes(20, seed=1)])
    boxes[1] = torch.tensor([4.0, 6.0, 59.9, 61.0])  # twice 28 pixels: every cell is the mean of four
    boxes[2] = torch.tensor([0.0, 0.0, 119.0, 89.0])
    owner = torch.arange(40) % 3
    found = resized_crops(masks.to(device), half_open(boxes).to(device), owner.to(device), size).cpu()
    for row, box in enumerate(boxes.tolist()):
        expected = mmdet1.mask_target(masks[owner[row]].numpy().astype(np.uint8), box, size)
        assert found[row].tolist() == expected.tolist(), box
    assert torch.equal(MMDET1.mask_targets(masks, half_open(boxes), owner, size), found)
    assert torch.equal(CURRENT.mask_targets(masks, boxes, owner, size), mask_targets(masks, boxes, owner, size))
    assert resized_crops(masks.byte(), half_open(boxes)[:0], owner[:0], size).shape == (0, size, size)


def test_a_cell_that_is_half_foreground_is_foreground() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, ::2] = True
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert resized_crops(mask, box, torch.tensor([0]), 4).eq(1).all()


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_crops_of_any_size(height: int, width: int, seed: int) -> None:
    mask = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(seed)) > 0.5
    box = torch.tensor([[5.0, 4.0, 5.0 + width, 4.0 + height]])
    expected = mmdet1.mask_target(mask[0].numpy().astype(np.uint8), inclusive(box)[0].tolist(), 28)
    assert resized_crops(mask, box, torch.tensor([0]), 28)[0].tolist() == expected.tolist()


# --- today's ------------------------------------------------------------------------------------------


def test_todays_geometry_is_what_it_was() -> None:
    boxes, size = some_boxes(20) - 5, (80, 110)
    assert torch.equal(CURRENT.clip(boxes, size), clip_boxes(boxes, size))
    scaled = scale_boxes(boxes, source=size, target=(40, 60))
    assert torch.equal(CURRENT.scale(boxes, source=size, target=(40, 60)), scaled)
    assert CURRENT.anchors(boxes, 8) is boxes
    features, rois = torch.randn(1, 3, 10, 14), torch.cat([torch.zeros(20, 1), boxes], dim=1)
    plain = roi_align(features, rois, output_size=7, stride=8)
    assert torch.equal(roi_align(features, rois, output_size=7, stride=8, geometry=CURRENT), plain)
    assert (CURRENT.roi_samples, CURRENT.roi_shift, CURRENT.whole_pixels) == (0, 0.0, False)
