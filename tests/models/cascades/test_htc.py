"""Hybrid task cascade: what its equations say, with any weights."""

from __future__ import annotations

import torch

from dsctool.models.cascades.htc import HTC
from dsctool.models.losses import values
from dsctool.models.roi.extractors import roi_feature
from dsctool.ops.roi_align import boxes_to_rois
from tests.models.tiny import one_box, tiny_detector

SIZE = (64, 96)
BOXES = torch.tensor([[5.0, 5.0, 30.0, 40.0], [20.0, 10.0, 90.0, 60.0], [0.0, 0.0, 12.0, 9.0]])


def cascade(*overrides: str) -> tuple[HTC, list[torch.Tensor]]:
    """A tiny HTC and the features of an image."""
    model = tiny_detector("htc_tiny", overrides).eval()
    assert isinstance(model.cascade, HTC)
    with torch.no_grad():
        return model.cascade, model.extract_features(torch.randn(1, 3, *SIZE))


@torch.no_grad()
def test_scores_are_the_softmax_of_the_mean_logits_and_boxes_move_at_every_stage() -> None:
    htc, features = cascade("data.semantic=none")
    boxes, logits = BOXES, []
    for stage in htc.box_stages:
        own, deltas = stage(features, None, boxes_to_rois([boxes]))
        logits.append(own)
        (boxes,) = stage.refine([boxes], deltas, [SIZE])
    scored = htc.score(features, [BOXES], [SIZE])
    torch.testing.assert_close(scored.boxes[0], boxes)
    torch.testing.assert_close(scored.scores[0], (sum(logits) / 3).softmax(dim=1)[:, :-1])


@torch.no_grad()
def test_a_mask_is_the_mean_of_the_stages_and_each_gets_the_feature_of_the_one_before() -> None:
    htc, features = cascade("data.semantic=none")
    x = roi_feature(features, None, boxes_to_rois([BOXES]), output_size=htc.mask_roi_size)
    labels, flowing, stages = torch.tensor([0, 2, 1]), None, []
    for head in htc.mask_heads:
        flowing = head.feature(x, flowing)
        stages.append(head.predict(flowing)[range(3), labels].sigmoid())
    masks = htc.masks_for(features, [BOXES], [labels])
    torch.testing.assert_close(masks.probs, sum(stages) / 3)
    for stage, own in zip(masks.stages, stages, strict=True):
        torch.testing.assert_close(stage.probs, own)
        assert torch.equal(stage.boxes, BOXES)


@torch.no_grad()
def test_the_semantic_branch_reaches_boxes_and_masks() -> None:
    htc, features = cascade()
    assert htc.semantic_head is not None
    labels = [torch.tensor([0, 2, 1])]
    before = htc.score(features, [BOXES], [SIZE]), htc.masks_for(features, [BOXES], labels)
    assert before[0].semantic is not None
    assert htc.semantic_head.predict(before[0].semantic[0]).shape == (1, 4, 8, 12)
    htc.semantic_head.embedding.bias.data.add_(1.0)
    after = htc.score(features, [BOXES], [SIZE]), htc.masks_for(features, [BOXES], labels)
    assert not torch.equal(before[0].scores[0], after[0].scores[0])
    assert not torch.equal(before[1].probs, after[1].probs)


def test_mask_stages_train_on_boxes_that_the_box_stage_has_just_moved() -> None:
    """Interleaved execution: a first regressor that moves every box away takes away its mask samples."""
    model = tiny_detector("htc_tiny", ["model.cascade.samples=1000"])
    features, targets = model.extract_features(torch.randn(1, 3, *SIZE)), one_box(*SIZE)
    losses = []
    for shift in (0.0, 30.0):
        torch.nn.init.constant_(model.cascade.box_stages[0].head.regressor.bias, shift)
        found = model.cascade.losses(features, [targets.boxes + 2], [targets], [SIZE])
        losses.append({name: value.item() for name, value in values(found).items()})
    assert losses[0]["s0.loss_cls"] == losses[1]["s0.loss_cls"]
    assert losses[0]["s0.loss_mask"] != losses[1]["s0.loss_mask"]
