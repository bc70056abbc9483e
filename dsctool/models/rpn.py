"""Region proposal network on a feature pyramid (Ren et al. 2015, Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.conv3x3 import Conv3x3
from dsctool.models.init import init_normal
from dsctool.models.losses import Mean, box_loss
from dsctool.models.targets import assign, draws, sample
from dsctool.ops.boxes import decode_boxes, encode_boxes
from dsctool.ops.exchange import rows_where
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.nms import grouped_nms
from dsctool.structures import Doubts, Proposals, Targets
from dsctool.terms import Size

UNIT_STDS = (1.0, 1.0, 1.0, 1.0)
OBJECT_SCORE = 0.5
"""A limit that leaves out boxes of this objectness leaves out objects; an ordinary image has fewer of them."""


@dataclass(frozen=True)
class ProposalLimits:
    """How many proposals survive.

    pre_nms: best per level before NMS.
    max_proposals: best per image after it.
    """

    pre_nms: int
    max_proposals: int

    def reached(self, found: Proposals) -> Doubts:
        """Which limits left out what is likely to be an object."""
        full = len(found.scores) >= self.max_proposals
        doubts: Doubts = [("max_proposals", found.scores[-1] >= OBJECT_SCORE)] if full else []
        return [*doubts, ("pre_nms", found.left_out >= OBJECT_SCORE)]


@dataclass(frozen=True)
class AnchorSampling:
    """Which anchors the losses see; see :func:`dsctool.models.targets.assign` and ``sample``."""

    positive_iou: float
    negative_iou: float
    min_positive_iou: float
    count: int
    positive_fraction: float

    def __call__(
        self,
        anchors: Tensor,
        inside: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        *,
        draws: Sequence[torch.Generator | None] | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of every image the indices of its positive anchors, the instance of each, and indices of its negative ones.

        inside: ``(n,)`` bool, the anchors that take part. draws: see :func:`dsctool.models.targets.sample`.
        """
        assigned = [
            assign(
                anchors,
                gts,
                positive_iou=self.positive_iou,
                negative_iou=self.negative_iou,
                min_positive_iou=self.min_positive_iou,
                low_quality_matches=True,
                among=among,
            )
            for among, gts in zip(inside, gt_boxes, strict=True)
        ]
        drawn = sample(assigned, count=self.count, positive_fraction=self.positive_fraction, draws=draws)
        return [
            (rows.positives, each[rows.positives], rows.negatives) for each, rows in zip(assigned, drawn, strict=True)
        ]


def base_anchors(stride: int, *, scale: float, ratios: Sequence[float]) -> Tensor:
    """``(len(ratios), 4)`` boxes centred on the origin; ratios are height over width."""
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    half = stride * scale / 2
    return torch.stack([-half / root, -half * root, half / root, half * root], dim=1)


def grid_anchors(base: Tensor, size: Size, stride: int) -> Tensor:
    """Anchors ``(h * w * A, 4)`` of a level: row-major over cells, ratios innermost.

    The anchors of cell (i, j) lie ``(x, y) = (j * stride, i * stride)`` from those of the first one, ``base (A, 4)``.
    """
    ys = torch.arange(size[0], device=base.device, dtype=base.dtype) * stride
    xs = torch.arange(size[1], device=base.device, dtype=base.dtype) * stride
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + base).reshape(-1, 4)


class RPN(nn.Module):
    """A 3x3 convolution, then objectness and box deltas per anchor, shared by all levels."""

    def __init__(
        self,
        *,
        channels: int,
        strides: Sequence[int],
        anchor_scale: float,
        anchor_ratios: Sequence[float],
        sampling: AnchorSampling,
        smooth_l1_beta: float,
        nms_iou: float,
        train_limits: ProposalLimits,
        test_limits: ProposalLimits,
        keep_zero_area: bool = False,
        geometry: Geometry = CURRENT,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.sampling = sampling
        self.smooth_l1_beta = smooth_l1_beta
        self.nms_iou = nms_iou
        self.train_limits = train_limits
        self.test_limits = test_limits
        self.keep_zero_area = keep_zero_area
        self.geometry = geometry
        self.conv = Conv3x3(channels, channels)
        self.objectness = nn.Conv2d(channels, len(anchor_ratios), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(anchor_ratios), 1)
        init_normal(self.conv, self.objectness, self.deltas, std=0.01)
        for level, stride in enumerate(self.strides):
            base = base_anchors(stride, scale=anchor_scale, ratios=anchor_ratios)
            self.register_buffer(f"base{level}", geometry.anchors(base, stride), persistent=False)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """P2..P6 -> objectness logits ``(N, A, h, w)`` and deltas ``(N, 4 A, h, w)`` per level."""
        hidden = [F.relu(self.conv(x), inplace=True) for x in features]
        return [self.objectness(x) for x in hidden], [self.deltas(x) for x in hidden]

    def anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The anchors ``(h * w * A, 4)`` of each level."""
        return [
            grid_anchors(self.get_buffer(f"base{level}"), (x.shape[-2], x.shape[-1]), stride)
            for level, (x, stride) in enumerate(zip(features, self.strides, strict=True))
        ]

    def losses(
        self, features: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> tuple[dict[str, Mean], list[Proposals]]:
        """The losses ``loss_rpn_cls`` and ``loss_rpn_bbox``, and the training proposals of every image.

        Both losses are sums over the sampled anchors of the batch, divided by their number.
        """
        logits, deltas = self(features)
        anchors = self.anchors(features)
        proposals = self._propose(logits, deltas, anchors, sizes, self.train_limits)
        flat_logits = torch.cat([_flatten(x, 1) for x in logits], dim=1)[..., 0]  # (N, anchors)
        flat_deltas = torch.cat([_flatten(x, 4) for x in deltas], dim=1)  # (N, anchors, 4)
        return self._sampled_losses(flat_logits, flat_deltas, torch.cat(anchors), targets, sizes), proposals

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[Proposals]:
        """The proposals of every image, with the limits of inference."""
        logits, deltas = self(features)
        return self._propose(logits, deltas, self.anchors(features), sizes, self.test_limits)

    def _sampled_losses(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Mean]:
        sampled_logits, labels, sampled_deltas, delta_targets, count = [], [], [], [], 0
        inside = [self.geometry.inside(anchors, size) for size in sizes]
        drawn = self.sampling(anchors, inside, [target.boxes for target in targets], draws=draws(targets, 0))
        for image, (target, (positives, gt, negatives)) in enumerate(zip(targets, drawn, strict=True)):
            sampled_logits.append(logits[image, torch.cat([positives, negatives])])
            labels.append(torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)]))
            sampled_deltas.append(deltas[image, positives])
            delta_targets.append(encode_boxes(anchors[positives], target.boxes[gt], UNIT_STDS))
            count += max(len(positives), 1) + max(len(negatives), 1)
        objectness = F.binary_cross_entropy_with_logits(
            torch.cat(sampled_logits).float(), torch.cat(labels).float(), reduction="sum"
        )
        return {
            "loss_rpn_cls": Mean(objectness, count),
            "loss_rpn_bbox": box_loss(
                torch.cat(sampled_deltas), torch.cat(delta_targets), beta=self.smooth_l1_beta, count=count
            ),
        }

    @torch.no_grad()
    def _propose(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: Sequence[Size],
        limits: ProposalLimits,
    ) -> list[Proposals]:
        kept_scores, kept_deltas, kept_anchors, levels, left_out = [], [], [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            score = _flatten(logit.float(), 1)[..., 0].sigmoid()  # (N, n)
            top = score.topk(torch.sym_min(limits.pre_nms, score.shape[1]), dim=1)
            kept_scores.append(top.values)
            places = top.indices[..., None].expand(-1, -1, 4)
            kept_deltas.append(_flatten(delta.float(), 4).gather(1, places))
            kept_anchors.append(anchor[top.indices])
            levels.append(torch.full_like(top.indices[0], level))
            left_out.append(_best_left_out(score, top.values))
        moved = decode_boxes(
            torch.cat(kept_anchors, dim=1).flatten(0, 1), torch.cat(kept_deltas, dim=1).flatten(0, 1), UNIT_STDS
        )
        boxes = [
            self.geometry.clip(box, size)
            for box, size in zip(moved.view(len(sizes), -1, 4).unbind(), sizes, strict=True)
        ]
        candidates = list(zip(boxes, torch.cat(kept_scores, dim=1), [torch.cat(levels)] * len(boxes), strict=True))
        if not self.keep_zero_area:
            proper = rows_where([(box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]) for box in boxes])
            candidates = [
                (box[rows], score[rows], level[rows])
                for (box, score, level), rows in zip(candidates, proper, strict=True)
            ]
        found = []
        for (box, score, levels_of), most in zip(candidates, torch.stack(left_out).amax(dim=0), strict=True):
            keep = grouped_nms(box, score, levels_of, self.nms_iou)[: limits.max_proposals]
            found.append(Proposals(boxes=box[keep], scores=score[keep], left_out=most))
        return found


def _best_left_out(scores: Tensor, kept: Tensor) -> Tensor:
    """At least the best score ``(N,)`` that is not among the ``kept`` of ``scores``, both with a row for each image.

    A program that is exported has no use for it, and may not look at how many there are.
    """
    if torch.compiler.is_exporting() or scores.shape[1] == kept.shape[1]:
        return scores.new_zeros(len(scores))
    return kept[:, -1]


def _flatten(x: Tensor, values: int) -> Tensor:
    """``(N, A * values, h, w)`` -> ``(N, h * w * A, values)``."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)
