"""Single functions against recordings of the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from dsctool.models.losses import box_loss, classification_loss, mask_loss, semantic_loss
from dsctool.models.postprocess import Postprocess
from dsctool.models.rpn import base_anchors, grid_anchors
from dsctool.models.targets import BACKGROUND, IGNORED, assign
from dsctool.ops.boxes import clip_boxes, decode_boxes, encode_boxes
from dsctool.ops.roi_align import roi_align, roi_levels
from tests.parity.published import difference, recording

EXACT = 1e-5
"""Relative tolerance of numbers that involve no learnt weights."""


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


@pytest.mark.parametrize("level", range(5))
def test_anchors(level: int) -> None:
    recorded = recording("component_anchors")
    stride = 4 * 2**level
    base = base_anchors(stride, scale=8, ratios=(0.5, 1.0, 2.0))
    height, width = recorded["feature_sizes"][level].tolist()
    anchors = grid_anchors(base, (height, width), stride)
    assert difference(base, recorded[f"base/{level}"]) < EXACT
    assert len(anchors) == recorded[f"count/{level}"]
    assert difference(anchors[:7], recorded[f"first/{level}"]) < 1e-4
    assert difference(anchors[-7:], recorded[f"last/{level}"]) < 1e-4
    np.testing.assert_allclose(anchors.double().sum(dim=0).numpy(), recorded[f"sum/{level}"], rtol=1e-6)


@pytest.mark.parametrize("case", range(4))
def test_box_coder(case: int) -> None:
    recorded = recording("component_bbox_coder")
    boxes, deltas, stds = tensor(recorded["boxes"]), tensor(recorded["deltas"]), recorded[f"stds/{case}"].tolist()
    encoded = encode_boxes(boxes, tensor(recorded["gt"]), stds)
    decoded = decode_boxes(boxes, deltas, stds)
    height, width = recorded["max_shape"].tolist()
    np.testing.assert_allclose(encoded.numpy(), recorded[f"encode/{case}"], rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(decoded.numpy(), recorded[f"decode_noclip/{case}"], rtol=EXACT, atol=1e-4)
    clipped = clip_boxes(decoded, (height, width))
    np.testing.assert_allclose(clipped.numpy(), recorded[f"decode/{case}"], rtol=EXACT, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "positive", "negative", "minimum", "low_quality"),
    [
        ("rpn", 0.7, 0.3, 0.3, True),
        ("rcnn0", 0.5, 0.5, 0.5, True),
        ("rcnn2", 0.7, 0.7, 0.7, True),
        ("rcnn0_nolow", 0.5, 0.5, 0.5, False),
        ("empty_gt", 0.5, 0.5, 0.5, True),
    ],
)
def test_assigner(case: str, positive: float, negative: float, minimum: float, low_quality: bool) -> None:
    recorded = recording("component_assigner")
    gt_boxes = tensor(recorded["gt_bboxes"])[: 0 if case == "empty_gt" else None]
    assigned = assign(
        tensor(recorded["proposals"]),
        gt_boxes,
        positive_iou=positive,
        negative_iou=negative,
        min_positive_iou=minimum,
        low_quality_matches=low_quality,
    )
    assert as_recorded(assigned) == recorded[f"{case}/gt_inds"].tolist()


@pytest.mark.parametrize("low_quality", [True, False])
def test_low_quality_match_takes_a_box_from_its_better_instance(low_quality: bool) -> None:
    recorded = recording("component_assigner")
    assigned = assign(
        tensor(recorded["stolen/proposals"]),
        tensor(recorded["stolen/gt"]),
        positive_iou=0.5,
        negative_iou=0.5,
        min_positive_iou=0.5,
        low_quality_matches=low_quality,
    )
    assert as_recorded(assigned) == recorded[f"stolen/low_quality_{low_quality}"].tolist()


def as_recorded(assigned: torch.Tensor) -> list[int]:
    """The recordings count instances from 1, 0 is background, -1 is ignored."""
    names = {BACKGROUND: 0, IGNORED: -1}
    return [names.get(value, value + 1) for value in assigned.tolist()]


def test_roi_align() -> None:
    recorded = recording("component_roi_align")
    stride = 1 / float(recorded["spatial_scale"])
    pooled = roi_align(tensor(recorded["input"]), tensor(recorded["rois"]), output_size=7, stride=stride)
    assert difference(pooled, recorded["output"]) < EXACT


def test_roi_levels() -> None:
    recorded = recording("component_roi_levels")
    levels = roi_levels(tensor(recorded["rois"])[:, 1:], num_levels=4)
    assert levels.tolist() == recorded["levels"].tolist()


@pytest.mark.parametrize(("threshold", "count"), [(0.05, 100), (0.001, 40), (0.3, 10), (0.999, 10)])
def test_multiclass_nms(threshold: float, count: int) -> None:
    recorded = recording("component_multiclass_nms")
    key = f"thr{threshold}_max{count}"
    scores = tensor(recorded["scores"])[:, :-1]  # the last column is background
    selected = Postprocess(score_threshold=threshold, nms_iou=0.5, max_per_image=count)(
        tensor(recorded["boxes"]), scores
    )
    assert selected.labels.tolist() == recorded[f"{key}/labels"].tolist()
    assert difference(selected.boxes, recorded[f"{key}/dets"][:, :4]) < EXACT
    assert difference(selected.scores, recorded[f"{key}/dets"][:, 4]) < EXACT
    flat = selected.rois * scores.shape[1] + selected.labels
    assert flat.tolist() == recorded[f"{key}/inds"].tolist()


def test_nms_keeps_an_overlap_of_exactly_the_threshold() -> None:
    recorded = recording("component_nms_boundary")
    boxes, scores = tensor(recorded["boxes"]), tensor(recorded["scores"])
    kept = batched_nms(boxes, scores, torch.zeros(len(boxes)), 0.5)
    assert kept.tolist() == recorded["keep_iou_half"].tolist()


def test_box_losses() -> None:
    recorded = recording("component_losses")
    weight = tensor(recorded["l1_weight"])
    pred, target = tensor(recorded["l1_pred"]) * weight, tensor(recorded["l1_target"]) * weight
    assert set(weight.flatten().tolist()) <= {0.0, 1.0}, "weighting before the loss is only right for 0 and 1"
    assert box_loss(pred, target, beta=1.0, count=20).value.item() == pytest.approx(
        float(recorded["smooth_l1_beta1_avg20"]), rel=EXACT
    )
    assert box_loss(pred, target, beta=1 / 9, count=256).value.item() == pytest.approx(
        float(recorded["smooth_l1_beta1_9_avg256"]), rel=EXACT
    )


def test_classification_loss() -> None:
    recorded = recording("component_losses")
    weighted = tensor(recorded["ce_weights"]) > 0
    assert set(recorded["ce_weights"].tolist()) <= {0.0, 1.0}
    logits, labels = tensor(recorded["ce_logits"])[weighted], tensor(recorded["ce_labels"])[weighted]
    ours = classification_loss(logits, labels).value.item() * len(labels) / 17
    assert ours == pytest.approx(float(recorded["ce_avg17"]), rel=EXACT)


def test_mask_loss() -> None:
    recorded = recording("component_losses")
    logits, labels = tensor(recorded["mask_logits"]), tensor(recorded["mask_labels"])
    own_class = logits[torch.arange(len(labels)), labels]
    ours = mask_loss(own_class, tensor(recorded["mask_targets"])).value.item()
    assert ours == pytest.approx(recorded["mask_bce"].item(), rel=EXACT)


def test_semantic_loss_divides_by_all_cells() -> None:
    recorded = recording("component_losses")
    ours = 0.2 * semantic_loss(tensor(recorded["sem_logits"]), tensor(recorded["sem_labels"])).value.item()
    assert ours == pytest.approx(float(recorded["sem_ce_w02_ignore255"]), rel=EXACT)
