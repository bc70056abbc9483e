"""Anchors that fit boxes, against boxes and anchors that are laid over each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsctool.data.anchor_fit import STRIDES, fit_anchors, mean_best_iou
from dsctool.models.rpn import base_anchors
from dsctool.ops.boxes import box_iou

RATIOS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_the_best_anchor_is_that_of_the_network(scale: float) -> None:
    boxes = np.random.default_rng(0).uniform(4, 300, (50, 2))
    best = torch.zeros(50, dtype=torch.float64)
    for stride in STRIDES:
        anchors = base_anchors(stride, scale=scale, ratios=RATIOS).double()
        half = torch.from_numpy(boxes) / 2
        shifted = torch.cat([stride / 4 - half, stride / 4 + half], dim=1)
        best = torch.maximum(best, box_iou(shifted, anchors).amax(dim=1))
    assert mean_best_iou(boxes, scale, RATIOS) == pytest.approx(float(best.mean()), abs=1e-6)


def test_small_boxes_want_small_anchors_and_long_ones_long_ones() -> None:
    rng = np.random.default_rng(1)
    sides = rng.uniform(7, 14, 300)
    small = fit_anchors(np.stack([sides, sides], axis=1), 8.0, RATIOS)
    assert small.scale <= 3
    upright = fit_anchors(np.stack([sides, 5 * sides * rng.uniform(0.8, 1.2, 300)], axis=1), 8.0, RATIOS)
    assert len(upright.ratios) == 3
    assert min(upright.ratios) > 3
    assert upright.iou > mean_best_iou(np.stack([sides, 5 * sides], axis=1), 8.0, RATIOS)


def test_what_is_as_good_stays() -> None:
    """Boxes that are the anchors themselves, and no boxes."""
    corners = [base_anchors(stride, scale=8, ratios=RATIOS).numpy() for stride in STRIDES]
    anchors = np.concatenate([each[:, 2:] - each[:, :2] for each in corners])
    found = fit_anchors(anchors.astype(float), 8.0, RATIOS)
    assert (found.scale, found.ratios) == (8.0, RATIOS)
    assert fit_anchors(np.zeros((0, 2)), 4.0, RATIOS).scale == 4.0
