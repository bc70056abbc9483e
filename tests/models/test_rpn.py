"""Region proposals against slow definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsctool.models.losses import values
from dsctool.models.rpn import RPN, UNIT_STDS, ProposalLimits, base_anchors, grid_anchors
from dsctool.ops.boxes import box_iou, decode_boxes
from dsctool.structures import settled
from tests.models.tiny import one_box, tiny_detector

SIZE = (64, 96)


@pytest.fixture
def rpn() -> RPN:
    rpn = tiny_detector().eval().rpn
    for conv in (rpn.objectness, rpn.deltas):  # scores and boxes that differ
        torch.nn.init.normal_(conv.weight, std=0.3)
    return rpn


def pyramid() -> list[Tensor]:
    """Features of an image of ``SIZE``."""
    return [torch.randn(1, 16, -(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in (4, 8, 16, 32, 64)]


def test_anchors_have_the_area_and_the_ratios_asked_for() -> None:
    base = base_anchors(8, scale=4, ratios=(0.5, 1.0, 2.0))
    width, height = (base[:, 2] - base[:, 0]), (base[:, 3] - base[:, 1])
    torch.testing.assert_close(width * height, torch.full((3,), 32.0**2))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]))


def test_anchors_of_a_cell_are_centred_on_its_corner() -> None:
    base = base_anchors(8, scale=4, ratios=(0.5, 2.0))
    anchors = grid_anchors(base, (3, 5), 8).view(3, 5, 2, 4)
    for i in range(3):
        for j in range(5):
            shift = torch.tensor([8.0 * j, 8.0 * i, 8.0 * j, 8.0 * i])
            torch.testing.assert_close(anchors[i, j], base + shift)


@torch.no_grad()
def slow_proposals(rpn: RPN, features: list[Tensor], limits: ProposalLimits) -> list[tuple[float, list[float]]]:
    """Level by level: the best anchors, moved and cut to the image; of those that overlap the better one stays."""
    logits, deltas = rpn(features)
    kept = []
    for score, delta, anchor in zip(logits, deltas, rpn.anchors(features), strict=True):
        scores = score[0].permute(1, 2, 0).flatten().sigmoid()
        moved = decode_boxes(anchor, delta[0].permute(1, 2, 0).reshape(-1, 4), UNIT_STDS)
        moved[:, 0::2] = moved[:, 0::2].clamp(0, SIZE[1])
        moved[:, 1::2] = moved[:, 1::2].clamp(0, SIZE[0])
        best = scores.argsort(descending=True)[: limits.pre_nms].tolist()
        chosen: list[int] = []
        for row in best:
            x1, y1, x2, y2 = moved[row].tolist()
            if x2 <= x1 or y2 <= y1:
                continue
            if (box_iou(moved[row][None], moved[chosen]) <= rpn.nms_iou).all():
                chosen.append(row)
        kept += [(float(scores[row]), moved[row].tolist()) for row in chosen]
    return sorted(kept, key=lambda pair: -pair[0])[: limits.max_proposals]


@pytest.mark.parametrize("limits", [ProposalLimits(200, 1000), ProposalLimits(20, 1000), ProposalLimits(200, 7)])
@torch.no_grad()
def test_proposals_are_those_of_the_slow_definition(rpn: RPN, limits: ProposalLimits) -> None:
    rpn.test_limits, features = limits, pyramid()
    found = rpn.propose(features, [SIZE])[0]
    expected = slow_proposals(rpn, features, limits)
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _ in expected]))
    torch.testing.assert_close(found.boxes, torch.tensor([box for _, box in expected]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("limits", "reached"),
    [
        (ProposalLimits(100_000, 100_000), set()),
        (ProposalLimits(100_000, 5), {"max_proposals"}),
        (ProposalLimits(50, 100_000), {"pre_nms"}),
        (ProposalLimits(50, 5), {"pre_nms", "max_proposals"}),
    ],
)
@torch.no_grad()
def test_limits_that_leave_out_objects(rpn: RPN, limits: ProposalLimits, reached: set[str]) -> None:
    rpn.test_limits = limits
    for objectness, expected in ((9.0, reached), (-9.0, set())):
        torch.nn.init.constant_(rpn.objectness.bias, objectness)
        assert settled([limits.reached(rpn.propose(pyramid(), [SIZE])[0])]) == [expected]


@torch.no_grad()
def test_proposals_without_area_go_unless_they_are_to_stay(rpn: RPN) -> None:
    torch.nn.init.constant_(rpn.deltas.bias, 0.0)
    rpn.deltas.bias[0::4] = 1000.0  # everything moves out at the right
    features = pyramid()
    assert len(rpn.propose(features, [SIZE])[0].boxes) == 0
    rpn.keep_zero_area = True
    boxes = rpn.propose(features, [SIZE])[0].boxes
    assert len(boxes) > 0
    assert (boxes[:, 0::2] == SIZE[1]).all()


def test_losses_look_at_anchors_inside_the_image_only(rpn: RPN) -> None:
    """What the padding of a canvas holds is no background."""
    rpn.sampling = replace(rpn.sampling, count=10_000)
    features, targets = pyramid(), [one_box(*SIZE)]
    inside = values(rpn.losses(features, targets, [SIZE])[0])
    cut = values(rpn.losses(features, targets, [(64, 60)])[0])
    assert inside["loss_rpn_cls"] != cut["loss_rpn_cls"]
    with torch.no_grad():
        for x in features:
            x[..., x.shape[-1] - 1 :] += 5.0  # beyond the cut image, and its convolution's reach
    again = values(rpn.losses(features, targets, [(64, 60)])[0])
    assert again["loss_rpn_cls"].item() == pytest.approx(cut["loss_rpn_cls"].item(), rel=1e-5)


@pytest.mark.parametrize("count", [0, 2])
def test_both_losses_are_divided_by_the_samples(rpn: RPN, count: int) -> None:
    """With logits of zero every sample costs ln 2."""
    for conv in (rpn.objectness, rpn.deltas):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    found, proposals = rpn.losses(pyramid(), [one_box(*SIZE, count=count)], [SIZE])
    losses = values(found)
    assert len(proposals) == 1
    positives = 0 if count == 0 else 1
    assert losses["loss_rpn_cls"].item() == pytest.approx(0.6931, rel=0.05)
    assert (losses["loss_rpn_bbox"].item() > 0) == bool(positives)
