"""Non-maximum suppression within groups."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """The survivors of greedy suppression by IoU within each group: int64 rows, by descending score.

    Args:
        boxes: ``(n, 4)``, no coordinate below 0; scores: ``(n,)``; groups: ``(n,)``, whole numbers from 0.
        iou: overlap with a better box of the group above which one is dropped.
    """
    if not torch.compiler.is_exporting() and (boxes.device.type == "cpu" or not len(boxes)):
        return batched_nms(boxes, scores, groups, iou)
    # As torchvision does it for few boxes; beside that it sends a constant, and waits for every group of many.
    furthest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()  # of none: 0
    offsets = groups.to(boxes) * (furthest + 1)
    return nms(boxes + offsets[:, None], scores, iou)
