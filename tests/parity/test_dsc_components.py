"""Single functions of DSC against the recorded components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dsctool.models.postprocess import Postprocess
from dsctool.models.roi.semantic_head import semantic_roi_feature
from dsctool.models.roi.shape_guidance import (
    enlarge_rois,
    keep_inside,
    relative_boxes,
    relative_roi_align,
    shape_guided_roi_align,
)
from dsctool.models.targets import RoiSampling
from dsctool.ops.boxes import clip_boxes, decode_boxes, encode_boxes, enlarge_boxes
from dsctool.ops.masks import mask_targets, paste_masks
from dsctool.ops.roi_align import pyramid_roi_align, roi_levels
from tests.conftest import RECORDINGS
from tests.parity.published import difference

Recorded = dict[str, np.ndarray]
STAGE_RATIOS = (2.0, 1.59, 1.26, 1.0)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with np.load(RECORDINGS / "dsc" / "components.npz") as file:
        return dict(file)


def tensor(recorded: Recorded, name: str) -> torch.Tensor:
    value = recorded[name]
    return torch.from_numpy(value.astype(np.float32) if value.dtype.kind == "f" else value.astype(np.int64))


@pytest.mark.parametrize("ratio", STAGE_RATIOS)
def test_enlarge(recorded: Recorded, ratio: float) -> None:
    assert difference(enlarge_rois(tensor(recorded, "enlarge.rois"), ratio), recorded[f"enlarge.out_{ratio}"]) < 1e-4


@pytest.mark.parametrize(("name", "size"), [("14", (14, 14)), ("7", (7, 7)), ("h10_w14", (10, 14))])
def test_relative_coordinates(recorded: Recorded, name: str, size: tuple[int, int]) -> None:
    rois, base = tensor(recorded, "relative.rois"), tensor(recorded, "relative.base_rois")
    ours = relative_boxes(rois[:, 1:], base[:, 1:], size)
    assert difference(ours, recorded[f"relative.relative_rois_{name}"][:, 1:]) < 1e-4


@pytest.mark.parametrize(("size", "cells"), [(14, 14), (14, 7), (7, 7)])
def test_relative_roi_align(recorded: Recorded, size: int, cells: int) -> None:
    rois, base = tensor(recorded, "relative.rois"), tensor(recorded, "relative.base_rois")
    feature = tensor(recorded, f"relative.feat{cells}")
    ours = relative_roi_align(feature, base, rois, output_size=size)
    assert difference(ours, recorded[f"relative.out{size}_from{cells}"]) < 1e-5
    if size == cells:
        torch.testing.assert_close(ours[0], feature[0])  # row 0 is the identity


def test_base_without_area(recorded: Recorded) -> None:
    base, rois = tensor(recorded, "relative.degenerate_base"), tensor(recorded, "relative.degenerate_rois")
    feature = tensor(recorded, "relative.feat14")[: len(rois)].requires_grad_()
    ours = relative_roi_align(feature, base, rois, output_size=14)
    assert difference(ours, recorded["relative.degenerate_out14"]) < 1e-5
    assert not ours[:2].any(), "the first two bases have no width or no height"
    ours.sum().backward()
    assert feature.grad is not None
    assert feature.grad.isfinite().all()


@pytest.mark.parametrize("cells", [28, 14])
def test_shape_guided_roi_align(recorded: Recorded, cells: int) -> None:
    features = [tensor(recorded, f"sg.feat{level}") for level in range(4)]
    rois, masks = tensor(recorded, "sg.rois"), tensor(recorded, f"sg.mask{cells}")
    assert roi_levels(rois[:, 1:], num_levels=4).tolist() == recorded["sg.levels"].tolist()
    assert difference(F.adaptive_avg_pool2d(masks, 7), recorded[f"sg.mask{cells}_pooled7"]) < 1e-6
    ours = shape_guided_roi_align(features, rois, masks[:, 0], output_size=7, plus_one=True)
    assert difference(ours, recorded[f"sg.out7_mask{cells}"]) < 1e-5
    plain = torch.from_numpy(recorded["sg.out7_nomask"])
    alone = shape_guided_roi_align(features, rois, masks[:, 0], output_size=7, plus_one=False)
    torch.testing.assert_close(alone, ours - plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [7, 14])
def test_roi_align(recorded: Recorded, size: int) -> None:
    features = [tensor(recorded, f"sg.feat{level}") for level in range(4)]
    ours = pyramid_roi_align(features, tensor(recorded, "sg.rois"), output_size=size, strides=(4, 8, 16, 32))
    assert difference(ours, recorded[f"sg.out{size}_nomask"]) < 1e-5


@pytest.mark.parametrize(("size", "name"), [(14, "semantic14_stride8"), (7, "semantic7_pooled")])
def test_semantic_feature(recorded: Recorded, size: int, name: str) -> None:
    ours = semantic_roi_feature(tensor(recorded, "sg.feat1"), tensor(recorded, "sg.rois"), output_size=size)
    assert difference(ours, recorded[f"sg.{name}"]) < 1e-5 * np.abs(recorded[f"sg.{name}"]).max()


def test_pooling_upwards_repeats(recorded: Recorded) -> None:
    assert difference(F.adaptive_avg_pool2d(tensor(recorded, "pool.x7"), 14), recorded["pool.x7_to_14"]) < 1e-6


@pytest.mark.parametrize("t", [0, 1, 2])
def test_refinement_and_clipping(recorded: Recorded, t: int) -> None:
    rois, deltas = tensor(recorded, "clip.rois")[:, 1:], tensor(recorded, "clip.deltas")
    height, width = recorded["clip.img_shape"][:2].tolist()
    moved = clip_boxes(decode_boxes(rois, deltas, recorded["clip.stds"][t].tolist()), (height, width))
    assert difference(moved, recorded[f"clip.s{t}.decoded"]) < 1e-4
    assert difference(moved, recorded[f"clip.s{t}.reference_out"]) < 1e-4  # published: clipping has no effect
    limits = enlarge_boxes(rois, STAGE_RATIOS[t])
    assert difference(limits, recorded[f"clip.s{t}.enlarged"][:, 1:]) < 1e-4
    kept = keep_inside(moved, limits, ratio=STAGE_RATIOS[t + 1])
    assert difference(kept, recorded[f"clip.s{t}.own_intended"]) < 1e-4
    enlarged = enlarge_boxes(kept, STAGE_RATIOS[t + 1])
    assert difference(enlarged, recorded[f"clip.s{t}.own_intended_next_enlarged"]) < 1e-4


@pytest.mark.parametrize("case", ["a", "b", "none"])
def test_nms_says_which_rois_it_kept(recorded: Recorded, case: str) -> None:
    threshold, iou, count = recorded[f"nms.{case}.args"].tolist()
    postprocess = Postprocess(score_threshold=threshold, nms_iou=iou, max_per_image=int(count))
    scores = tensor(recorded, "nms.scores")[:, :-1]
    selected = postprocess(tensor(recorded, "nms.boxes"), scores)
    det = torch.cat([selected.boxes, selected.scores[:, None]], dim=1)
    assert difference(det, recorded[f"nms.{case}.det"]) < 1e-6
    assert selected.labels.tolist() == recorded[f"nms.{case}.labels"].tolist()
    assert selected.rois.tolist() == recorded[f"nms.{case}.roi_inds"].tolist()


@pytest.mark.parametrize("size", [28, 14])
def test_mask_targets(recorded: Recorded, size: int) -> None:
    shape = recorded["masktarget.shape"].tolist()
    bits = np.unpackbits(recorded["masktarget.gt_masks_packed"], axis=1)[:, : shape[1] * shape[2]]
    masks = torch.from_numpy(bits.reshape(shape))
    ours = mask_targets(masks, tensor(recorded, "masktarget.boxes"), tensor(recorded, "masktarget.gt_inds"), size)
    assert int((ours.numpy() != recorded[f"masktarget.out{size}"]).sum()) <= 2


@pytest.mark.parametrize(("t", "threshold"), [(0, 0.5), (1, 0.6), (2, 0.7)])
def test_assigning(recorded: Recorded, t: int, threshold: float) -> None:
    sampling = RoiSampling(iou_threshold=threshold, low_quality_matches=False, count=10**6, positive_fraction=0.25)
    boxes, gt_boxes = tensor(recorded, "sampler.proposals")[:, :4], tensor(recorded, "sampler.gt_boxes")
    (samples,) = sampling([boxes], [gt_boxes])
    if t > 0:
        drawn_without_gt = sampling([boxes], [gt_boxes[:0]])
        (samples,) = sampling.reassign(drawn_without_gt, [boxes], [gt_boxes])
    assert (
        difference(samples.boxes, recorded[f"sampler.s{t}.bboxes" if t == 0 else f"sampler.s{t}.unsampled_bboxes"]) == 0
    )
    assert samples.is_gt.int().tolist() == recorded[f"sampler.s{t}.gt_flags"].tolist()
    assert samples.positive_gt.tolist() == recorded[f"sampler.s{t}.pos_assigned_gt_inds"].tolist()
    labels = samples.labels(tensor(recorded, "sampler.gt_labels"), 3)
    assert labels.tolist() == recorded[f"sampler.s{t}.target_labels"].tolist()
    deltas = torch.zeros(len(samples.boxes), 4)
    stds = recorded["clip.stds"][2].tolist()
    deltas[samples.positives] = encode_boxes(samples.positive_boxes, gt_boxes[samples.positive_gt], stds)
    assert difference(deltas, recorded[f"sampler.s{t}.target_bbox_targets"]) < 1e-4


def test_coder(recorded: Recorded) -> None:
    source, target = tensor(recorded, "coder.src"), tensor(recorded, "coder.dst")
    stds = recorded["clip.stds"][2].tolist()
    assert difference(encode_boxes(source, target, stds), recorded["coder.encoded_stage3_stds"]) < 1e-4
    decoded = clip_boxes(decode_boxes(source, tensor(recorded, "coder.big_deltas"), stds), (160, 192))
    assert difference(decoded, recorded["coder.decoded_big_clipped"]) < 1e-3


@pytest.mark.parametrize(("name", "size"), [("160x192", (160, 192)), ("120x144_rescaled", (120, 144))])
def test_paste(recorded: Recorded, name: str, size: tuple[int, int]) -> None:
    labels = tensor(recorded, "paste.labels")
    probs = tensor(recorded, "paste.logits")[torch.arange(len(labels)), labels].sigmoid()
    boxes = tensor(recorded, "paste.boxes")[:, :4] * (size[0] / 160)
    ours = paste_masks(probs, boxes, size).flatten(1).numpy()
    theirs = np.unpackbits(recorded[f"paste.packed_{name}"], axis=1)[:, : size[0] * size[1]].astype(bool)
    assert int((ours != theirs).sum()) <= 2
