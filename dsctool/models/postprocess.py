"""From scored boxes to detections: what is kept of things that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms

from dsctool.ops.boxes import box_iou
from dsctool.ops.masks import encode_masks
from dsctool.ops.precision import at_least_float32
from dsctool.structures import Detections, LimitName

Suppression = Literal["box", "soft", "mask"]
LIKELY_SCORE = 0.1
"""A limit that leaves out results of this score leaves out instances. Thresholds of results are far lower, and ordinary
images fill the limit too: with what is unlikely."""


@dataclass(frozen=True)
class Selected:
    """Chosen candidates by descending score.

    boxes ``(n, 4)``, scores ``(n,)``, labels ``(n,)`` int64, and rois ``(n,)`` int64: the row each came from.
    candidates: the best of those chosen from, where they are kept.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rois: Tensor
    candidates: Selected | None = None


@dataclass(frozen=True)
class Postprocess:
    """Suppression of double detections, per class.

    score_threshold: candidates score more than this.
    nms_iou: overlap with a better candidate of the class from which one is dropped (``soft``: weakened).
    max_per_image: detections kept.
    nms: ``box``: greedy, by IoU of boxes. ``soft``: scores decay linearly with it (Bodla et al. 2017, equation 2).
        ``mask``: greedy, by IoU of predicted masks, so that neighbours whose boxes overlap both stay.
    mask_candidates: with ``mask``, the best this many candidates get masks.
    keep_candidates: give the best this many candidates as well, as they were before suppression.
    """

    score_threshold: float
    nms_iou: float
    max_per_image: int
    nms: Suppression = "box"
    mask_candidates: int = 300
    keep_candidates: int = 0

    def __call__(self, boxes: Tensor, scores: Tensor) -> Selected:
        """Select from the boxes ``(R, 4)`` shared by all classes and ``scores (R, K)`` without background.

        Every (box, class) pair is a candidate of its own. With ``mask`` the best candidates are all selected:
        :meth:`suppress_masks` does the rest.
        """
        boxes, scores = at_least_float32(boxes), at_least_float32(scores)
        rows, labels = torch.nonzero(scores > self.score_threshold, as_tuple=True)
        order = scores[rows, labels].argsort(descending=True, stable=True)
        rows, labels = rows[order], labels[order]
        candidates = Selected(boxes[rows], scores[rows, labels], labels, rows)
        chosen = self._suppressed(candidates)
        if not self.keep_candidates:
            return chosen
        return replace(chosen, candidates=_select(candidates, slice(self.keep_candidates)))

    def unite(self, parts: Sequence[Selected]) -> Selected:
        """Select from what was selected in several views; what these were selected from are the candidates."""
        chosen = self._suppressed(_joined(parts))
        if not self.keep_candidates:
            return chosen
        before = _joined([part.candidates for part in parts if part.candidates is not None])
        return replace(chosen, candidates=_select(before, slice(self.keep_candidates)))

    def _suppressed(self, candidates: Selected) -> Selected:
        match self.nms:
            case "box":
                return _select(candidates, self._survivors(candidates))
            case "soft":
                return self._softened(candidates)
            case "mask":
                return _select(candidates, slice(self.mask_candidates))

    def reached(self, selected: Selected, found: Detections) -> frozenset[LimitName]:
        """The limits that left out what is likely to be an instance. found: what became of ``selected``."""
        names: list[LimitName] = []
        if self.nms == "mask" and _is_full(selected.scores, self.mask_candidates):
            names.append("mask_candidates")
        if _is_full(found.scores, self.max_per_image):
            names.append("max_per_image")
        return frozenset(names)

    def suppress_masks(self, found: Detections) -> Detections:
        """Greedy suppression by IoU of masks, as they are pasted into the image, where ``nms`` is ``mask``."""
        if self.nms != "mask" or found.mask_probs is None or len(found) == 0:
            return found
        masks = encode_masks(found.mask_probs, found.boxes, found.size, whole_pixels=found.whole_pixels)
        overlap = torch.from_numpy(coco_mask.iou(masks, masks, [0] * len(masks)))
        labels = found.labels.cpu()
        rivals = (overlap > self.nms_iou) & (labels[:, None] == labels[None])
        dropped = torch.zeros(len(found), dtype=torch.bool)
        for row in range(len(found)):
            if not dropped[row]:
                dropped[row + 1 :] |= rivals[row, row + 1 :]
        keep = torch.nonzero(~dropped).flatten()[: self.max_per_image]
        return found[keep.to(found.boxes.device)]

    def _survivors(self, candidates: Selected) -> Tensor:
        """The first ``max_per_image`` survivors of candidates in descending order of score.

        Greedy NMS never lets a candidate touch a better one, so a prefix that holds enough survivors
        decides them all; with low thresholds the candidates are tens of thousands.
        """
        boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
        count = 10 * self.max_per_image
        while True:
            keep = batched_nms(boxes[:count], scores[:count], labels[:count], self.nms_iou)
            if len(keep) >= self.max_per_image or count >= len(boxes):
                return keep[: self.max_per_image]
            count *= 4

    def _softened(self, candidates: Selected) -> Selected:
        """The best remaining candidate again and again; those of its class that it overlaps lose score."""
        scores = candidates.scores.clone()
        kept: list[int] = []
        final_scores: list[Tensor] = []
        while len(kept) < self.max_per_image and len(scores):
            best = int(scores.argmax())
            if scores[best] <= self.score_threshold:
                break
            kept.append(best)
            final_scores.append(scores[best].clone())
            overlap = box_iou(candidates.boxes[best : best + 1], candidates.boxes)[0]
            decays = (overlap > self.nms_iou) & (candidates.labels == candidates.labels[best])
            scores = torch.where(decays, scores * (1 - overlap), scores)
            scores[best] = -1
        chosen = _select(candidates, torch.tensor(kept, dtype=torch.int64, device=scores.device))
        weakened = torch.stack(final_scores) if final_scores else chosen.scores
        return Selected(chosen.boxes, weakened, chosen.labels, chosen.rois)


def _is_full(scores: Tensor, limit: int) -> bool:
    return len(scores) >= limit and bool(scores[-1] >= LIKELY_SCORE)


def _joined(parts: Sequence[Selected]) -> Selected:
    """All of them, by descending score."""
    columns = [(part.boxes, part.scores, part.labels, part.rois) for part in parts]
    boxes, scores, labels, rois = (torch.cat(column) for column in zip(*columns, strict=True))
    return _select(Selected(boxes, scores, labels, rois), scores.argsort(descending=True, stable=True))


def _select(candidates: Selected, rows: Tensor | slice) -> Selected:
    return Selected(candidates.boxes[rows], candidates.scores[rows], candidates.labels[rows], candidates.rois[rows])
