"""What every cascade offers to its surroundings: scores, and masks of its own or of any boxes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsctool.ops.boxes import scale_boxes
from tests.models.tiny import tiny_detector

CASCADES = ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny", "dsc_tiny"]
ALL = ["postprocess.score_threshold=0.0"]
SIZE = (64, 96)


@pytest.mark.parametrize("name", CASCADES)
@torch.no_grad()
def test_every_proposal_is_scored_in_its_place(name: str) -> None:
    model = tiny_detector(name).eval()
    features = model.extract_features(torch.randn(2, 3, *SIZE))
    proposals = [found.boxes for found in model.rpn.propose(features, [SIZE] * 2)]
    order = torch.randperm(len(proposals[1]))
    scored = model.cascade.score(features, proposals, [SIZE] * 2)
    shuffled = model.cascade.score(features, [proposals[0], proposals[1][order]], [SIZE] * 2)
    assert [len(boxes) for boxes in scored.boxes] == [len(boxes) for boxes in proposals]
    torch.testing.assert_close(shuffled.boxes[1], scored.boxes[1][order], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(shuffled.scores[1], scored.scores[1][order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASCADES)
@torch.no_grad()
def test_masks_do_not_depend_on_how_many_are_asked_for(name: str) -> None:
    """Rows of several images, in any order, some more than once."""
    model = tiny_detector(name).eval()
    features = model.extract_features(torch.randn(2, 3, *SIZE))
    proposals = [found.boxes for found in model.rpn.propose(features, [SIZE] * 2)]
    scored = model.cascade.score(features, proposals, [SIZE] * 2)
    first = len(scored.boxes[0])
    rows = torch.tensor([first + 3, 0, first, 5, 0])
    boxes = torch.cat(scored.boxes)[rows]
    rois = torch.cat([(rows >= first).float()[:, None], boxes], dim=1)
    labels = torch.tensor([0, 1, 2, 0, 1])
    together = model.cascade.masks(features, scored, rows, rois, labels)
    for place in range(len(rows)):
        alone = model.cascade.masks(features, scored, *(part[place : place + 1] for part in (rows, rois, labels)))
        torch.testing.assert_close(together.probs[place], alone.probs[0], rtol=1e-4, atol=1e-5)
        for stage, same in zip(together.stages, alone.stages, strict=True):
            torch.testing.assert_close(stage.boxes[place], same.boxes[0])
            torch.testing.assert_close(stage.probs[place], same.probs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["htc_tiny", "cascade_mask_rcnn_tiny"])
def test_masks_for_the_boxes_that_were_found_are_their_masks(name: str) -> None:
    model = tiny_detector(name, ALL).eval()
    image, original = torch.randn(1, 3, *SIZE), (128, 192)
    found = model.detect(image, original_sizes=[original])[0]
    boxes = scale_boxes(found.boxes, source=original, target=SIZE)
    with torch.no_grad():
        masks = model.cascade.masks_for(model.extract_features(image), [boxes], [found.labels])
    torch.testing.assert_close(masks.probs, found.mask_probs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fast_dsc_tiny", "dsc_tiny"])
def test_masks_for_boxes_that_no_stage_moves_are_those_of_the_cascade(name: str) -> None:
    """DSC's masks depend on the boxes of all its stages: where these are one, ``masks_for`` must give the same."""
    model = tiny_detector(name, ALL).eval()
    for stage in model.cascade.box_stages:
        torch.nn.init.zeros_(stage.head.regressor.weight)
    image = torch.randn(1, 3, *SIZE)
    found = model.detect(image, stage_masks=True)[0]
    with torch.no_grad():
        masks = model.cascade.masks_for(model.extract_features(image), [found.boxes], [found.labels])
    torch.testing.assert_close(masks.probs, found.mask_probs, rtol=1e-4, atol=1e-4)
    for stage, same in zip(found.stages, masks.stages, strict=True):
        torch.testing.assert_close(stage.probs, same.probs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASCADES)
def test_parts_at_inference_change_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = tiny_detector(name, ALL).eval(), torch.randn(1, 3, *SIZE)
    whole = model.detect(image, stage_masks=True)[0]
    monkeypatch.setattr("dsctool.models.roi.extractors._at_once", lambda device, roi_size: 7)
    parts = model.detect(image, stage_masks=True)[0]
    torch.testing.assert_close(parts.boxes, whole.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(parts.mask_probs, whole.mask_probs, rtol=1e-4, atol=1e-5)
    assert [stage.name for stage in parts.stages] == [stage.name for stage in whole.stages]


def test_thresholds_change_at_run_time() -> None:
    model, image = tiny_detector(overrides=ALL).eval(), torch.randn(1, 3, *SIZE)
    many = model.detect(image)[0]
    limit = float(many.scores[4])
    model.postprocess = replace(model.postprocess, score_threshold=limit, max_per_image=3, keep_candidates=9)
    few = model.detect(image)[0]
    assert torch.equal(few.boxes, many.boxes[:3])
    assert few.candidates is not None
    assert 3 <= len(few.candidates) <= 9
