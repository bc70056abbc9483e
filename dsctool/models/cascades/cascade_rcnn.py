"""Cascade R-CNN and Cascade Mask R-CNN (Cai & Vasconcelos 2018, 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dsctool.models.cascades.box_stage import BoxStage, cascade_boxes
from dsctool.models.cascades.masks import mean_masks, positive_labels, positive_masks
from dsctool.models.checkpointing import checkpointed
from dsctool.models.losses import Mean, mask_loss
from dsctool.models.modules import module_list
from dsctool.models.roi.extractors import roi_feature
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.targets import Samples
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import RoiMasks, Scored, Targets
from dsctool.terms import Size


class CascadeRCNN(nn.Module):
    """Box stages of rising quality, and a mask head beside each where ``mask_heads`` are given.

    checkpoint: training keeps none of the heads' activations, and computes them again for their gradients.
    """

    semantic_head = None

    def __init__(
        self,
        *,
        box_stages: Sequence[BoxStage],
        mask_heads: Sequence[MaskHead],
        mask_roi_size: int,
        stage_loss_weights: Sequence[float],
        geometry: Geometry = CURRENT,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.box_stages = module_list(box_stages)
        self.mask_heads = module_list(mask_heads)
        self.mask_roi_size = mask_roi_size
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.geometry = geometry

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks."""
        return len(self.mask_heads) > 0

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Mean]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox`` and ``s<t>.loss_mask`` of every stage t, weighted."""
        losses: dict[str, Mean] = {}
        boxes = list(proposals)
        for t, (stage, weight) in enumerate(zip(self.box_stages, self.stage_loss_weights, strict=True)):
            samples = stage.sample(boxes, targets, draw=t + 1)
            rois = boxes_to_rois([s.boxes for s in samples])
            logits, deltas = checkpointed(stage, features, None, rois, within=stage, when=self.checkpoint)
            stage_losses = stage.losses(logits, deltas, samples, targets)
            if self.has_masks:
                stage_losses["loss_mask"] = self._mask_loss(self.mask_heads[t], features, samples, targets)
            losses |= {f"s{t}.{name}": weight * value for name, value in stage_losses.items()}
            boxes = stage.next_proposals(samples, deltas, sizes)
        return losses

    def score(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> Scored[None]:
        """Boxes and class scores from the proposals ``(n_i, 4)`` of every image."""
        boxes, scores = cascade_boxes(self.box_stages, features, None, proposals, sizes)
        return Scored(boxes, scores, semantic=None, state=None)

    def masks(
        self, features: Sequence[Tensor], scored: Scored[None], rows: Tensor, rois: Tensor, labels: Tensor
    ) -> RoiMasks:
        """Masks of the classes ``labels (R,)`` in ``rois (R, 5)``, whichever rows of ``scored`` they came of."""
        return self._masks(features, rois, labels)

    def masks_for(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> RoiMasks:
        """Masks of any boxes ``(n_i, 4)`` and classes ``(n_i,)`` of every image."""
        return self._masks(features, boxes_to_rois(boxes), torch.cat(list(labels)))

    def _mask_loss(
        self, head: MaskHead, features: Sequence[Tensor], samples: Sequence[Samples], targets: Sequence[Targets]
    ) -> Mean:
        rois, labels = boxes_to_rois([s.positive_boxes for s in samples]), positive_labels(samples, targets)
        logits = checkpointed(self._mask_logits, head, features, rois, labels, within=head, when=self.checkpoint)
        wanted = positive_masks(samples, targets, size=2 * self.mask_roi_size, geometry=self.geometry)
        return mask_loss(logits, wanted)

    def _mask_logits(self, head: MaskHead, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> Tensor:
        x = roi_feature(features, None, rois, output_size=self.mask_roi_size, geometry=self.geometry)
        return head.predict_classes(head.feature(x), labels)

    def _masks(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> RoiMasks:
        """The mean of the stages' masks."""
        x = roi_feature(features, None, rois, output_size=self.mask_roi_size, geometry=self.geometry)
        return mean_masks(rois, [head.predict_classes(head.feature(x), labels) for head in self.mask_heads])
