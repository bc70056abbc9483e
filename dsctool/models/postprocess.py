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
        order = scores[rows, labels].argsort(descending=True, stable=True)
        rows, labels = rows[order], labels[order]
        keep = self._survivors(boxes[rows], scores[rows, labels], labels)
        rows, labels = rows[keep], labels[keep]
        return Selected(boxes[rows], scores[rows, labels], labels, rows)

    def _survivors(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """The first ``max_per_image`` survivors of candidates in descending order of score.

        Greedy NMS never lets a candidate touch a better one, so a prefix that holds enough survivors
        decides them all; with low thresholds the candidates are tens of thousands.
        """
        count = 10 * self.max_per_image
        while True:
            keep = batched_nms(boxes[:count], scores[:count], labels[:count], self.nms_iou)
            if len(keep) >= self.max_per_image or count >= len(boxes):
                return keep[: self.max_per_image]
            count *= 4
