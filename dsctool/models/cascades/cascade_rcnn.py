"""Cascade R-CNN and Cascade Mask R-CNN (Cai & Vasconcelos 2018, 2019)."""

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
from dsctool.models.targets import Samples
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Detections, Size, Targets


class CascadeRCNN(nn.Module):
    """Box stages of rising quality, and a mask head beside each where ``mask_heads`` are given."""

    def __init__(
        self,
        *,
        box_stages: Sequence[BoxStage],
        mask_heads: Sequence[MaskHead],
        mask_roi_size: int,
        stage_loss_weights: Sequence[float],
        postprocess: Postprocess,
    ) -> None:
        super().__init__()
        self.box_stages = cast("Sequence[BoxStage]", nn.ModuleList(box_stages))
        self.mask_heads = cast("Sequence[MaskHead]", nn.ModuleList(mask_heads))
        self.mask_roi_size = mask_roi_size
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.postprocess = postprocess

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks."""
        return len(self.mask_heads) > 0

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox`` and ``s<t>.loss_mask`` of every stage t, weighted."""
        losses: dict[str, Tensor] = {}
        boxes = list(proposals)
        for t, (stage, weight) in enumerate(zip(self.box_stages, self.stage_loss_weights, strict=True)):
            samples = stage.sample(boxes, targets)
            logits, deltas = stage(features, None, boxes_to_rois([s.boxes for s in samples]))
            stage_losses = stage.losses(logits, deltas, samples, targets)
            if self.has_masks:
                stage_losses["loss_mask"] = self._mask_loss(self.mask_heads[t], features, samples, targets)
            losses |= {f"s{t}.{name}": weight * value for name, value in stage_losses.items()}
            boxes = stage.next_proposals(samples, deltas, sizes)
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
        boxes, scores = cascade_boxes(self.box_stages, features, None, proposals, sizes)
        selected = select_detections(
            boxes, scores, sizes=sizes, original_sizes=original_sizes, postprocess=self.postprocess
        )
        probs: list[Tensor] = []
        if self.has_masks:
            rois = detection_rois(selected, sizes=sizes, original_sizes=original_sizes)
            probs = self._mask_probs(features, rois, torch.cat([s.labels for s in selected]))
        return detections_of(
            selected,
            mask_probs=torch.stack(probs).mean(dim=0) if probs else None,
            stage_masks=equal_boxes(selected, probs) if stage_masks else None,
            original_sizes=original_sizes,
            postprocess=self.postprocess,
        )

    def _mask_loss(
        self, head: MaskHead, features: Sequence[Tensor], samples: Sequence[Samples], targets: Sequence[Targets]
    ) -> Tensor:
        rois = boxes_to_rois([s.positive_boxes for s in samples])
        x = roi_feature(features, None, rois, output_size=self.mask_roi_size)
        logits = head.predict_classes(head.feature(x), positive_labels(samples, targets))
        return mask_loss(logits, positive_masks(samples, targets, size=2 * self.mask_roi_size))

    def _mask_probs(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> list[Tensor]:
        """Each stage's probabilities ``(R, 2s, 2s)`` of each RoI's class."""
        x = roi_feature(features, None, rois, output_size=self.mask_roi_size)
        return [head.predict_classes(head.feature(x), labels).sigmoid() for head in self.mask_heads]
