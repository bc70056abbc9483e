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
    shifted = boxes + offsets[:, None]
    return _exportable_nms(shifted, scores, iou) if torch.compiler.is_exporting() else nms(shifted, scores, iou)


def _exportable_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Suppression that may keep one box, or none: ``torch.export`` believes that two stay, and sees to it.

    So there are two more, which overlap nothing and score least.
    """
    more = boxes.new_tensor([[-2.0, -2.0, -1.0, -1.0], [-4.0, -4.0, -3.0, -3.0]])
    return nms(torch.cat([boxes, more]), torch.cat([scores, scores.new_full((2,), -1e30)]), iou)[:-2]
