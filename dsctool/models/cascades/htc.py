"""Hybrid task cascade (Chen et al. 2019)."""

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
from dsctool.models.roi.semantic_head import SemanticHead, embedded, semantic_branch
from dsctool.models.targets import Samples
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import RoiMasks, Scored, Targets
from dsctool.terms import Size


class HTC(nn.Module):
    """Interleaved box and mask stages with mask information flow and an optional semantic branch.

    checkpoint: training keeps none of the heads' activations, and computes them again for their gradients.
    """

    def __init__(
        self,
        *,
        box_stages: Sequence[BoxStage],
        mask_heads: Sequence[MaskHead],
        mask_roi_size: int,
        stage_loss_weights: Sequence[float],
        semantic_head: SemanticHead | None,
        geometry: Geometry = CURRENT,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.box_stages = module_list(box_stages)
        self.mask_heads = module_list(mask_heads)
        self.semantic_head = semantic_head
        self.mask_roi_size = mask_roi_size
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.geometry = geometry

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks: always."""
        return True

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Mean]:
        """``s<t>.loss_cls``, ``s<t>.loss_bbox``, ``s<t>.loss_mask``, weighted, and ``loss_semantic_seg``.

        Interleaved execution (section 3.1): the mask stage sees the boxes that the box stage of the
        same t has just refined, assigned and sampled anew.
        """
        losses, semantic = semantic_branch(self.semantic_head, features, targets, checkpoint=self.checkpoint)
        boxes = list(proposals)
        for t, (stage, weight) in enumerate(zip(self.box_stages, self.stage_loss_weights, strict=True)):
            samples = stage.sample(boxes, targets, draw=2 * t + 1)
            rois = boxes_to_rois([s.boxes for s in samples])
            logits, deltas = checkpointed(stage, features, semantic, rois, within=stage, when=self.checkpoint)
            stage_losses = stage.losses(logits, deltas, samples, targets)
            boxes = stage.next_proposals(samples, deltas, sizes)  # r_t = B_t(x, r_{t-1})
            samples = stage.sample(boxes, targets, draw=2 * t + 2)
            stage_losses["loss_mask"] = self._mask_loss(t, features, semantic, samples, targets)
            losses |= {f"s{t}.{name}": weight * value for name, value in stage_losses.items()}
        return losses

    def score(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> Scored[None]:
        """Boxes and class scores from the proposals ``(n_i, 4)`` of every image."""
        maps = None if self.semantic_head is None else self.semantic_head(features)
        boxes, scores = cascade_boxes(self.box_stages, features, embedded(maps), proposals, sizes)
        return Scored(boxes, scores, semantic=maps, state=None)

    def masks(
        self, features: Sequence[Tensor], scored: Scored[None], rows: Tensor, rois: Tensor, labels: Tensor
    ) -> RoiMasks:
        """Masks of the classes ``labels (R,)`` in ``rois (R, 5)``, whichever rows of ``scored`` they came of."""
        return self._masks(features, embedded(scored.semantic), rois, labels)

    def masks_for(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> RoiMasks:
        """Masks of any boxes ``(n_i, 4)`` and classes ``(n_i,)`` of every image."""
        maps = None if self.semantic_head is None else self.semantic_head(features)
        return self._masks(features, embedded(maps), boxes_to_rois(boxes), torch.cat(list(labels)))

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
    ) -> Mean:
        rois, labels = boxes_to_rois([s.positive_boxes for s in samples]), positive_labels(samples, targets)
        logits = checkpointed(self._mask_logits, t, features, semantic, rois, labels, within=self, when=self.checkpoint)
        wanted = positive_masks(samples, targets, size=2 * self.mask_roi_size, geometry=self.geometry)
        return mask_loss(logits, wanted)

    def _mask_logits(
        self, t: int, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor
    ) -> Tensor:
        """Of stage t alone, ``(R, 2s, 2s)``."""
        x = roi_feature(features, semantic, rois, output_size=self.mask_roi_size, geometry=self.geometry)
        return self.mask_heads[t].predict_classes(self.mask_features(x, t + 1)[t], labels)

    def _masks(self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor, labels: Tensor) -> RoiMasks:
        """The mean of the stages' masks."""
        x = roi_feature(features, semantic, rois, output_size=self.mask_roi_size, geometry=self.geometry)
        stages = zip(self.mask_heads, self.mask_features(x, len(self.mask_heads)), strict=True)
        return mean_masks(rois, [head.predict_classes(feature, labels) for head, feature in stages])
