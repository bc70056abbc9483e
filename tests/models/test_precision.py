"""Under bfloat16 autocast what is numerically delicate stays float32, and whole detectors stay near themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsctool.models.backbones.sac import DeformableConv, StandardisedConv, SwitchableAtrousConv
from dsctool.models.cascades.box_stage import class_scores
from dsctool.models.losses import box_loss, classification_loss, mask_loss, semantic_loss
from dsctool.models.postprocess import Postprocess
from dsctool.models.roi.box_head import BoxHead
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.roi.shape_guidance import relative_roi_align, shape_guided_roi_align
from dsctool.ops.boxes import box_area, box_iou, decode_boxes, encode_boxes
from dsctool.ops.deform_conv import deformable_conv
from dsctool.ops.masks import mask_targets
from dsctool.ops.roi_align import pyramid_roi_align, roi_align, roi_levels
from tests.models.tiny import one_box, tiny_detector

BOXES = torch.tensor([[300.0, 1.0, 523.0, 130.0], [301.0, 2.0, 521.0, 131.0], [5.0, 5.0, 9.0, 300.0]])
ROIS = torch.cat([torch.zeros(3, 1), BOXES], dim=1)
STDS = (0.1, 0.1, 0.2, 0.2)
PYRAMID = [torch.randn(1, 4, 512 // s, 544 // s, generator=torch.Generator().manual_seed(s)) for s in (4, 8, 16, 32)]
X = torch.randn(2, 8, 9, 12, generator=torch.Generator().manual_seed(0))
LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)) * 8
LABELS = torch.tensor([0, 1, 4])


def sac(x: Tensor, *, deformable: bool) -> Tensor:
    torch.manual_seed(0)
    module = SwitchableAtrousConv(8, 8, kernel_size=3, deformable=deformable)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module(x)


def deformable(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    module = DeformableConv(8, 8, kernel_size=3)
    torch.nn.init.normal_(module.conv_offset.weight, std=0.2)
    return module(x)


def standardised_weight(noise: Tensor) -> Tensor:
    torch.manual_seed(0)
    conv = StandardisedConv(8, 8, kernel_size=3)
    return conv.standardise(conv.weight + noise.mean() * 0, conv.weight_gamma, conv.weight_beta)


def suppressed(scores: Tensor) -> Tensor:
    chosen = Postprocess(score_threshold=0.01, nms_iou=0.9, max_per_image=9)(BOXES, scores)
    return torch.cat([chosen.boxes, chosen.scores[:, None]], dim=1)


OFFSETS = torch.randn(2, 18, 9, 12, generator=torch.Generator().manual_seed(2)).bfloat16().float()
WEIGHT = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(3)).bfloat16().float()
PARTS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "standardisation": (standardised_weight, X),
    "switchable atrous convolution": (lambda x: sac(x, deformable=False), X),
    "deformable switchable atrous convolution": (lambda x: sac(x, deformable=True), X),
    "deformable convolution with its offsets": (deformable, X),
    "deformable sampling": (
        lambda x: deformable_conv(x, OFFSETS.to(x), WEIGHT.to(x), stride=1, padding=1, dilation=1),
        X,
    ),
    "grouped deformable sampling": (
        lambda x: deformable_conv(x, OFFSETS, WEIGHT[:, :4].to(x), stride=1, padding=1, dilation=1, groups=2),
        X,
    ),
    "RoIAlign": (lambda x: roi_align(x, ROIS, output_size=7, stride=4), PYRAMID[0]),
    "RoIAlign of the semantic map": (lambda x: roi_align(x, ROIS, output_size=7, stride=8, pool=2), PYRAMID[1]),
    "RoIAlign on the pyramid": (
        lambda x: pyramid_roi_align([x, *PYRAMID[1:]], ROIS, output_size=7, strides=(4, 8, 16, 32)),
        PYRAMID[0],
    ),
    "SgRoIAlign": (
        lambda x: shape_guided_roi_align(
            [x, *PYRAMID[1:]], ROIS, torch.full((3, 28, 28), 0.3), output_size=7, plus_one=True
        ),
        PYRAMID[0],
    ),
    "feature alignment": (
        lambda x: relative_roi_align(x, ROIS, ROIS + torch.tensor([0, 1, 2, -3, 4]), output_size=7),
        torch.randn(3, 4, 14, 14, generator=torch.Generator().manual_seed(5)),
    ),
    "area": (box_area, BOXES),
    "IoU": (lambda boxes: box_iou(boxes, boxes), BOXES),
    "encoding": (lambda boxes: encode_boxes(boxes, boxes.flip(0), STDS), BOXES),
    "decoding": (lambda deltas: decode_boxes(BOXES, deltas, STDS), LOGITS[:, :4] / 8),
    "suppression": (suppressed, LOGITS.softmax(dim=1)),
    "softmax over classes": (lambda logits: class_scores([logits, logits.flip(0)]), LOGITS),
    "classification loss": (lambda logits: classification_loss(logits, LABELS).value, LOGITS),
    "box loss": (lambda deltas: box_loss(deltas, torch.zeros_like(deltas), beta=1.0, count=3).value, LOGITS[:, :4]),
    "mask loss": (lambda logits: mask_loss(logits[0], (logits[1] > 0).to(logits)).value, X),
    "semantic loss": (lambda logits: semantic_loss(logits, torch.ones(2, 9, 12, dtype=torch.int64)).value, X),
    "mask targets": (lambda boxes: mask_targets(torch.ones(1, 400, 600).bool(), boxes, LABELS * 0, 28), BOXES),
}
"""Every delicate part as a function of one tensor, and that tensor."""


@pytest.mark.parametrize("half", [False, True], ids=["float32 in", "bfloat16 in"])
@pytest.mark.parametrize("part", PARTS)
def test_part_stays_float32(part: str, half: bool) -> None:
    function, x = PARTS[part]
    given = x.bfloat16() if half else x
    expected = function(given.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = function(given)
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_levels_of_boxes_are_those_of_float32() -> None:
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in (111.0, 112.0, 113.0, 447.0, 448.0, 449.0)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert roi_levels(boxes, num_levels=4).tolist() == [0, 1, 1, 2, 3, 3]


def test_heads_hand_over_float32() -> None:
    x = torch.randn(2, 4, 7, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, deltas = BoxHead(in_channels=4, roi_size=7, channels=8, num_classes=3)(x)
        head = MaskHead(in_channels=4, channels=8, convs=1, num_classes=3)
        feature = head.feature(x)
        masks = [head.predict(feature), head.predict_classes(feature, torch.tensor([0, 2]))]
    assert feature.dtype == torch.bfloat16, "the heads themselves compute in half precision"
    assert {t.dtype for t in (logits, deltas, *masks)} == {torch.float32}


FAMILIES = ["cascade_mask_rcnn_tiny", "htc_tiny", "detectors_tiny", "dsc_tiny", "fast_dsc_tiny", "dsc_detectors_tiny"]


@pytest.mark.parametrize("name", FAMILIES)
def test_detector_stays_near_itself(name: str) -> None:
    """Pyramid within 3 % of its maximum; from the same proposals boxes within 1 px, scores 0.1, masks 0.1."""
    model = tiny_detector(name).eval()
    for path, parameter in model.named_parameters():
        if path.endswith("classifier.weight"):  # fresh ones hardly tell one class from another
            torch.nn.init.normal_(parameter, std=0.5)
    image, size = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)), [(64, 96)]
    with torch.no_grad():
        expected = model.extract_features(image)
        proposals = [model.rpn.propose(expected, size)[0].boxes]
        wanted = model.cascade.score(expected, proposals, size)
        labels = [torch.arange(len(proposals[0])) % 3]
        masks = model.cascade.masks_for(expected, proposals, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, detections = model.extract_features(image), model.detect(image)[0]
            found = model.cascade.score(features, proposals, size)
            found_masks = model.cascade.masks_for(features, proposals, labels)
    for x, y in zip(features, expected, strict=True):
        torch.testing.assert_close(x.float(), y, rtol=0, atol=0.03 * y.abs().max().item())
    torch.testing.assert_close(found.boxes[0], wanted.boxes[0], rtol=0, atol=1.0)
    torch.testing.assert_close(found.scores[0], wanted.scores[0], rtol=0, atol=0.1)
    torch.testing.assert_close(found_masks.probs, masks.probs, rtol=0, atol=0.1)
    assert detections.mask_probs is not None
    results = (detections.boxes, detections.scores, detections.mask_probs)
    assert {x.dtype for x in results} == {torch.float32}
    assert all(x.isfinite().all() for x in results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_losses_and_gradients_are_finite_and_near(name: str, dtype: torch.dtype) -> None:
    """Each loss within 4 % of its float32 value, and a gradient for every parameter."""
    model, image, targets = tiny_detector(name).train(), torch.randn(1, 3, 64, 96), [one_box(64, 96)]
    torch.manual_seed(0)
    expected = model.losses(image, targets)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=dtype):
        losses = model.losses(image, targets)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for key, loss in losses.items():
        assert loss.item() == pytest.approx(expected[key].item(), rel=0.04, abs=1e-3), key
    torch.stack(list(losses.values())).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
