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
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dsctool.models.cascades.box_stage import (
    BoxStage,
    class_scores,
    detection_rois,
    detections_of,
    select_detections,
)
from dsctool.models.cascades.mask_targets import positive_labels, positive_masks
from dsctool.models.losses import mask_loss
from dsctool.models.postprocess import Postprocess, Selected
from dsctool.models.roi.extractors import roi_feature
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.roi.semantic_head import SemanticHead, semantic_branch, semantic_roi_feature
from dsctool.models.roi.shape_guidance import enlarge_rois, keep_inside, relative_roi_align, shape_guided_roi_align
from dsctool.models.targets import Samples
from dsctool.ops.boxes import scale_boxes
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Detections, Size, StageMasks, Targets

INFERENCE_ROIS = 250
"""RoIs that a stage works on at a time at inference, which bounds memory."""


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

    @staticmethod
    def cat(parts: Sequence[Guidance]) -> Guidance:
        """All rows of ``parts``, in order."""
        return Guidance(*(torch.cat(column) for column in zip(*(vars(p).values() for p in parts), strict=True)))


@dataclass(frozen=True)
class ShapeGuidance:
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
    """

    def __init__(
        self,
        *,
        mask_stages: Sequence[MaskHead],
        box_stages: Sequence[BoxStage],
        mask_head: MaskHead,
        mask_roi_size: int,
        final_roi_size: int,
        guidance: ShapeGuidance,
        box_loss_weights: Sequence[float],
        averaged_stages: Sequence[int],
        semantic_head: SemanticHead | None,
        postprocess: Postprocess,
    ) -> None:
        super().__init__()
        self.mask_stages = cast("Sequence[MaskHead]", nn.ModuleList(mask_stages))
        self.box_stages = cast("Sequence[BoxStage]", nn.ModuleList(box_stages))
        self.mask_head = mask_head
        self.semantic_head = semantic_head
        self.mask_roi_size, self.final_roi_size = mask_roi_size, final_roi_size
        self.guidance = guidance
        self.box_loss_weights = tuple(box_loss_weights)
        self.averaged_stages = tuple(averaged_stages)
        self.postprocess = postprocess

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks: always."""
        return True

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox``, ``s<t>.loss_mpn`` (weighted), ``loss_mask``, ``loss_semantic_seg``.

        Only the first stage draws samples. The others keep all of them in their order and assign them anew, so
        that features of one stage belong to the boxes of the next.
        """
        losses, semantic = semantic_branch(self.semantic_head, features, targets)
        samples = self.box_stages[0].sample(proposals, targets)
        guidance: Guidance | None = None
        for t, (stage, box_weight) in enumerate(zip(self.box_stages, self.box_loss_weights, strict=True)):
            rois = boxes_to_rois([s.boxes for s in samples])
            guidance, logits, deltas = self.stage(t, features, semantic, rois, guidance)
            stage_losses = stage.losses(logits, deltas, samples, targets)
            stage_losses["loss_bbox"] = box_weight * stage_losses["loss_bbox"]
            positives = torch.cat([s.positives for s in samples])
            wanted = positive_masks(samples, targets, size=2 * self.mask_roi_size)
            stage_losses["loss_mpn"] = mask_loss(guidance.mask_logits[positives], wanted)
            losses |= {f"s{t}.{name}": value for name, value in stage_losses.items()}
            boxes = self._refine_samples(t, samples, deltas, sizes, guidance)
            samples = self.box_stages[min(t + 1, len(self.box_stages) - 1)].reassign(samples, boxes, targets)
        assert guidance is not None
        losses["loss_mask"] = self._final_mask_loss(features, semantic, samples, targets, guidance)
        return losses

    def detect(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        *,
        stage_masks: bool = False,
    ) -> list[Detections]:
        """Detections of every image from its proposals ``(n_i, 4)``, in the pixels of its original size.

        With ``stage_masks`` each carries the masks M_t of the RoI it came from.
        """
        semantic = None if self.semantic_head is None else self.semantic_head(features)[1]
        boxes, stage_logits, stages = list(proposals), [], []
        guidance: Guidance | None = None
        for t in range(len(self.box_stages)):
            guidance, logits, deltas = self._stage_in_parts(t, features, semantic, boxes_to_rois(boxes), guidance)
            stages.append((boxes, guidance.mask_logits))
            stage_logits.append(logits)
            boxes = self._refine(t, boxes, deltas, sizes, guidance)
        assert guidance is not None
        scores = class_scores([stage_logits[t] for t in self.averaged_stages]).split([len(b) for b in boxes])
        selected = select_detections(
            boxes, scores, sizes=sizes, original_sizes=original_sizes, postprocess=self.postprocess
        )
        starts = torch.tensor([0, *(len(b) for b in boxes[:-1])]).cumsum(0).tolist()
        rows = torch.cat([s.rois + start for s, start in zip(selected, starts, strict=True)])
        rois = detection_rois(selected, sizes=sizes, original_sizes=original_sizes)
        labels = torch.cat([s.labels for s in selected])
        probs = self.final_masks(features, semantic, rois, labels, guidance[rows]).sigmoid()
        shown = _stage_masks(stages, selected, rows, sizes, original_sizes) if stage_masks else None
        return detections_of(
            selected,
            mask_probs=probs,
            stage_masks=shown,
            original_sizes=original_sizes,
            postprocess=self.postprocess,
        )

    def stage(
        self, t: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, previous: Guidance | None
    ) -> tuple[Guidance, Tensor, Tensor]:
        """Stage t on RoIs ``(R, 5)``: its guidance, class logits ``(R, K+1)`` and normalised deltas ``(R, 4)``.

        previous: the guidance of stage t - 1 for the same rows; None at t = 0.
        """
        guide, head, last = self.guidance, self.box_stages[t].head, t == len(self.box_stages) - 1
        box_roi_size = self.box_stages[t].roi_size
        enlarged = enlarge_rois(rois, guide.enlarge_ratios[t])  # B^e_t
        x = roi_feature(features, semantic, enlarged, output_size=self.mask_roi_size, semantic_rois=rois)
        aligned = self._align(t, features, semantic, rois, enlarged, previous)  # a(F^-_{t-1}, B^e_{t-1}, B^e_t)
        feature = self.mask_stages[t].feature(x, aligned)  # F^m_t (+) w^m_t a(...)
        mask_logits = self.mask_stages[t].predict(feature)[:, 0]  # (M_t, F^-_t) = m_t(...)
        pooled_rois = rois if last else enlarged  # the published last stage pools the box itself
        if guide.explicit:  # F^b_{t+1} = f^s(B^e_t, F, M_t)
            probs = mask_logits.float().sigmoid()
            y = shape_guided_roi_align(features, pooled_rois, probs, output_size=box_roi_size, plus_one=guide.plus_one)
        else:
            y = roi_feature(features, None, pooled_rois, output_size=box_roi_size)
        if semantic is not None:
            y = y + semantic_roi_feature(semantic, rois, output_size=box_roi_size)
        logits, deltas = head(y, feature)  # B_{t+1} = b_t(B_t, F^b_{t+1} (+) w^b_{t+1} F^-_t)
        return Guidance(enlarged, feature, mask_logits), logits, deltas

    def final_masks(
        self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor, previous: Guidance
    ) -> Tensor:
        """Mask logits ``(R, 2s, 2s)`` of each RoI's class; ``previous`` is the last stage's guidance for these rows."""
        last = len(self.box_stages)
        enlarged = enlarge_rois(rois, self.guidance.enlarge_ratios[last])
        x = roi_feature(features, semantic, enlarged, output_size=self.final_roi_size, semantic_rois=rois)
        aligned = self._align(last, features, semantic, rois, enlarged, previous)
        return self.mask_head.predict_classes(self.mask_head.feature(x, aligned), labels)

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
        match self.guidance.alignment:
            case "adaptive":
                return relative_roi_align(previous.feature, previous.rois, enlarged, output_size=self.mask_roi_size)
            case "none":
                return previous.feature
            case "recompute":  # the mask stages so far, one after the other, on the new RoIs
                x = roi_feature(features, semantic, enlarged, output_size=self.mask_roi_size, semantic_rois=rois)
                feature = None
                for head in self.mask_stages[:t]:
                    feature = head.feature(x, feature)
                return feature

    def _stage_in_parts(
        self, t: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, previous: Guidance | None
    ) -> tuple[Guidance, Tensor, Tensor]:
        parts = [
            self.stage(t, features, semantic, rois[rows], None if previous is None else previous[rows])
            for rows in torch.arange(len(rois), device=rois.device).split(INFERENCE_ROIS)
        ]
        guidance, logits, deltas = zip(*parts, strict=True)
        return Guidance.cat(guidance), torch.cat(logits), torch.cat(deltas)

    def _refine(
        self, t: int, boxes: Sequence[Tensor], deltas: Tensor, sizes: Sequence[Size], guidance: Guidance
    ) -> list[Tensor]:
        refined = self.box_stages[t].refine(boxes, deltas, sizes)
        if self.guidance.roi_clipping and t + 1 < len(self.box_stages):
            limits = guidance.rois[:, 1:].split([len(b) for b in refined])
            ratio = self.guidance.enlarge_ratios[t + 1]
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
    ) -> Tensor:
        rois = boxes_to_rois([s.positive_boxes for s in samples])
        positives = torch.cat([s.positives for s in samples])
        logits = self.final_masks(features, semantic, rois, positive_labels(samples, targets), guidance[positives])
        return mask_loss(logits, positive_masks(samples, targets, size=2 * self.final_roi_size))


def _stage_masks(
    stages: Sequence[tuple[list[Tensor], Tensor]],
    selected: Sequence[Selected],
    rows: Tensor,
    sizes: Sequence[Size],
    original_sizes: Sequence[Size],
) -> list[list[StageMasks]]:
    """Per image and stage: the boxes B_t that the detections came from, in original pixels, and their M_t."""
    counts = [len(s.rois) for s in selected]
    shown: list[list[StageMasks]] = [[] for _ in selected]
    for t, (boxes, mask_logits) in enumerate(stages):
        name = "mRPN" if t == 0 else f"stage {t}"
        probs = mask_logits[rows].float().sigmoid().split(counts)
        for image, (box, chosen, source, target) in enumerate(zip(boxes, selected, sizes, original_sizes, strict=True)):
            shown[image].append(
                StageMasks(name, scale_boxes(box[chosen.rois], source=source, target=target), probs[image])
            )
    return shown
