"""What RoI heads look at: pyramid, semantic feature, shape guidance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from dsctool.errors import DataError
from dsctool.models.roi.extractors import roi_feature
from dsctool.models.roi.semantic_head import SemanticHead, semantic_branch, semantic_roi_feature
from dsctool.models.roi.shape_guidance import (
    enlarge_rois,
    keep_inside,
    relative_roi_align,
    shape_guided_roi_align,
)
from tests.models.tiny import one_box

SIZE = (128, 192)
ROIS = torch.tensor([[0, 4.0, 4.0, 40.0, 30.0], [0, 10.0, 8.0, 150.0, 120.0], [0, 60.0, 20.0, 90.0, 70.0]])


def pyramid(channels: int = 4) -> list[torch.Tensor]:
    """P2..P6 of an image of ``SIZE``."""
    return [torch.randn(1, channels, -(-SIZE[0] // s), -(-SIZE[1] // s)) for s in (4, 8, 16, 32, 64)]


def semantic_head(*, average_valid: bool = False) -> SemanticHead:
    return SemanticHead(channels=4, num_levels=5, convs=2, num_classes=3, loss_weight=0.2, average_valid=average_valid)


def test_a_roi_reads_the_level_of_its_size() -> None:
    features = pyramid()
    pooled = roi_feature(features, None, ROIS, output_size=7)
    for row, (level, stride) in enumerate([(0, 4), (1, 8), (0, 4)]):
        expected = roi_align(features[level], ROIS[row : row + 1], 7, 1 / stride, sampling_ratio=0, aligned=True)
        torch.testing.assert_close(pooled[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [7, 14])
def test_the_semantic_feature_is_pooled_to_14_and_added(size: int) -> None:
    features, semantic = pyramid(), torch.randn(1, 4, 16, 24)
    pooled = F.adaptive_avg_pool2d(roi_align(semantic, ROIS, 14, 1 / 8, sampling_ratio=0, aligned=True), size)
    torch.testing.assert_close(semantic_roi_feature(semantic, ROIS, output_size=size), pooled, rtol=1e-4, atol=1e-5)
    plain = roi_feature(features, None, ROIS, output_size=size)
    torch.testing.assert_close(roi_feature(features, semantic, ROIS, output_size=size), plain + pooled)


def test_the_semantic_feature_may_be_pooled_elsewhere() -> None:
    features, semantic = pyramid(), torch.randn(1, 4, 16, 24)
    enlarged = enlarge_rois(ROIS, 2.0)
    own = roi_feature(features, semantic, enlarged, output_size=7, semantic_rois=ROIS)
    expected = roi_feature(features, None, enlarged, output_size=7) + semantic_roi_feature(
        semantic, ROIS, output_size=7
    )
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("average_valid", [False, True])
def test_semantic_loss_ignores_255(average_valid: bool) -> None:
    head, features = semantic_head(average_valid=average_valid), pyramid()
    shared, embedded = head(features)
    assert shared.shape == embedded.shape == (1, 4, 16, 24)
    labels = torch.randint(0, 3, (1, 16, 24))
    labels[:, :, :12] = 255
    costs = F.cross_entropy(head.predict(shared)[:, :, :, 12:], labels[:, :, 12:], reduction="sum")
    count = labels[:, :, 12:].numel() if average_valid else labels.numel()
    torch.testing.assert_close(head.loss(shared, labels).value, 0.2 * costs / count)


def test_a_batch_with_one_map_missing_is_refused() -> None:
    with_map = one_box(*SIZE)
    with pytest.raises(DataError, match="semantic map for every image"):
        semantic_branch(semantic_head(), pyramid(), [with_map, replace(with_map, semantic=None)])
    assert semantic_branch(None, pyramid(), [with_map]) == ({}, None)


@pytest.mark.parametrize("plus_one", [False, True])
def test_shape_guidance_weighs_every_bin_by_its_share_of_the_mask(plus_one: bool) -> None:
    features, probs = pyramid(), torch.rand(3, 28, 28)
    plain = roi_feature(features, None, ROIS, output_size=7)
    shares = probs.unfold(1, 4, 4).unfold(2, 4, 4).mean(dim=(3, 4))[:, None]
    guided = shape_guided_roi_align(features, ROIS, probs, output_size=7, plus_one=plus_one)
    torch.testing.assert_close(guided, plain * (shares + plus_one))


def test_alignment_moves_a_feature_to_where_the_new_roi_lies() -> None:
    """A base twice as large about the same centre: its middle quarter is the new RoI."""
    feature = torch.randn(3, 2, 14, 14)
    base = enlarge_rois(ROIS, 2.0)
    middle = torch.tensor([3.5, 3.5, 10.5, 10.5]).repeat(3, 1)
    rows = torch.cat([torch.arange(3.0)[:, None], middle], dim=1)
    expected = roi_align(feature, rows, 14, 1.0, sampling_ratio=0, aligned=True)
    torch.testing.assert_close(relative_roi_align(feature, base, ROIS, output_size=14), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(relative_roi_align(feature, base, base, output_size=14), feature, rtol=1e-4, atol=1e-4)


def test_clipped_boxes_are_inside_when_enlarged() -> None:
    boxes = torch.tensor([[10.0, 10.0, 50.0, 40.0], [0.0, 0.0, 5.0, 5.0]])
    limits = torch.tensor([[5.0, 5.0, 60.0, 45.0], [20.0, 20.0, 30.0, 30.0]])
    enlarged = enlarge_rois(torch.cat([torch.zeros(2, 1), keep_inside(boxes, limits, ratio=1.5)], dim=1), 1.5)[:, 1:]
    assert (enlarged[:, :2] >= limits[:, :2] - 1e-4).all()
    assert (enlarged[:, 2:] <= limits[:, 2:] + 1e-4).all()
