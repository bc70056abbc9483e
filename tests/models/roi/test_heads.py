"""The heads behind RoIAlign: shapes, and slow definitions of what they compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dsctool.models.roi.box_head import BoxHead
from dsctool.models.roi.fusion import FeatureFusion, RoiBatchNorm
from dsctool.models.roi.mask_head import MaskHead


def test_box_head_is_two_hidden_layers_and_two_outputs() -> None:
    head = BoxHead(in_channels=4, roi_size=7, channels=16, num_classes=3)
    x = torch.randn(5, 4, 7, 7)
    hidden = F.relu(head.fc2(F.relu(head.fc1(x.flatten(1)))))
    logits, deltas = head(x)
    assert (logits.shape, deltas.shape) == ((5, 4), (5, 4))
    torch.testing.assert_close(logits, head.classifier(hidden))
    torch.testing.assert_close(deltas, head.regressor(hidden))


def test_box_head_fuses_a_mask_feature_before_its_layers() -> None:
    fusion = FeatureFusion(channels=6, out_channels=4, norm=True)
    head = BoxHead(in_channels=4, roi_size=7, channels=16, num_classes=3, fusion=fusion).eval()
    x, feature = torch.randn(5, 4, 7, 7), torch.randn(5, 6, 14, 14)
    assert not torch.equal(head(x, feature)[0], head(x)[0])
    torch.testing.assert_close(head(x, feature)[0], head(fusion(x, feature))[0])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("size", [7, 14])
def test_fusion_adds_what_the_other_feature_says(norm: bool, size: int) -> None:
    fusion = FeatureFusion(channels=6, out_channels=4, norm=norm).eval()
    x, feature = torch.randn(3, 4, 7, 7), torch.randn(3, 6, size, size)
    joining = fusion.conv(feature)
    joining = F.relu(joining if fusion.norm is None else fusion.norm(joining))
    if size == 14:
        joining = joining.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(fusion(x, feature), x + joining)


def test_a_batch_without_rois_leaves_the_statistics_alone() -> None:
    norm = RoiBatchNorm(4).train()
    norm(torch.randn(8, 4, 7, 7))
    before = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()
    out = norm(torch.zeros(0, 4, 7, 7))
    out.sum().backward()
    assert out.shape == (0, 4, 7, 7)
    assert norm.weight.grad is not None
    for old, new in zip(before, (norm.running_mean, norm.running_var, norm.num_batches_tracked), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("rois", [0, 3])
def test_mask_logits_are_a_transposed_convolution_and_a_classifier(rois: int) -> None:
    head = MaskHead(in_channels=4, channels=6, convs=2, num_classes=5)
    feature = torch.randn(rois, 6, 7, 7)
    logits = head.logits(F.relu(head.upsample(feature)))
    torch.testing.assert_close(head.predict(feature), logits)
    labels = torch.tensor([4, 0, 2][:rois], dtype=torch.int64)
    torch.testing.assert_close(head.predict_classes(feature, labels), logits[torch.arange(rois), labels])


def test_a_mask_head_without_fusion_takes_no_previous_feature() -> None:
    head = MaskHead(in_channels=4, channels=4, convs=2, num_classes=5)
    x = torch.randn(3, 4, 7, 7)
    assert torch.equal(head.feature(x, torch.randn(3, 4, 7, 7)), head.feature(x))
