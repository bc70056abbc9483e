"""Which candidate box stands for which instance: assigning and sampling, pure functions.

Randomness comes from generators of the CPU alone, so one seed fixes it on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsctool.ops.boxes import box_iou
from dsctool.structures import Targets

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


def draws(target: Targets, number: int) -> torch.Generator | None:
    """The random numbers of the draw ``number`` in an image that has a seed, wherever and however often it is made.

    What is drawn in an image is then the same in whatever batch and process it is. None, for torch's own, without one.
    """
    return None if target.seed is None else torch.Generator().manual_seed((target.seed + 1 + number) % 2**63)


def sample(
    assigned: Tensor, *, count: int, positive_fraction: float, draws: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw up to ``count`` candidates, at most ``positive_fraction`` of them positive.

    Args:
        assigned: ``(n,)`` from :func:`assign`.
        draws: where random numbers come from.

    Returns:
        Indices of the positives and of the negatives, each ascending. Negatives fill up what
        positives leave free.
    """
    positives = _draw(torch.nonzero(assigned >= 0).flatten(), int(count * positive_fraction), draws)
    negatives = _draw(torch.nonzero(assigned == BACKGROUND).flatten(), count - len(positives), draws)
    return positives, negatives


def _draw(candidates: Tensor, count: int, draws: torch.Generator | None) -> Tensor:
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates), generator=draws)[:count].sort().values
    return candidates[chosen.to(candidates.device)]


@dataclass(frozen=True)
class Samples:
    """The boxes of one image that a stage trains on.

    boxes: ``(n, 4)``.
    assigned: ``(n,)`` int64, the instance each stands for, or ``BACKGROUND``.
    is_gt: ``(n,)`` bool: the box is an annotated box itself, not a proposal.
    """

    boxes: Tensor
    assigned: Tensor
    is_gt: Tensor

    @property
    def positives(self) -> Tensor:
        """``(n,)`` bool: boxes that stand for an instance."""
        return self.assigned >= 0

    @property
    def positive_boxes(self) -> Tensor:
        """``(p, 4)``."""
        return self.boxes[self.positives]

    @property
    def positive_gt(self) -> Tensor:
        """``(p,)`` int64: the instance of each positive."""
        return self.assigned[self.positives]

    def labels(self, gt_labels: Tensor, num_classes: int) -> Tensor:
        """``(n,)`` int64: the class of each box; ``num_classes`` is background."""
        labels = gt_labels.new_full((len(self.boxes),), num_classes)
        labels[self.positives] = gt_labels[self.positive_gt]
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

    def __call__(self, proposals: Tensor, gt_boxes: Tensor, *, draws: torch.Generator | None = None) -> Samples:
        """Positives, then negatives, drawn from proposals ``(n, 4)`` and the annotated boxes ``(G, 4)`` before them."""
        num_gt = len(gt_boxes)
        assigned = torch.cat([torch.arange(num_gt, device=proposals.device), self._assign(proposals, gt_boxes)])
        candidates = torch.cat([gt_boxes, proposals])
        drawn = sample(assigned, count=self.count, positive_fraction=self.positive_fraction, draws=draws)
        rows = torch.cat(drawn)
        return Samples(boxes=candidates[rows], assigned=assigned[rows], is_gt=rows < num_gt)

    def reassign(self, samples: Samples, boxes: Tensor, gt_boxes: Tensor) -> Samples:
        """All of ``boxes (n, 4)``, which came of ``samples``, in their order, assigned anew: nothing is drawn."""
        return Samples(boxes=boxes, assigned=self._assign(boxes, gt_boxes), is_gt=samples.is_gt)

    def _assign(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return assign(
            boxes,
            gt_boxes,
            positive_iou=self.iou_threshold,
            negative_iou=self.iou_threshold,
            min_positive_iou=self.iou_threshold,
            low_quality_matches=self.low_quality_matches,
        )
