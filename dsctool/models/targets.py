"""Which candidate box stands for which instance: assigning and sampling, pure functions.

Randomness comes from generators of the CPU alone, so one seed fixes it on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dsctool.ops.boxes import box_iou
from dsctool.ops.exchange import count_true, ranked_rows, rows_where
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
    among: Tensor | None = None,
) -> Tensor:
    """The instance each box stands for, by IoU (Ren et al. 2015, section 3.1.2).

    A box whose best IoU is below ``negative_iou`` is background; at ``positive_iou`` or above it
    stands for its best instance; between the two it is ignored. With ``low_quality_matches`` every
    instance, in order, also claims all boxes that reach its own best IoU, when that is at least
    ``min_positive_iou``, even from a box's better instance.

    Args:
        boxes: ``(n, 4)``; gt_boxes: ``(G, 4)``.
        among: ``(n,)`` bool, the boxes that there are: the others are ignored; None: all.

    Returns:
        ``(n,)`` int64: index of an instance, ``BACKGROUND`` or ``IGNORED``.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        assigned = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
        return assigned if among is None else assigned.masked_fill_(~among, IGNORED)
    iou = box_iou(gt_boxes, boxes)  # (G, n)
    if among is not None:
        iou.masked_fill_(~among, -1)  # less than any
    best_iou, best_gt = iou.max(dim=0)
    background = best_iou < negative_iou if among is None else (best_iou < negative_iou) & among
    assigned = torch.full_like(best_gt, IGNORED).masked_fill_(background, BACKGROUND)
    assigned = torch.where(best_iou >= positive_iou, best_gt, assigned)
    if low_quality_matches:
        gt_best_iou = iou.amax(dim=1, keepdim=True)
        claims = (iou == gt_best_iou) & (gt_best_iou >= min_positive_iou)  # (G, n)
        # A later instance overwrites an earlier one: the last claim counts.
        last = len(gt_boxes) - 1 - claims.flip(0).to(torch.uint8).argmax(dim=0)
        assigned = torch.where(claims.any(dim=0), last, assigned)
    return assigned


@dataclass(frozen=True)
class Drawn:
    """Candidates of one image: indices of the positives and of the negatives, each ascending.

    positive_ranks: which of the positives were drawn, on the CPU: 0 is the first candidate that is one.
    """

    positives: Tensor
    negatives: Tensor
    positive_ranks: Tensor


def draws(targets: Sequence[Targets], number: int) -> list[torch.Generator | None]:
    """The random numbers of the draw ``number`` in every image, wherever and however often it is made.

    What is drawn in an image that has a seed is then the same in whatever batch and process it is. None, for torch's
    own, without one.
    """
    return [
        None if target.seed is None else torch.Generator().manual_seed((target.seed + 1 + number) % 2**63)
        for target in targets
    ]


def sample(
    assigned: Sequence[Tensor],
    *,
    count: int,
    positive_fraction: float,
    draws: Sequence[torch.Generator | None] | None = None,
) -> list[Drawn]:
    """Draw up to ``count`` candidates of every image, at most ``positive_fraction`` of them positive.

    Negatives fill up what positives leave free. A device is read once for all images, and sent what was drawn once.

    Args:
        assigned: per image ``(n_i,)`` from :func:`assign`.
        draws: per image where its random numbers come from; None: torch's own.
    """
    masks = [mask for each in assigned for mask in (each >= 0, each == BACKGROUND)]
    ranks: list[Tensor] = []
    available = count_true(masks)
    generators = draws or [None] * len(assigned)
    for positives, negatives, generator in zip(available[::2], available[1::2], generators, strict=True):
        ranks.append(_draw(positives, int(count * positive_fraction), generator))
        ranks.append(_draw(negatives, count - len(ranks[-1]), generator))
    sent = torch.cat(ranks).to(assigned[0].device, non_blocking=True).split([len(each) for each in ranks])
    rows = [ranked_rows(mask, each) for mask, each in zip(masks, sent, strict=True)]
    return [Drawn(*drawn) for drawn in zip(rows[::2], rows[1::2], ranks[::2], strict=True)]


def _draw(available: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Ascending ranks ``(count,)`` of ``available`` candidates, all of them where there are no more."""
    if available <= count:
        return torch.arange(available)
    return torch.randperm(available, generator=generator)[:count].sort().values


@dataclass(frozen=True)
class Samples:
    """The boxes of one image that a stage trains on.

    boxes: ``(n, 4)``, first those that are annotated boxes themselves and no proposals.
    assigned: ``(n,)`` int64, the instance each stands for, or ``BACKGROUND``.
    positives: ``(p,)`` int64, ascending: the rows that stand for an instance.
    num_gt: how many are annotated boxes.
    """

    boxes: Tensor
    assigned: Tensor
    positives: Tensor
    num_gt: int

    @property
    def is_gt(self) -> Tensor:
        """``(n,)`` bool: the box is an annotated box itself."""
        return torch.arange(len(self.boxes), device=self.boxes.device) < self.num_gt

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

    def __call__(
        self,
        proposals: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        *,
        draws: Sequence[torch.Generator | None] | None = None,
    ) -> list[Samples]:
        """Of every image positives, then negatives, drawn from its annotated boxes ``(G, 4)`` and the proposals
        ``(n, 4)`` after them; draws: see :func:`sample`."""
        assigned = [
            torch.cat([torch.arange(len(gts), device=gts.device), self._assign(boxes, gts)])
            for boxes, gts in zip(proposals, gt_boxes, strict=True)
        ]
        drawn = sample(assigned, count=self.count, positive_fraction=self.positive_fraction, draws=draws)
        found = []
        for boxes, gts, each, rows in zip(proposals, gt_boxes, assigned, drawn, strict=True):
            chosen = torch.cat([rows.positives, rows.negatives])
            found.append(
                Samples(
                    boxes=torch.cat([gts, boxes])[chosen],
                    assigned=each[chosen],
                    positives=torch.arange(len(rows.positives), device=chosen.device),
                    num_gt=int((rows.positive_ranks < len(gts)).sum()),  # which all stand for themselves
                )
            )
        return found

    def reassign(
        self, samples: Sequence[Samples], boxes: Sequence[Tensor], gt_boxes: Sequence[Tensor]
    ) -> list[Samples]:
        """All of ``boxes (n, 4)`` of every image, which came of its samples, in their order, assigned anew: nothing is
        drawn."""
        assigned = [self._assign(box, gts) for box, gts in zip(boxes, gt_boxes, strict=True)]
        positives = rows_where([each >= 0 for each in assigned])
        return [
            Samples(boxes=box, assigned=each, positives=rows, num_gt=before.num_gt)
            for before, box, each, rows in zip(samples, boxes, assigned, positives, strict=True)
        ]

    def _assign(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return assign(
            boxes,
            gt_boxes,
            positive_iou=self.iou_threshold,
            negative_iou=self.iou_threshold,
            min_positive_iou=self.iou_threshold,
            low_quality_matches=self.low_quality_matches,
        )


def positive_rows(samples: Sequence[Samples]) -> Tensor:
    """The rows of the positives among the samples of all images together: ``(P,)`` int64."""
    starts = accumulate((len(each.boxes) for each in samples[:-1]), initial=0)
    return torch.cat([each.positives + start for each, start in zip(samples, starts, strict=True)])
