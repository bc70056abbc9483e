"""One box stage of a cascade, and the inference loop over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dsctool.models.losses import Mean, box_loss, classification_loss
from dsctool.models.roi.box_head import BoxHead
from dsctool.models.roi.extractors import few_at_once, roi_feature
from dsctool.models.targets import RoiSampling, Samples, draws, positive_rows
from dsctool.ops.boxes import decode_boxes, encode_boxes
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Targets
from dsctool.terms import Size


class BoxStage(nn.Module):
    """Sampling, box head and box coding of one stage (Cai & Vasconcelos 2018, section 4)."""

    def __init__(
        self, *, head: BoxHead, roi_size: int, stds: tuple[float, float, float, float], sampling: RoiSampling,
        num_classes: int, geometry: Geometry = CURRENT,
    ) -> None:  # fmt: skip
        super().__init__()
        self.head = head
        self.roi_size = roi_size
        self.stds = stds
        self.sampling = sampling
        self.num_classes = num_classes
        self.geometry = geometry

    def forward(self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits ``(R, K+1)`` and normalised deltas ``(R, 4)`` of RoIs ``(R, 5)``."""
        return self.head(roi_feature(features, semantic, rois, output_size=self.roi_size, geometry=self.geometry))

    def in_parts(self, features: Sequence[Tensor], semantic: Tensor | None, rois: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, for inference: no more RoIs at a time than memory that is at hand has room for."""
        parts = [self(features, semantic, part) for (part,) in few_at_once(rois, roi_size=self.roi_size)]
        logits, deltas = (torch.cat(column) for column in zip(*parts, strict=True))
        return logits, deltas

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Targets], *, draw: int) -> list[Samples]:
        """Assign and sample the proposals ``(n_i, 4)`` of every image; annotated boxes join them.

        draw: which of the draws of a forward pass this is, from 1; see :func:`dsctool.models.targets.draws`.
        """
        return self.sampling(proposals, [target.boxes for target in targets], draws=draws(targets, draw))

    def reassign(
        self, samples: Sequence[Samples], boxes: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[Samples]:
        """All ``boxes (n_i, 4)`` that came of the samples of every image, in their order, assigned anew."""
        return self.sampling.reassign(samples, boxes, [target.boxes for target in targets])

    def losses(
        self, logits: Tensor, deltas: Tensor, samples: Sequence[Samples], targets: Sequence[Targets]
    ) -> dict[str, Mean]:
        """``loss_cls`` and ``loss_bbox`` of the samples of all images; both are divided by the number of samples."""
        labels = torch.cat([s.labels(t.labels, self.num_classes) for s, t in zip(samples, targets, strict=True)])
        wanted = torch.cat(
            [
                encode_boxes(s.positive_boxes, t.boxes[s.positive_gt], self.stds)
                for s, t in zip(samples, targets, strict=True)
            ]
        )
        return {
            "loss_cls": classification_loss(logits, labels),
            "loss_bbox": box_loss(deltas[positive_rows(samples)], wanted, beta=1.0, count=len(labels)),
        }

    @torch.no_grad()
    def refine(self, boxes: Sequence[Tensor], deltas: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """The boxes ``(n_i, 4)`` of every image moved by ``deltas`` (all images concatenated), clipped to its size.

        Deltas that are not finite move nothing: what to say about them is the losses' part.
        """
        deltas = deltas.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        moved = decode_boxes(torch.cat(list(boxes)), deltas, self.stds)
        parts = moved.split([b.shape[0] for b in boxes])
        return [self.geometry.clip(part, size) for part, size in zip(parts, sizes, strict=True)]

    def next_proposals(self, samples: Sequence[Samples], deltas: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """Refined samples without those that were annotated boxes: the training proposals of the next stage."""
        refined = self.refine([s.boxes for s in samples], deltas, sizes)
        return [boxes[s.num_gt :] for boxes, s in zip(refined, samples, strict=True)]


def cascade_boxes(
    stages: Sequence[BoxStage],
    features: Sequence[Tensor],
    semantic: Tensor | None,
    proposals: Sequence[Tensor],
    sizes: Sequence[Size],
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the box cascade: per image the last stage's boxes ``(n_i, 4)`` and the class scores ``(n_i, K)``.

    Scores are the softmax of the stages' averaged logits.
    """
    boxes, stage_logits = list(proposals), []
    for stage in stages:
        logits, deltas = stage.in_parts(features, semantic, boxes_to_rois(boxes))
        stage_logits.append(logits)
        boxes = stage.refine(boxes, deltas, sizes)
    return boxes, list(class_scores(stage_logits).split([b.shape[0] for b in boxes]))


def class_scores(stage_logits: Sequence[Tensor]) -> Tensor:
    """Softmax of the mean of some stages' logits ``(R, K+1)``, without the background: ``(R, K)``."""
    mean = torch.stack(list(stage_logits)).float().mean(dim=0)
    return mean.softmax(dim=1)[:, :-1]
