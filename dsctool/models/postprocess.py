"""From scored boxes to detections: what is kept of things that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.coco_results import Rle
from dsctool.ops.boxes import box_iou
from dsctool.ops.exchange import rows_where
from dsctool.ops.masks import encode_images
from dsctool.ops.nms import grouped_nms
from dsctool.ops.precision import at_least_float32
from dsctool.structures import Detections, Doubts, LimitName

Suppression = Literal["box", "soft", "mask"]
LIKELY_SCORE = 0.1
"""A limit that leaves out results of this score leaves out instances. Thresholds of results are far lower, and ordinary
images fill the limit too: with what is unlikely."""
_AT_ONCE = 1024
"""Candidates whose overlaps with each other are computed before the first is chosen."""


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
        """:meth:`select` of one image: boxes ``(R, 4)``, scores ``(R, K)``."""
        return self.select([boxes], [scores])[0]

    def select(self, boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Selected]:
        """Select from the boxes ``(R, 4)`` of every image, shared by all classes, and ``(R, K)`` without background.

        Every (box, class) pair is a candidate of its own. With ``mask`` the best candidates are all selected:
        :meth:`suppress_masks` does the rest.
        """
        scores = [at_least_float32(each) for each in scores]
        likely = rows_where([each.flatten() > self.score_threshold for each in scores])
        return [
            self._selected(_ranked(at_least_float32(box), each, pairs))
            for box, each, pairs in zip(boxes, scores, likely, strict=True)
        ]

    def _selected(self, candidates: Selected) -> Selected:
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

    def reached(self, selected: Selected, found: Detections) -> Doubts:
        """Which limits left out what is likely to be an instance. found: what became of ``selected``."""
        limits: list[tuple[LimitName, Tensor, int]] = [("max_per_image", found.scores, self.max_per_image)]
        if self.nms == "mask":
            limits.append(("mask_candidates", selected.scores, self.mask_candidates))
        return [(name, scores[-1] >= LIKELY_SCORE) for name, scores, limit in limits if len(scores) >= limit]

    def suppress_masks(self, found: Sequence[Detections]) -> list[Detections]:
        """Greedy suppression by IoU of masks, as they are pasted into the image, where ``nms`` is ``mask``."""
        probs = [each.mask_probs for each in found if each.mask_probs is not None]
        if self.nms != "mask" or len(probs) < len(found):
            return list(found)
        encoded = encode_images(
            probs,
            [each.boxes for each in found],
            [each.size for each in found],
            whole_pixels=any(each.whole_pixels for each in found),
        )
        labels = torch.cat([each.labels for each in found]).cpu().split([len(each) for each in found])
        keep = [self._apart(masks, own) for masks, own in zip(encoded, labels, strict=True)]
        return [each[rows.to(each.boxes.device, non_blocking=True)] for each, rows in zip(found, keep, strict=True)]

    def _apart(self, masks: Sequence[Rle], labels: Tensor) -> Tensor:
        """Rows of the masks, best first, that overlap no better one that is left and has their label."""
        if not masks:
            return torch.zeros(0, dtype=torch.int64)
        overlap = torch.from_numpy(coco_mask.iou(masks, masks, [0] * len(masks)))
        rivals = (overlap > self.nms_iou) & (labels[:, None] == labels[None])
        dropped = torch.zeros(len(masks), dtype=torch.bool)
        for row in range(len(masks)):
            if not dropped[row]:
                dropped[row + 1 :] |= rivals[row, row + 1 :]
        return torch.nonzero(~dropped).flatten()[: self.max_per_image]

    def _survivors(self, candidates: Selected) -> Tensor:
        """The first ``max_per_image`` survivors of candidates in descending order of score.

        Greedy NMS never lets a candidate touch a better one, so a prefix that holds enough survivors
        decides them all; with low thresholds the candidates are tens of thousands.
        """
        boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
        if torch.compiler.is_exporting():  # how many rounds that takes depends on the data
            return grouped_nms(boxes, scores, labels, self.nms_iou)[: self.max_per_image]
        count = 10 * self.max_per_image
        while True:
            keep = grouped_nms(boxes[:count], scores[:count], labels[:count], self.nms_iou)
            if len(keep) >= self.max_per_image or count >= len(boxes):
                return keep[: self.max_per_image]
            count *= 4

    def _softened(self, candidates: Selected) -> Selected:
        """The best remaining candidate again and again; those of its class that it overlaps lose score.

        Scores only fall: what is chosen of the best candidates is chosen of all, if it all scores more than the rest.
        """
        count = 4 * self.max_per_image
        while True:
            found = self._weakened(_select(candidates, slice(count)))
            if count >= len(candidates.scores):
                return found
            if len(found.scores) == self.max_per_image and found.scores[-1] > candidates.scores[count]:
                return found
            count *= 4

    def _weakened(self, candidates: Selected) -> Selected:
        scores = candidates.scores
        every = None if len(scores) > _AT_ONCE else self._decays(candidates, slice(None))
        chosen, weakened = [candidates.labels[:0]], [scores[:0]]
        for _ in range(min(self.max_per_image, len(scores))):
            best = scores.argmax(dim=0, keepdim=True)  # (1,); a number would have to be read
            chosen.append(best)
            weakened.append(scores[best])
            decays = self._decays(candidates, best) if every is None else every[best]
            scores = (scores * decays[0]).index_fill(0, best, -1)
        rows, final_scores = torch.cat(chosen), torch.cat(weakened)
        (enough,) = rows_where([final_scores > self.score_threshold])
        return replace(_select(candidates, rows[enough]), scores=final_scores[enough])

    def _decays(self, candidates: Selected, rows: Tensor | slice) -> Tensor:
        """``(m, n)``: what is left of the score of every candidate when one of ``rows (m,)`` is chosen."""
        overlap = box_iou(candidates.boxes[rows], candidates.boxes)
        rivals = (overlap > self.nms_iou) & (candidates.labels[rows][:, None] == candidates.labels)
        return torch.where(rivals, 1 - overlap, 1)


def _ranked(boxes: Tensor, scores: Tensor, pairs: Tensor) -> Selected:
    """The ``pairs (n,)`` of box and class, places in the flattened scores ``(R, K)``, by descending score."""
    chosen = scores.flatten()[pairs]
    order = chosen.argsort(descending=True, stable=True)
    pairs = pairs[order]
    rows = pairs // scores.shape[1]
    return Selected(boxes[rows], chosen[order], pairs % scores.shape[1], rows)


def _joined(parts: Sequence[Selected]) -> Selected:
    """All of them, by descending score."""
    columns = [(part.boxes, part.scores, part.labels, part.rois) for part in parts]
    boxes, scores, labels, rois = (torch.cat(column) for column in zip(*columns, strict=True))
    return _select(Selected(boxes, scores, labels, rois), scores.argsort(descending=True, stable=True))


def _select(candidates: Selected, rows: Tensor | slice) -> Selected:
    return Selected(candidates.boxes[rows], candidates.scores[rows], candidates.labels[rows], candidates.rois[rows])
