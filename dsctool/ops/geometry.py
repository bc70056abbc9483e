"""Where boxes and pixels meet: the conventions of today, and those of mmdet 1.x.

Boxes are half-open in this project, ``x2 - x1`` wide, under either geometry. mmdet 1.x counted the last pixel as part
of the box: what it called ``(x1, y1, x2, y2)``, ``x2 - x1 + 1`` wide, is ``(x1, y1, x2 + 1, y2 + 1)`` here. Seen so,
most of its conventions are those of today, and need nothing done:

* IoU in assignment, NMS and soft-NMS, and the choice of the pyramid level look at widths and areas: the same numbers.
* Encoding: centres all lie half a pixel further, their differences and the sizes are the same numbers.
* Decoding: its ``x1 = gx - gw/2 + 0.5`` and ``x2 = gx + gw/2 - 0.5`` are today's ``gx - gw/2`` and ``gx + gw/2``.
* Flips: its ``W - x - 1`` is ``W - x``.
* Proposals: the best of each level after NMS, then the best of those of all levels, are the best of all.

What remains is in :class:`Mmdet1Geometry`, and in four settings that :func:`dsctool.models.build.build_detector` makes
with it: proposals without area stay, low-quality matches count in every stage, the semantic loss is averaged over the
labelled cells, and :class:`dsctool.data.transforms.ResizeByOneFactor` resizes training images.

Sources: mmdet 1.1 as the DetectoRS authors used it (their repository's master branch), and mmcv 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsctool.ops.boxes import clip_boxes, scale_boxes
from dsctool.ops.masks import mask_targets, resized_crops
from dsctool.terms import Size


@dataclass(frozen=True)
class Geometry:
    """Today's conventions, those of mmdet 2.x and later. Boxes ``(n, 4)`` are half-open, sizes ``(h, w)``, in pixels.

    roi_samples: RoIAlign's samples a side of each bin; 0: as many as the bin has cells.
    roi_shift: by how much of a cell RoIAlign looks further right and down; 0: cell i is centred at ``i + 0.5``.
    whole_pixels: masks are painted on the whole pixels of their boxes; see :func:`dsctool.ops.masks.paste_masks`.
    """

    roi_samples: int = 0
    roi_shift: float = 0.0
    whole_pixels: bool = False

    def anchors(self, around_origin: Tensor, stride: int) -> Tensor:
        """The anchors of the first cell, from boxes of their sizes centred on the origin: these boxes."""
        return around_origin

    def inside(self, anchors: Tensor, size: Size) -> Tensor:
        """``(n,)`` bool: the anchor lies inside an image of ``size``, and so can be trained on."""
        height, width = size
        return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width) & (anchors[:, 3] < height)

    def clip(self, boxes: Tensor, size: Size) -> Tensor:
        """Boxes cut to an image of ``size``."""
        return clip_boxes(boxes, size)

    def scale(self, boxes: Tensor, *, source: Size, target: Size) -> Tensor:
        """Boxes of an image of size ``source``, in the pixels of its copy resized to ``target``: a factor per axis."""
        return scale_boxes(boxes, source=source, target=target)

    def mask_targets(self, masks: Tensor, boxes: Tensor, gt_indices: Tensor, size: int) -> Tensor:
        """What a mask head should predict; arguments as for :func:`dsctool.ops.masks.mask_targets`."""
        return mask_targets(masks, boxes, gt_indices, size)


CURRENT = Geometry()
"""The geometry of all models but those that are told otherwise."""


@dataclass(frozen=True)
class Mmdet1Geometry(Geometry):
    """What mmdet 1.x did otherwise, also where boxes are half-open.

    RoIAlign takes 2 x 2 samples of each bin, and has cell i centred at ``i``: RoIs are not moved by half a cell.

    resizes: (short side, long side), the limits to which images are resized. The factor follows from them, where the
        sizes, rounded to whole pixels, leave it open.
    """

    roi_samples: int = 2
    roi_shift: float = 0.5
    whole_pixels: bool = True
    resizes: tuple[tuple[int, int], ...] = ()

    def anchors(self, around_origin: Tensor, stride: int) -> Tensor:
        """Centred in the cell, not on its corner, with corners on whole pixels."""
        low, high = (around_origin + stride / 2).split(2, dim=1)
        # The last pixel was rounded, half to even, not the end after it.
        return torch.cat([low.round(), (high - 1).round() + 1], dim=1)

    def inside(self, anchors: Tensor, size: Size) -> Tensor:
        """The last pixel lies inside, so the end may touch the border."""
        height, width = size
        return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width + 1) & (anchors[:, 3] < height + 1)

    def clip(self, boxes: Tensor, size: Size) -> Tensor:
        """First and last pixel lie in the image, so a pixel's width is left of what lies outside."""
        height, width = size
        x1, y1, x2, y2 = boxes.unbind(dim=1)
        first = x1.clamp(0, width - 1), y1.clamp(0, height - 1)
        return torch.stack([*first, x2.clamp(1, width), y2.clamp(1, height)], dim=1)

    def scale(self, boxes: Tensor, *, source: Size, target: Size) -> Tensor:
        """First and last pixel times one factor for both axes."""
        return self.scale_by(boxes, self._factor(source, target)) if source != target else boxes

    @staticmethod
    def scale_by(boxes: Tensor, factor: float) -> Tensor:
        """First and last pixel times ``factor``; what is less than a pixel does not end before it begins."""
        first, end = boxes[:, :2] * factor, (boxes[:, 2:] - 1) * factor + 1
        return torch.cat([first, torch.maximum(first, end)], dim=1)

    def mask_targets(self, masks: Tensor, boxes: Tensor, gt_indices: Tensor, size: int) -> Tensor:
        """The bitmap's part under the whole pixels of the box, resized; see :func:`dsctool.ops.masks.resized_crops`."""
        return resized_crops(masks, boxes, gt_indices, size)

    def _factor(self, source: Size, target: Size) -> float:
        for limits in self.resizes:
            if resized(source, *limits) == target:
                return resize_factor(source, *limits)
            if resized(target, *limits) == source:
                return 1 / resize_factor(target, *limits)
        return max(target) / max(source)  # sizes of somebody's own


def resize_factor(size: Size, short_side: int, long_side: int) -> float:
    """The largest factor by which an image of ``size`` exceeds neither side's limit, in pixels."""
    return min(long_side / max(size), short_side / min(size))


def resized(size: Size, short_side: int, long_side: int) -> Size:
    """The size that :func:`resize_factor` gives, in whole pixels, at least one."""
    factor = resize_factor(size, short_side, long_side)
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)
