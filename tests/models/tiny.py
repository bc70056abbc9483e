"""A detector small enough to run in a second, for tests of behaviour."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsctool.config.loading import load_config
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.structures import Targets

NARROW = (
    "model.backbone.stem_channels=8",
    "model.neck.channels=16",
    "model.cascade.box_head.channels=32",
    "model.cascade.mask_head.channels=16",
)
SMALL = (
    "model.num_classes=3",
    *NARROW,
    "model.rpn.train_max_proposals=40",
    "model.rpn.test_max_proposals=40",
    "postprocess.max_per_image=20",
)


def tiny_detector(name: str = "htc_tiny", overrides: Sequence[str] = (), *, seed: int = 0) -> Detector:
    """A shrunken shipped detector with weights drawn by ``seed``."""
    torch.manual_seed(seed)
    return build_detector(load_config(name, [*SMALL, *overrides]))


def one_box(height: int, width: int, *, count: int = 2) -> Targets:
    """An image's annotation: ``count`` rectangles, classes 0, 1, ..., and a semantic map."""
    boxes = torch.tensor([[8.0 + 20 * i, 10.0, 40.0 + 20 * i, 50.0] for i in range(count)]).reshape(count, 4)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for i, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        masks[i, y1:y2, x1:x2] = True
    semantic = torch.full((height // 8, width // 8), 3)
    return Targets(boxes=boxes, labels=torch.arange(count) % 3, masks=masks, semantic=semantic)
