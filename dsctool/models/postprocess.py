"""From scored boxes to detections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@dataclass(frozen=True)
class Selected:
    """The survivors of multi-class NMS, by descending score.

    boxes ``(n, 4)``, scores ``(n,)``, labels ``(n,)`` int64, and rois ``(n,)`` int64: the row each came from.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rois: Tensor


@dataclass(frozen=True)
class Postprocess:
    """Multi-class NMS.

    score_threshold: candidates score more than this.
    nms_iou: a candidate that overlaps a better one of its class by more than this is dropped.
    max_per_image: detections kept.
    """

    score_threshold: float
    nms_iou: float
    max_per_image: int

    def __call__(self, boxes: Tensor, scores: Tensor) -> Selected:
        """Select from the boxes ``(R, 4)`` shared by all classes and ``scores (R, K)`` without background.

        Every (box, class) pair is a candidate of its own.
        """
        rows, labels = torch.nonzero(scores > self.score_threshold, as_tuple=True)
        candidates, candidate_scores = boxes[rows], scores[rows, labels]
        keep = batched_nms(candidates, candidate_scores, labels, self.nms_iou)[: self.max_per_image]
        return Selected(candidates[keep], candidate_scores[keep], labels[keep], rows[keep])
