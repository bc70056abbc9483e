"""Deeply shape-guided cascade: DSC and its fast form F-DSC (Ding et al. 2021).

Symbols of the paper's equations, with t = 0, 1, 2 for the code's stages:

===============  ========================================================================
B_t, B^e_t       boxes that enter stage t, and the same enlarged
M_t, F^-_t       masks of stage t without classes, and the feature they are predicted from
f, f^s, a        RoIAlign, shape-guided RoIAlign, adaptive feature alignment
m_t, b_t         mask stage and box stage; w^m_t, w^b_t their fusions of F^-
===============  ========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dsctool.models.cascades.box_stage import BoxStage, class_scores
from dsctool.models.cascades.masks import positive_labels, positive_masks
from dsctool.models.checkpointing import checkpointed
from dsctool.models.losses import Mean, mask_loss
from dsctool.models.modules import module_list
from dsctool.models.roi.extractors import few_at_once, roi_feature
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.roi.semantic_head import SemanticHead, embedded, semantic_branch, semantic_roi_feature
from dsctool.models.roi.shape_guidance import enlarge_rois, keep_inside, relative_roi_align, shape_guided_roi_align
from dsctool.models.targets import Samples, positive_rows
from dsctool.ops.exchange import count_true
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import RoiMasks, Scored, StageMasks, Targets
from dsctool.terms import Size


@dataclass(frozen=True)
class Guidance:
    """What the next stage learns from this one, row by row.

    rois: ``(R, 5)`` B^e_t. feature: ``(R, C, s, s)`` F^-_t, stretched over them. mask_logits: ``(R, 2s, 2s)`` M_t.
    """

    rois: Tensor
    feature: Tensor
    mask_logits: Tensor

    def __getitem__(self, rows: Tensor) -> Guidance:
        return Guidance(self.rois[rows], self.feature[rows], self.mask_logits[rows])


@dataclass(frozen=True)
class Trail:
    """What the T stages made of some RoIs at inference, row by row.

    boxes: ``(R, T, 4)`` B_t. mask_logits: ``(R, T, 2s, 2s)`` M_t. logits: ``(R, T, K+1)``.
    refined: ``(R, 4)``, the boxes after the last stage. guidance: the last stage's.
    """

    boxes: Tensor
    mask_logits: Tensor
    logits: Tensor
    refined: Tensor
    guidance: Guidance


@dataclass(frozen=True)
class GuidanceSwitches:
    """Which guidance there is; each is a row of the paper's table of components.

    explicit: box features are weighted by the mask (SgRoIAlign); plus_one: by mask + 1.
    alignment: how F^-_{t-1} meets the RoIs of stage t: ``adaptive``, ``none`` (added as it is) or ``recompute``.
    enlarge_ratios: of B^e_t over B_t, one per stage and one for the final mask head.
    roi_clipping: keeps B^e_{t+1} inside B^e_t.
    """

    explicit: bool
    plus_one: bool
    alignment: Literal["adaptive", "none", "recompute"]
    enlarge_ratios: tuple[float, ...]
    roi_clipping: bool


class DSC(nn.Module):
    """A cascade in which masks without classes guide the boxes from the proposals on.

    Args:
        mask_stages: m_t, class-agnostic heads; all but the first fuse the previous feature.
        box_stages: b_t; without implicit guidance their heads have no fusion.
        mask_head: the final, per-class mask head.
        mask_roi_size: bins of the mask stages' RoI features; final_roi_size: of the final mask head's.
        box_loss_weights: of each stage's box regression; all other losses weigh 1.
        averaged_stages: whose class logits are averaged at inference.
        checkpoint: training keeps what one stage gives to the next alone, and computes a stage again for its gradients.
    """

    def __init__(
        self,
        *,
        mask_stages: Sequence[MaskHead],
        box_stages: Sequence[BoxStage],
        mask_head: MaskHead,
        mask_roi_size: int,
        final_roi_size: int,
        switches: GuidanceSwitches,
        box_loss_weights: Sequence[float],
        averaged_stages: Sequence[int],
        semantic_head: SemanticHead | None,
        geometry: Geometry = CURRENT,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.mask_stages = module_list(mask_stages)
        self.box_stages = module_list(box_stages)
        self.mask_head = mask_head
        self.semantic_head = semantic_head
        self.mask_roi_size, self.final_roi_size = mask_roi_size, final_roi_size
        self.switches = switches
        self.box_loss_weights = tuple(box_loss_weights)
        self.averaged_stages = tuple(averaged_stages)
        self.geometry = geometry

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks: always."""
        return True

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Mean]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox``, ``s<t>.loss_mpn`` (weighted), ``loss_mask``, ``loss_semantic_seg``.

        Only the first stage draws samples. The others keep all of them in their order and assign them anew, so
        that features of one stage belong to the boxes of the next.
        """
        losses, semantic = semantic_branch(self.semantic_head, features, targets, checkpoint=self.checkpoint)
        samples = self.box_stages[0].sample(proposals, targets, draw=1)
        guidance: Guidance | None = None
        for t, (stage, box_weight) in enumerate(zip(self.box_stages, self.box_loss_weights, strict=True)):
            rois = boxes_to_rois([s.boxes for s in samples])
            guidance, logits, deltas = checkpointed(
                self.stage, t, features, semantic, rois, guidance, within=self, when=self.checkpoint
            )
            stage_losses = stage.losses(logits, deltas, samples, targets)
            stage_losses["loss_bbox"] = box_weight * stage_losses["loss_bbox"]
            wanted = positive_masks(samples, targets, size=2 * self.mask_roi_size, geometry=self.geometry)
            stage_losses["loss_mpn"] = mask_loss(guidance.mask_logits[positive_rows(samples)], wanted)
            losses |= {f"s{t}.{name}": value for name, value in stage_losses.items()}
            boxes = self._refine_samples(t, samples, deltas, sizes, guidance)
            samples = self.box_stages[min(t + 1, len(self.box_stages) - 1)].reassign(samples, boxes, targets)
        assert guidance is not None
        losses["loss_mask"] = self._final_mask_loss(features, semantic, samples, targets, guidance)
        return losses

    def score(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> Scored[list[Trail]]:
        """Boxes and class scores from the proposals ``(n_i, 4)`` of every image."""
        maps = None if self.semantic_head is None else self.semantic_head(features)
        trails = [
            [self._follow(features, embedded(maps), image, part, size) for (part,) in few_at_once(boxes)]
            for image, (boxes, size) in enumerate(zip(proposals, sizes, strict=True))
        ]
        return Scored(
            boxes=[torch.cat([trail.refined for trail in parts]) for parts in trails],
            scores=[
                torch.cat([class_scores([trail.logits[:, t] for t in self.averaged_stages]) for trail in parts])
                for parts in trails
            ],
            semantic=maps,
            state=[trail for parts in trails for trail in parts],
        )

    def masks(
        self, features: Sequence[Tensor], scored: Scored[list[Trail]], rows: Tensor, rois: Tensor, labels: Tensor
    ) -> RoiMasks:
        """Masks of the classes ``labels (R,)`` in ``rois (R, 5)``, which came of the ``rows (R,)`` of ``scored``.

        The stages' masks are the M_t of these rows.
        """
        guidance, stages = _picked(scored.state, rows)
        logits = self.final_masks(features, embedded(scored.semantic), rois, labels, guidance)
        return RoiMasks(logits.float().sigmoid(), stages)

    def masks_for(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> RoiMasks:
        """Masks of any boxes ``(n_i, 4)`` and classes ``(n_i,)`` of every image; all stages see these boxes."""
        semantic = embedded(None if self.semantic_head is None else self.semantic_head(features))
        rois, guidance, stages = boxes_to_rois(boxes), None, []
        for t in range(len(self.box_stages)):
            guidance, _, _ = self.stage(t, features, semantic, rois, guidance)
            stages.append(StageMasks(_stage_name(t), rois[:, 1:], guidance.mask_logits.float().sigmoid()))
        assert guidance is not None
        logits = self.final_masks(features, semantic, rois, torch.cat(list(labels)), guidance)
        return RoiMasks(logits.float().sigmoid(), tuple(stages))

    def stage(
        self, t: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, previous: Guidance | None
    ) -> tuple[Guidance, Tensor, Tensor]:
        """Stage t on RoIs ``(R, 5)``: its guidance, class logits ``(R, K+1)`` and normalised deltas ``(R, 4)``.

        previous: the guidance of stage t - 1 for the same rows; None at t = 0.
        """
        switches, head, last = self.switches, self.box_stages[t].head, t == len(self.box_stages) - 1
        box_roi_size = self.box_stages[t].roi_size
        enlarged = enlarge_rois(rois, switches.enlarge_ratios[t])  # B^e_t
        x = self._roi_feature(features, semantic, rois, enlarged, self.mask_roi_size)
        aligned = self._align(t, features, semantic, rois, enlarged, previous)  # a(F^-_{t-1}, B^e_{t-1}, B^e_t)
        feature = self.mask_stages[t].feature(x, aligned)  # F^m_t (+) w^m_t a(...)
        mask_logits = self.mask_stages[t].predict(feature)[:, 0]  # (M_t, F^-_t) = m_t(...)
        pooled_rois = rois if last else enlarged  # the published last stage pools the box itself
        if switches.explicit:  # F^b_{t+1} = f^s(B^e_t, F, M_t)
            probs = mask_logits.float().sigmoid()
            y = shape_guided_roi_align(
                features,
                pooled_rois,
                probs,
                output_size=box_roi_size,
                plus_one=switches.plus_one,
                geometry=self.geometry,
            )
        else:
            y = roi_feature(features, None, pooled_rois, output_size=box_roi_size, geometry=self.geometry)
        if semantic is not None:
            y = y + semantic_roi_feature(semantic, rois, output_size=box_roi_size, geometry=self.geometry)
        logits, deltas = head(y, feature)  # B_{t+1} = b_t(B_t, F^b_{t+1} (+) w^b_{t+1} F^-_t)
        return Guidance(enlarged, feature, mask_logits), logits, deltas

    def final_masks(
        self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor, previous: Guidance
    ) -> Tensor:
        """Mask logits ``(R, 2s, 2s)`` of each RoI's class; ``previous`` is the last stage's guidance for these rows."""
        last = len(self.box_stages)
        enlarged = enlarge_rois(rois, self.switches.enlarge_ratios[last])
        x = self._roi_feature(features, semantic, rois, enlarged, self.final_roi_size)
        aligned = self._align(last, features, semantic, rois, enlarged, previous)
        return self.mask_head.predict_classes(self.mask_head.feature(x, aligned), labels)

    def _roi_feature(
        self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, enlarged: Tensor, output_size: int
    ) -> Tensor:
        """F^m_t = f(B^e_t, F), with the semantic feature of the RoIs as they are."""
        return roi_feature(
            features, semantic, enlarged, output_size=output_size, semantic_rois=rois, geometry=self.geometry
        )

    def _align(
        self,
        t: int,
        features: Sequence[Tensor],
        semantic: Tensor | None,
        rois: Tensor,
        enlarged: Tensor,
        previous: Guidance | None,
    ) -> Tensor | None:
        if previous is None:
            return None
        match self.switches.alignment:
            case "adaptive":
                return relative_roi_align(previous.feature, previous.rois, enlarged, output_size=self.mask_roi_size)
            case "none":
                return previous.feature
            case "recompute":  # the mask stages so far, one after the other, on the new RoIs
                x = self._roi_feature(features, semantic, rois, enlarged, self.mask_roi_size)
                feature = None
                for head in self.mask_stages[:t]:
                    feature = head.feature(x, feature)
                return feature

    def _follow(
        self, features: Sequence[Tensor], semantic: Tensor | None, image: int, boxes: Tensor, size: Size
    ) -> Trail:
        """One image's proposals ``(R, 4)`` through all stages."""
        guidance: Guidance | None = None
        seen = []
        for t in range(len(self.box_stages)):
            guidance, logits, deltas = self.stage(t, features, semantic, boxes_to_rois([boxes], first=image), guidance)
            seen.append((boxes, guidance.mask_logits, logits))
            (boxes,) = self._refine(t, [boxes], deltas, [size], guidance)
        assert guidance is not None
        entered, mask_logits, class_logits = (torch.stack(column, dim=1) for column in zip(*seen, strict=True))
        return Trail(entered, mask_logits, class_logits, boxes, guidance)

    def _refine(
        self, t: int, boxes: Sequence[Tensor], deltas: Tensor, sizes: Sequence[Size], guidance: Guidance
    ) -> list[Tensor]:
        refined = self.box_stages[t].refine(boxes, deltas, sizes)
        if self.switches.roi_clipping and t + 1 < len(self.box_stages):
            limits = guidance.rois[:, 1:].split([b.shape[0] for b in refined])
            ratio = self.switches.enlarge_ratios[t + 1]
            return [keep_inside(box, limit, ratio=ratio) for box, limit in zip(refined, limits, strict=True)]
        return refined

    def _refine_samples(
        self, t: int, samples: Sequence[Samples], deltas: Tensor, sizes: Sequence[Size], guidance: Guidance
    ) -> list[Tensor]:
        """As :meth:`_refine`; annotated boxes stay where they are."""
        is_gt = torch.cat([s.is_gt for s in samples])
        return self._refine(t, [s.boxes for s in samples], deltas.where(~is_gt[:, None], 0), sizes, guidance)

    def _final_mask_loss(
        self,
        features: Sequence[Tensor],
        semantic: Tensor | None,
        samples: Sequence[Samples],
        targets: Sequence[Targets],
        guidance: Guidance,
    ) -> Mean:
        rois = boxes_to_rois([s.positive_boxes for s in samples])
        labels, previous = positive_labels(samples, targets), guidance[positive_rows(samples)]
        logits = checkpointed(
            self.final_masks, features, semantic, rois, labels, previous, within=self, when=self.checkpoint
        )
        wanted = positive_masks(samples, targets, size=2 * self.final_roi_size, geometry=self.geometry)
        return mask_loss(logits, wanted)


def _picked(trails: Sequence[Trail], rows: Tensor) -> tuple[Guidance, tuple[StageMasks, ...]]:
    """The last guidance, and every stage's boxes and masks, of some rows of all trails together, in their order."""
    columns = [(t.guidance.rois, t.guidance.feature, t.boxes, t.mask_logits) for t in trails]
    if len(trails) == 1:
        rois, feature, boxes, mask_logits = (column[rows] for column in columns[0])
    else:
        rois, feature, boxes, mask_logits = _gathered(columns, rows)
    stages = (
        StageMasks(_stage_name(t), boxes[:, t], mask_logits[:, t].float().sigmoid()) for t in range(boxes.shape[1])
    )
    return Guidance(rois, feature, mask_logits[:, -1]), tuple(stages)


def _gathered(parts: Sequence[Sequence[Tensor]], rows: Tensor) -> list[Tensor]:
    """Some rows of every column of all parts together, in their order, without putting whole columns together."""
    lengths = [len(columns[0]) for columns in parts]
    owners = torch.cat([rows.new_full((length,), part) for part, length in enumerate(lengths)])
    places = torch.cat([torch.arange(length, device=rows.device) for length in lengths])
    owner, place = owners[rows], places[rows]
    order = owner.argsort(stable=True)
    chosen = place[order].split(count_true([owner == part for part in range(len(parts))]))
    return [
        torch.cat([column[mine] for column, mine in zip(same, chosen, strict=True)])[order.argsort()]
        for same in zip(*parts, strict=True)
    ]


def _stage_name(t: int) -> str:
    return "mRPN" if t == 0 else f"stage {t}"
