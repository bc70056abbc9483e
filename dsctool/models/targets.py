"""Which candidate box stands for which instance: assigning and sampling, pure functions.

Randomness comes from torch's default generator of the CPU alone, so one seed fixes it on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsctool.ops.boxes import box_iou

IGNORED = -2
"""Neither positive nor background."""
BACKGROUND = -1


def assign(
    boxes: Tensor,
    gt_boxes: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    min_positive_iou: float,
    low_quality_matches: bool,
) -> Tensor:
    """The instance each box stands for, by IoU (Ren et al. 2015, section 3.1.2).

    A box whose best IoU is below ``negative_iou`` is background; at ``positive_iou`` or above it
    stands for its best instance; between the two it is ignored. With ``low_quality_matches`` every
    instance, in order, also claims all boxes that reach its own best IoU, when that is at least
    ``min_positive_iou``, even from a box's better instance.

    Args:
        boxes: ``(n, 4)``; gt_boxes: ``(G, 4)``.

    Returns:
        ``(n,)`` int64: index of an instance, ``BACKGROUND`` or ``IGNORED``.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    iou = box_iou(gt_boxes, boxes)  # (G, n)
    best_iou, best_gt = iou.max(dim=0)
    assigned = torch.full_like(best_gt, IGNORED)
    assigned[best_iou < negative_iou] = BACKGROUND
    assigned = torch.where(best_iou >= positive_iou, best_gt, assigned)
    if low_quality_matches:
        gt_best_iou = iou.amax(dim=1, keepdim=True)
        claims = (iou == gt_best_iou) & (gt_best_iou >= min_positive_iou)  # (G, n)
        # A later instance overwrites an earlier one: the last claim counts.
        last = len(gt_boxes) - 1 - claims.flip(0).to(torch.uint8).argmax(dim=0)
        assigned = torch.where(claims.any(dim=0), last, assigned)
    return assigned


def sample(assigned: Tensor, *, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw up to ``count`` candidates, at most ``positive_fraction`` of them positive.

    Args:
        assigned: ``(n,)`` from :func:`assign`.

    Returns:
        Indices of the positives and of the negatives, each ascending. Negatives fill up what
        positives leave free.
    """
    positives = _draw(torch.nonzero(assigned >= 0).flatten(), int(count * positive_fraction))
    negatives = _draw(torch.nonzero(assigned == BACKGROUND).flatten(), count - len(positives))
    return positives, negatives


def _draw(candidates: Tensor, count: int) -> Tensor:
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates))[:count].sort().values
    return candidates[chosen.to(candidates.device)]


@dataclass(frozen=True)
class Samples:
    """The boxes of one image that a stage trains on: the positives first, then the negatives.

    boxes: ``(n, 4)``.
    positive_gt: ``(p,)`` the instance of each of the first p boxes.
    positive_is_gt: ``(p,)`` bool: the box is an annotated box itself, not a proposal.
    """

    boxes: Tensor
    positive_gt: Tensor
    positive_is_gt: Tensor

    @property
    def positive_boxes(self) -> Tensor:
        """``(p, 4)``."""
        return self.boxes[: len(self.positive_gt)]

    @property
    def is_gt(self) -> Tensor:
        """``(n,)`` bool: annotated boxes among all samples."""
        flags = self.positive_is_gt.new_zeros(len(self.boxes))
        flags[: len(self.positive_is_gt)] = self.positive_is_gt
        return flags

    def labels(self, gt_labels: Tensor, num_classes: int) -> Tensor:
        """``(n,)`` int64: the class of each box; ``num_classes`` is background."""
        labels = gt_labels.new_full((len(self.boxes),), num_classes)
        labels[: len(self.positive_gt)] = gt_labels[self.positive_gt]
        return labels


@dataclass(frozen=True)
class RoiSampling:
    """How a stage turns proposals into samples.

    iou_threshold: at least this IoU is positive, anything less is background.
    low_quality_matches: see :func:`assign`.
    count, positive_fraction: see :func:`sample`.
    """

    iou_threshold: float
    low_quality_matches: bool
    count: int
    positive_fraction: float

    def __call__(self, proposals: Tensor, gt_boxes: Tensor) -> Samples:
        """Samples of one image from proposals ``(n, 4)``; the annotated boxes ``(G, 4)`` are put before them."""
        assigned = assign(
            proposals,
            gt_boxes,
            positive_iou=self.iou_threshold,
            negative_iou=self.iou_threshold,
            min_positive_iou=self.iou_threshold,
            low_quality_matches=self.low_quality_matches,
        )
        num_gt = len(gt_boxes)
        assigned = torch.cat([torch.arange(num_gt, device=assigned.device), assigned])
        candidates = torch.cat([gt_boxes, proposals])
        positives, negatives = sample(assigned, count=self.count, positive_fraction=self.positive_fraction)
        return Samples(
            boxes=candidates[torch.cat([positives, negatives])],
            positive_gt=assigned[positives],
            positive_is_gt=positives < num_gt,
        )
