"""One image seen in several views (test-time augmentation), and what a detector finds in all of them together.

``average`` (mmdet's way): the proposals of all views go through the cascade in every view; boxes and class
probabilities are averaged row by row, and suppressed once. ``union`` (detectron2's, by which the papers' numbers were
made): every view is detected in by itself, and suppression chooses among all detections. Either way the masks of what
is kept are worked out in every view and averaged as probabilities.

What the semantic branch says of every pixel is averaged as probabilities, too.

A view is at hand only while it is looked at, so it is made, and its features are computed, once for every look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from dsctool.models.detector import Detector, without_masks
from dsctool.models.postprocess import Selected
from dsctool.models.roi.extractors import few_at_once
from dsctool.models.roi.semantic_head import STRIDE as SEMANTIC_STRIDE
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Detections, Doubts, Scored, settled
from dsctool.terms import Size

Merge = Literal["average", "union"]
BAND_VALUES = 1 << 23
"""Probabilities of classes in pixels that are held at once, 4 bytes each."""


@dataclass(frozen=True)
class View:
    """An image as the network sees it.

    image: ``(1, C, H, W)``, normalised and padded. size: ``(h, w)`` without the padding. flipped: left for right,
    before it was padded.
    """

    image: Tensor
    size: Size
    flipped: bool

    def boxes_in(self, boxes: Tensor, original: Size, geometry: Geometry = CURRENT) -> Tensor:
        """Boxes ``(n, 4)`` of the image of size ``original``, in the view's pixels."""
        return self._mirrored(geometry.scale(boxes, source=original, target=self.size))

    def boxes_out(self, boxes: Tensor, original: Size, geometry: Geometry = CURRENT) -> Tensor:
        """Boxes ``(n, 4)`` of the view, in the pixels of the image."""
        return geometry.scale(self._mirrored(boxes), source=self.size, target=original)

    def masks_out(self, probs: Tensor) -> Tensor:
        """Masks ``(n, s, s)`` as the image has them."""
        return probs.flip(-1) if self.flipped else probs

    def map_out(self, probs: Tensor, original: Size, *, stride: int, rows: slice = slice(None)) -> Tensor:
        """A map ``(C, H/stride, W/stride)`` of the padded view, bilinearly in every pixel of the image: ``(C, h, w)``.

        Cells that lie in the padding take no part. rows: of the image, where not all are wanted.
        """
        height, width = (-(-side // stride) for side in self.size)
        probs = probs[:, :height, :width]
        y, x = (
            (torch.arange(side, device=probs.device, dtype=torch.float32) + 0.5) * (seen / side)
            for side, seen in zip(original, self.size, strict=True)
        )
        x, y = self.size[1] - x if self.flipped else x, y[rows]
        down, along = y * (2 / (stride * height)) - 1, x * (2 / (stride * width)) - 1
        grid = torch.stack([along.expand(len(y), -1), down[:, None].expand(-1, len(x))], dim=-1)
        sampled = F.grid_sample(probs[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[0]

    def _mirrored(self, boxes: Tensor) -> Tensor:
        if not self.flipped:
            return boxes
        left, top, right, bottom = boxes.unbind(dim=1)
        return torch.stack([self.size[1] - right, top, self.size[1] - left, bottom], dim=1)


@torch.no_grad()
def detect_in_views(model: Detector, views: Iterable[View], original: Size, merge: Merge) -> Detections:
    """What is in one image, in the pixels of its size ``original``, from all views of it.

    views: gone through several times; each time they are the same, at least one. A single one gives what the detector
    finds in it without augmentation.
    """
    looking = _Looking(model, views, original)
    first, *more = islice(views, 2)
    if not more:
        return looking.single(first)
    return looking.average() if merge == "average" else looking.union()


@torch.no_grad()
def semantic_in_views(model: Detector, views: Iterable[View], original: Size) -> Tensor:
    """``(classes, h, w)``: how probable every class of the semantic branch is in each pixel of one image.

    The mean over all views; one of them is held beside it. views: at least one. original: ``(h, w)`` of the image.

    Raises:
        ConfigError: the model has no semantic branch.
    """
    total, count = torch.zeros(()), 0
    for view in views:
        (logits,) = model.semantic_logits(model.extract_features(view.image))
        probs = view.map_out(logits.softmax(dim=0), original, stride=SEMANTIC_STRIDE)
        total, count = probs if count == 0 else total.add_(probs), count + 1
    return total / count


@torch.no_grad()
def groups_in_views(model: Detector, views: Iterable[View], original: Size, groups: Sequence[Sequence[int]]) -> Tensor:
    """``(h, w)`` uint8: the most probable group of the semantic branch's classes in each pixel of one image.

    As :func:`semantic_in_views`, with the probabilities of a group's classes summed. All views' maps are held at their
    stride, without the views. groups: at most 256.

    Raises:
        ConfigError: the model has no semantic branch.
    """
    maps: list[tuple[View, Tensor]] = []
    for view in views:
        (logits,) = model.semantic_logits(model.extract_features(view.image))
        maps.append((replace(view, image=torch.zeros(0)), _grouped(logits, groups)))
    return _most_probable(maps, original)


def groups_of(logits: Tensor, size: Size, original: Size, groups: Sequence[Sequence[int]]) -> Tensor:
    """The same from logits ``(classes, H/8, W/8)`` of an image that is ``size`` in its padded canvas, ``(h, w)``."""
    return _most_probable([(View(torch.zeros(0), size, flipped=False), _grouped(logits, groups))], original)


def _grouped(logits: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    probs = logits.float().softmax(dim=0)
    return torch.stack([probs[list(group)].sum(dim=0) for group in groups])


def _most_probable(maps: Sequence[tuple[View, Tensor]], original: Size) -> Tensor:
    """The place of the largest mean: sums and means commute with resizing, so that a band of rows at a time is."""
    height, width = original
    device, count = maps[0][1].device, len(maps[0][1])
    found = torch.empty(original, dtype=torch.uint8, device=device)
    step = max(1, BAND_VALUES // (count * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        total = torch.zeros((), device=device)
        for view, map_ in maps:
            total = total + view.map_out(map_, original, stride=SEMANTIC_STRIDE, rows=rows)
        found[rows] = total.argmax(dim=0).to(torch.uint8)
    return found


@dataclass(frozen=True)
class _Looking:
    """A detector, and the views of one image."""

    model: Detector
    views: Iterable[View]
    original: Size

    def single(self, view: View) -> Detections:
        """Of one view."""
        (found,) = self.model.detect(view.image, [view.size], [self.original])
        out = replace(view, size=self.original)  # only mirrored
        masks = found.mask_probs
        return replace(
            found,
            boxes=out.boxes_out(found.boxes, self.original),
            mask_probs=None if masks is None else view.masks_out(masks),
        )

    def average(self) -> Detections:
        """Rows of all views correspond: each is one proposal."""
        proposals, doubts = self._proposals()
        boxes, scores, stateful = [], [], False
        for view, features in self._features():
            scored = self._scored(view, features, proposals)
            boxes.append(self._out(view, scored.boxes[0]))
            scores.append(scored.scores[0])
            stateful = scored.state is not None
        selected = self.model.postprocess(torch.stack(boxes).mean(dim=0), torch.stack(scores).mean(dim=0))

        def masks(view: View, features: list[Tensor]) -> Tensor:
            # DSC's masks follow from what its stages made of the proposals in this view; others need none.
            scored = self._scored(view, features, proposals if stateful else proposals[:0])
            rois = boxes_to_rois([self._in(view, selected.boxes)])
            return self.model.roi_masks(features, scored, selected.rois, rois, selected.labels).probs

        return self._finished(selected, doubts, masks)

    def union(self) -> Detections:
        """Every view is detected in by itself, without masks; a box keeps its own place and score."""
        parts: list[Selected] = []
        doubts: Doubts = []
        for view, features in self._features():
            (proposals,) = self.model.rpn.propose(features, [view.size])
            scored = self._scored_in(view, features, proposals.boxes)
            parts.append(self.model.postprocess(self._out(view, scored.boxes[0]), scored.scores[0]))
            doubts += self.model.rpn.test_limits.reached(proposals)
        selected = self.model.postprocess.unite(parts)

        def masks(view: View, features: list[Tensor]) -> Tensor:
            boxes = self._in(view, selected.boxes)
            rows = few_at_once(boxes, selected.labels)
            return torch.cat([self.model.masks_for(features, [some], [labels]).probs for some, labels in rows])

        return self._finished(selected, doubts, masks)

    def _in(self, view: View, boxes: Tensor) -> Tensor:
        return view.boxes_in(boxes, self.original, self.model.geometry)

    def _out(self, view: View, boxes: Tensor) -> Tensor:
        return view.boxes_out(boxes, self.original, self.model.geometry)

    def _features(self) -> Iterator[tuple[View, list[Tensor]]]:
        for view in self.views:
            yield view, self.model.extract_features(view.image)

    def _proposals(self) -> tuple[Tensor, Doubts]:
        """``(n, 4)`` of all views in the pixels of the image, the best that do not overlap; and limits that bound."""
        rpn = self.model.rpn
        boxes, scores = [], []
        doubts: Doubts = []
        for view, features in self._features():
            (found,) = rpn.propose(features, [view.size])
            boxes.append(self._out(view, found.boxes))
            scores.append(found.scores)
            doubts += rpn.test_limits.reached(found)
        joined, objectness = torch.cat(boxes), torch.cat(scores)
        return joined[nms(joined, objectness, rpn.nms_iou)[: rpn.test_limits.max_proposals]], doubts

    def _scored(self, view: View, features: list[Tensor], proposals: Tensor) -> Scored[Any]:
        """proposals: in the pixels of the image."""
        return self._scored_in(view, features, self._in(view, proposals))

    def _scored_in(self, view: View, features: list[Tensor], proposals: Tensor) -> Scored[Any]:
        return self.model.score(features, [proposals], [view.size])

    def _finished(
        self, selected: Selected, doubts: Doubts, masks: Callable[[View, list[Tensor]], Tensor]
    ) -> Detections:
        """With the mean of the masks ``(n, s, s)`` that the views have."""
        found = without_masks(selected, self.original)
        if selected.candidates is not None:
            found = replace(found, candidates=without_masks(selected.candidates, self.original))
        if self.model.has_masks:
            total, count = torch.zeros((), device=found.boxes.device), 0
            for view, features in self._features():
                total, count = total + view.masks_out(masks(view, features)), count + 1
            found = replace(found, mask_probs=total / count, whole_pixels=self.model.geometry.whole_pixels)
            (found,) = self.model.postprocess.suppress_masks([found])
        (reached,) = settled([doubts + self.model.postprocess.reached(selected, found)])
        return replace(found, reached=reached)
