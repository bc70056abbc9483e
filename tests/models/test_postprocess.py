"""Suppression of double detections: what box, soft and mask NMS keep of two neighbours and a double."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dsctool.config.loading import load_config
from dsctool.errors import ConfigError
from dsctool.models.postprocess import Postprocess, Selected, Suppression
from dsctool.ops.boxes import box_iou
from dsctool.structures import Detections, settled
from tests.models.tiny import tiny_detector

SIZE = (100, 100)
BOXES = torch.tensor([[10.0, 10.0, 90.0, 90.0], [14.0, 10.0, 94.0, 90.0], [10.0, 12.0, 90.0, 92.0]])
"""Two bananas side by side (the first two) whose boxes nearly coincide, and a double of the first."""
SCORES = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.7, 0.3]])


def diagonal(upper: bool) -> Tensor:
    """Mask of one side of the diagonal, ``(28, 28)``."""
    y, x = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    return ((x > y) if upper else (x < y)).float()


MASKS = torch.stack([diagonal(True), diagonal(False), diagonal(True)])


def detect(nms: Suppression, *, nms_iou: float = 0.5, max_per_image: int = 10) -> Detections:
    """What is left of the three boxes; masks follow the RoI."""
    postprocess = Postprocess(score_threshold=0.05, nms_iou=nms_iou, max_per_image=max_per_image, nms=nms)
    selected: Selected = postprocess(BOXES, SCORES)
    found = Detections(selected.boxes, selected.scores, selected.labels, MASKS[selected.rois], SIZE)
    return postprocess.suppress_masks([found])[0]


def test_box_nms_kills_the_neighbour() -> None:
    found = detect("box")
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])


def test_mask_nms_keeps_the_neighbour_and_drops_the_double() -> None:
    found = detect("mask")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3])
    assert torch.equal(found.boxes[1], BOXES[1])


def test_soft_nms_keeps_all_with_less_score() -> None:
    found = detect("soft")
    # IoU of the first box with the second 6080 / 6720, with the third 6240 / 6560, of these two 76 * 78 / 6872.
    second, third = 0.8 * (1 - 6080 / 6720), 0.7 * (1 - 6240 / 6560)
    third *= 1 - 5928 / 6872
    assert found.scores.tolist() == pytest.approx([0.9, 0.3, second], abs=1e-4)
    assert third < 0.05, "weakened below the threshold"


def soft_by_definition(boxes: Tensor, scores: Tensor, process: Postprocess) -> list[tuple[int, int, float]]:
    """Rows, labels and scores, one candidate after the other of all that there are."""
    left = {(row, label): float(score) for (row, label), score in np.ndenumerate(scores.numpy()) if score > 0.01}
    overlap = box_iou(boxes, boxes).numpy()
    chosen = []
    while left and len(chosen) < process.max_per_image:
        best = max(left, key=lambda each: left[each])
        chosen.append((*best, left.pop(best)))
        for row, label in left:
            share = overlap[best[0], row]
            if label == best[1] and share > process.nms_iou:
                left[row, label] *= 1 - share
    return [each for each in chosen if each[2] > process.score_threshold]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [1, 3, 20, 300])
def test_soft_nms_of_the_best_is_soft_nms_of_all(seed: int, limit: int) -> None:
    """In heaps too, where the best lose so much that the next ones have to be looked at."""
    torch.manual_seed(seed)
    corners = torch.rand(80, 2) * (4, 30, 200)[seed % 3]
    boxes = torch.cat([corners, corners + 20 + 10 * torch.rand(80, 2)], dim=1)
    scores = torch.rand(80, 2 + 14 * (seed % 2))
    process = Postprocess(0.01, 0.3, limit, "soft")
    found = process(boxes, scores)
    expected = soft_by_definition(boxes, scores, process)
    assert list(zip(found.rois.tolist(), found.labels.tolist(), strict=True)) == [each[:2] for each in expected]
    assert found.scores.tolist() == pytest.approx([each[2] for each in expected], rel=1e-4)


def test_soft_nms_without_overlap_changes_nothing() -> None:
    found = detect("soft", nms_iou=0.99)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.3])


@pytest.mark.parametrize("nms", ["box", "soft", "mask"])
def test_limits(nms: Suppression) -> None:
    assert len(detect(nms, max_per_image=1)) == 1
    nothing = Postprocess(score_threshold=0.95, nms_iou=0.5, max_per_image=10, nms=nms)(BOXES, SCORES)
    assert len(nothing.boxes) == 0


def test_mask_candidates() -> None:
    postprocess = Postprocess(score_threshold=0.05, nms_iou=0.5, max_per_image=10, nms="mask", mask_candidates=2)
    assert postprocess(BOXES, SCORES).scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("nms", "max_per_image", "mask_candidates", "scale", "reached"),
    [
        ("box", 2, 1, 1.0, {"max_per_image"}),
        ("box", 3, 1, 1.0, set()),
        ("box", 1, 1, 0.1, set()),  # what was left out is unlikely to be anything
        ("soft", 1, 1, 1.0, {"max_per_image"}),
        ("mask", 9, 2, 1.0, {"mask_candidates"}),
        ("mask", 2, 2, 1.0, {"mask_candidates", "max_per_image"}),
        ("mask", 2, 4, 1.0, {"max_per_image", "mask_candidates"}),
        ("mask", 9, 9, 1.0, set()),
    ],
)
def test_limits_that_leave_out_something_likely(
    nms: Suppression, max_per_image: int, mask_candidates: int, scale: float, reached: set[str]
) -> None:
    postprocess = Postprocess(
        score_threshold=0.001, nms_iou=0.5, max_per_image=max_per_image, nms=nms, mask_candidates=mask_candidates
    )
    selected = postprocess(BOXES, scale * SCORES)
    found = Detections(selected.boxes, selected.scores, selected.labels, MASKS[selected.rois], SIZE)
    (left,) = postprocess.suppress_masks([found])
    assert settled([postprocess.reached(selected, left)]) == [reached]


@pytest.mark.parametrize("name", ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny"])
@pytest.mark.parametrize("nms", ["box", "soft", "mask"])
def test_every_cascade_says_which_limits_it_reached(name: str, nms: str) -> None:
    overrides = ["postprocess.score_threshold=0", "postprocess.nms_iou=0.99", f"postprocess.nms={nms}"]
    few = ["postprocess.max_per_image=3", "postprocess.mask_candidates=5", "model.rpn.test_max_proposals=4"]
    image = torch.randn(1, 3, 64, 96)
    for objectness, limits in ((9.0, {"max_proposals", "pre_nms"}), (-9.0, set())):
        model = tiny_detector(name, [*overrides, *few, "model.rpn.test_pre_nms=60"]).eval()
        torch.nn.init.constant_(model.rpn.objectness.bias, objectness)
        (found,) = model.detect(image)
        masks = {"mask_candidates"} if nms == "mask" else set()
        assert found.reached == limits | masks | {"max_per_image"}
        assert found[torch.tensor([0])].reached == found.reached


@pytest.mark.parametrize("name", ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny"])
@pytest.mark.parametrize("nms", ["soft", "mask"])
def test_every_cascade_offers_them(name: str, nms: str, device: torch.device) -> None:
    overrides = ["postprocess.score_threshold=0.0", f"postprocess.nms={nms}", "postprocess.mask_candidates=15"]
    model = tiny_detector(name, overrides).to(device).eval()
    found = model.detect(torch.randn(1, 3, 64, 96, device=device), stage_masks=True)[0]
    assert 0 < len(found) <= 20
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert all(len(stage.boxes) == len(found) for stage in found.stages)


def test_mask_nms_needs_masks() -> None:
    with pytest.raises(ConfigError, match="needs a mask head"):
        load_config("cascade_rcnn_r50_fpn_1x_coco", ["postprocess.nms=mask"])


@pytest.mark.parametrize("nms", ["box", "soft", "mask"])
def test_candidates_are_kept_on_request(nms: Suppression) -> None:
    """As they were before suppression: the best ones by score, of all classes."""
    plain = Postprocess(score_threshold=0.05, nms_iou=0.5, max_per_image=10, nms=nms)
    assert plain(BOXES, SCORES).candidates is None
    selected = replace(plain, keep_candidates=3)(BOXES, SCORES)
    assert torch.equal(selected.scores, plain(BOXES, SCORES).scores)
    assert selected.candidates is not None
    assert selected.candidates.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert torch.equal(selected.candidates.boxes, BOXES)


@pytest.mark.parametrize("name", ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny"])
@pytest.mark.parametrize("nms", ["box", "mask"])
def test_detections_come_with_candidates(name: str, nms: str) -> None:
    overrides = ["postprocess.score_threshold=0.0", f"postprocess.nms={nms}", "postprocess.max_per_image=4"]
    image = torch.randn(1, 3, 64, 96)
    plain = tiny_detector(name, overrides).eval().detect(image, original_sizes=[(128, 192)])[0]
    found = tiny_detector(name, [*overrides, "postprocess.keep_candidates=30"]).eval()
    kept = found.detect(image, original_sizes=[(128, 192)])[0]
    assert plain.candidates is None
    assert kept.candidates is not None
    assert torch.equal(plain.boxes, kept.boxes), "results do not depend on it"
    assert len(kept) < len(kept.candidates) == 30
    assert kept.candidates.mask_probs is None
    assert kept.candidates.scores.tolist() == sorted(kept.candidates.scores.tolist(), reverse=True)
    rows = {tuple(box) for box in kept.candidates.boxes.tolist()}
    assert tuple(kept.boxes[0].tolist()) in rows, "in the pixels of the results"
    assert kept.to("cpu").candidates is not None
