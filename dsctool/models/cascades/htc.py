"""Hybrid task cascade (Chen et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dsctool.models.cascades.box_stage import (
    BoxStage,
    cascade_boxes,
    detection_rois,
    detections_of,
    equal_boxes,
    select_detections,
)
from dsctool.models.cascades.mask_targets import positive_labels, positive_masks
from dsctool.models.losses import mask_loss
from dsctool.models.postprocess import Postprocess
from dsctool.models.roi.extractors import roi_feature
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.roi.semantic_head import SemanticHead, semantic_branch
from dsctool.models.targets import Samples
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Detections, Size, Targets


class HTC(nn.Module):
    """Interleaved box and mask stages with mask information flow and an optional semantic branch."""

    def __init__(
        self,
        *,
        box_stages: Sequence[BoxStage],
        mask_heads: Sequence[MaskHead],
        mask_roi_size: int,
        stage_loss_weights: Sequence[float],
        semantic_head: SemanticHead | None,
        postprocess: Postprocess,
    ) -> None:
        super().__init__()
        self.box_stages = cast("Sequence[BoxStage]", nn.ModuleList(box_stages))
        self.mask_heads = cast("Sequence[MaskHead]", nn.ModuleList(mask_heads))
        self.semantic_head = semantic_head
        self.mask_roi_size = mask_roi_size
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.postprocess = postprocess

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks: always."""
        return True

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox``, ``s<t>.loss_mask``, weighted, and ``loss_semantic_seg``.

        Interleaved execution (section 3.1): the mask stage sees the boxes that the box stage of the
        same t has just refined, assigned and sampled anew.
        """
        losses, semantic = semantic_branch(self.semantic_head, features, targets)
        boxes = list(proposals)
        for t, (stage, weight) in enumerate(zip(self.box_stages, self.stage_loss_weights, strict=True)):
            samples = stage.sample(boxes, targets)
            logits, deltas = stage(features, semantic, boxes_to_rois([s.boxes for s in samples]))
            stage_losses = stage.losses(logits, deltas, samples, targets)
            boxes = stage.next_proposals(samples, deltas, sizes)  # r_t = B_t(x, r_{t-1})
            samples = stage.sample(boxes, targets)
            stage_losses["loss_mask"] = self._mask_loss(t, features, semantic, samples, targets)
            losses |= {f"s{t}.{name}": weight * value for name, value in stage_losses.items()}
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

        With ``stage_masks`` each carries the masks that the single stages see in it.
        """
        semantic = None if self.semantic_head is None else self.semantic_head(features)[1]
        boxes, scores = cascade_boxes(self.box_stages, features, semantic, proposals, sizes)
        selected = select_detections(
            boxes, scores, sizes=sizes, original_sizes=original_sizes, postprocess=self.postprocess
        )
        rois = detection_rois(selected, sizes=sizes, original_sizes=original_sizes)
        probs = self._mask_probs(features, semantic, rois, torch.cat([s.labels for s in selected]))
        return detections_of(
            selected,
            mask_probs=torch.stack(probs).mean(dim=0),
            stage_masks=equal_boxes(selected, probs) if stage_masks else None,
            original_sizes=original_sizes,
            postprocess=self.postprocess,
        )

    def mask_features(self, x: Tensor, stages: int) -> list[Tensor]:
        """m_0 .. m_{stages-1} of RoI features ``x``: each stage's feature flows into the next (equation 5)."""
        outputs: list[Tensor] = []
        for head in self.mask_heads[:stages]:
            outputs.append(head.feature(x, outputs[-1] if outputs else None))
        return outputs

    def _mask_loss(
        self,
        t: int,
        features: Sequence[Tensor],
        semantic: Tensor | None,
        samples: Sequence[Samples],
        targets: Sequence[Targets],
    ) -> Tensor:
        rois = boxes_to_rois([s.positive_boxes for s in samples])
        x = roi_feature(features, semantic, rois, output_size=self.mask_roi_size)
        feature = self.mask_features(x, t + 1)[t]
        logits = self.mask_heads[t].predict_classes(feature, positive_labels(samples, targets))
        return mask_loss(logits, positive_masks(samples, targets, size=2 * self.mask_roi_size))

    def _mask_probs(
        self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor
    ) -> list[Tensor]:
        """Each stage's probabilities ``(R, 2s, 2s)`` of each RoI's class."""
        x = roi_feature(features, semantic, rois, output_size=self.mask_roi_size)
        stage_features = self.mask_features(x, len(self.mask_heads))
        return [
            head.predict_classes(feature, labels).sigmoid()
            for head, feature in zip(self.mask_heads, stage_features, strict=True)
        ]
