"""What the mask heads of a cascade are trained on, and what becomes of their logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.errors import DataError
from dsctool.models.targets import Samples
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.structures import RoiMasks, StageMasks, Targets


def positive_labels(samples: Sequence[Samples], targets: Sequence[Targets]) -> Tensor:
    """The class ``(P,)`` of every positive sample of the batch."""
    return torch.cat([t.labels[s.positive_gt] for s, t in zip(samples, targets, strict=True)])


def positive_masks(
    samples: Sequence[Samples], targets: Sequence[Targets], *, size: int, geometry: Geometry = CURRENT
) -> Tensor:
    """The annotated mask under every positive sample: ``(P, size, size)`` float32, 0 or 1."""
    return torch.cat(
        [
            geometry.mask_targets(_masks_of(t), s.positive_boxes, s.positive_gt, size)
            for s, t in zip(samples, targets, strict=True)
        ]
    )


def mean_masks(rois: Tensor, stage_logits: Sequence[Tensor]) -> RoiMasks:
    """The mean of the masks of some stages, logits ``(R, s, s)`` each, that all look at ``rois (R, 5)``."""
    probs = [logits.float().sigmoid() for logits in stage_logits]
    stages = (StageMasks(f"stage {t}", rois[:, 1:], p) for t, p in enumerate(probs, start=1))
    return RoiMasks(torch.stack(probs).mean(dim=0), tuple(stages))


def _masks_of(target: Targets) -> Tensor:
    if target.masks is None:
        raise DataError("a mask head needs masks, but these targets have boxes only")
    return target.masks
