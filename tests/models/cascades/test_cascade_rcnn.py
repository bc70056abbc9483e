"""Cascade R-CNN: its loop, and DSC with all guidance off as another way to write it."""

from __future__ import annotations

import pytest
import torch

from dsctool.models.cascades.cascade_rcnn import CascadeRCNN
from dsctool.models.cascades.dsc import DSC
from dsctool.ops.roi_align import boxes_to_rois
from tests.models.tiny import one_box, tiny_detector

SIZE = (64, 96)
NO_GUIDANCE = [
    "model.cascade.explicit_guidance=false",
    "model.cascade.implicit_guidance=false",
    "model.cascade.alignment=none",
    "model.cascade.averaged_stages=[0, 1, 2]",
    "data.semantic=none",
]


@torch.no_grad()
def test_stages_refine_one_after_the_other_and_their_logits_are_averaged() -> None:
    model = tiny_detector("cascade_mask_rcnn_tiny").eval()
    cascade = model.cascade
    assert isinstance(cascade, CascadeRCNN)
    features = model.extract_features(torch.randn(1, 3, *SIZE))
    proposals = torch.tensor([[5.0, 5.0, 30.0, 40.0], [20.0, 10.0, 90.0, 60.0]])
    boxes, logits = proposals, []
    for stage in cascade.box_stages:
        own, deltas = stage(features, None, boxes_to_rois([boxes]))
        logits.append(own)
        (boxes,) = stage.refine([boxes], deltas, [SIZE])
    scored = cascade.score(features, [proposals], [SIZE])
    torch.testing.assert_close(scored.boxes[0], boxes)
    torch.testing.assert_close(scored.scores[0], (sum(logits) / len(logits)).softmax(dim=1)[:, :-1])


def test_losses_are_weighted_by_stage() -> None:
    images, targets = torch.randn(1, 3, *SIZE), [one_box(*SIZE)]
    found = []
    for weights in ("[1.0, 0.5, 0.25]", "[2.0, 0.5, 0.25]"):
        model = tiny_detector("cascade_mask_rcnn_tiny", [f"model.cascade.stage_loss_weights={weights}"])
        torch.manual_seed(3)
        found.append({name: value.item() for name, value in model.losses(images, targets).items()})
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(2 * value if name.startswith("s0.") else value), name


@torch.no_grad()
def test_dsc_without_any_guidance_is_a_cascade_rcnn() -> None:
    plain, unguided = tiny_detector("cascade_mask_rcnn_tiny").eval(), tiny_detector("dsc_tiny", NO_GUIDANCE).eval()
    assert isinstance(unguided.cascade, DSC)
    plain.cascade.box_stages.load_state_dict(unguided.cascade.box_stages.state_dict())
    for ours, theirs in zip(plain.cascade.box_stages, unguided.cascade.box_stages, strict=True):
        ours.stds = theirs.stds
    features = plain.extract_features(torch.randn(2, 3, *SIZE))
    proposals = [found.boxes for found in plain.rpn.propose(features, [SIZE] * 2)]
    expected = plain.cascade.score(features, proposals, [SIZE] * 2)
    scored = unguided.cascade.score(features, proposals, [SIZE] * 2)
    for image in range(2):
        torch.testing.assert_close(scored.boxes[image], expected.boxes[image], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(scored.scores[image], expected.scores[image], rtol=1e-4, atol=1e-5)
