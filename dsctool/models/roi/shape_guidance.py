"""What masks do for boxes in DSC: weighted features (SgRoIAlign) and aligned features of the previous stage.

Numbers of sections are those of Ding et al. 2021, "Deeply Shape-guided Cascade for Instance Segmentation".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsctool.models.necks.fpn import STRIDES
from dsctool.models.roi.extractors import ROI_LEVELS
from dsctool.ops.boxes import enlarge_boxes
from dsctool.ops.exchange import vector_like
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import pyramid_roi_align, roi_align

_OUTSIDE = (-4.0, -4.0, -3.0, -3.0)
"""A RoI beyond every feature map: RoIAlign reads zeros there."""


def shape_guided_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    mask_probs: Tensor,
    *,
    output_size: int,
    plus_one: bool,
    geometry: Geometry = CURRENT,
) -> Tensor:
    """SgRoIAlign, f^s: each bin of RoIAlign times (1 +) the mean probability of the mask in it.

    As in the published code the product is of the two means of a bin, not the mean of products.

    Args:
        features: P2..P6.
        rois: ``(R, 5)``.
        mask_probs: ``(R, s, s)``, stretched over the RoI.
        plus_one: with 1 added, what the mask misses is weakened and not removed.

    Returns:
        ``(R, C, output_size, output_size)``.
    """
    pooled = pyramid_roi_align(
        features[:ROI_LEVELS], rois, output_size=output_size, strides=STRIDES[:ROI_LEVELS], geometry=geometry
    )
    weights = F.adaptive_avg_pool2d(mask_probs[:, None], output_size)
    return pooled * (1 + weights if plus_one else weights)


def enlarge_rois(rois: Tensor, ratio: float) -> Tensor:
    """B^e: RoIs ``(R, 5)`` with sides ``ratio`` times as long about the same centres; they may leave the image."""
    return torch.cat([rois[:, :1], enlarge_boxes(rois[:, 1:], ratio)], dim=1)


def relative_boxes(boxes: Tensor, base: Tensor, size: tuple[int, int]) -> Tensor:
    """``boxes (R, 4)`` in the cells of maps of ``size`` (h, w) that are stretched over ``base (R, 4)``.

    A base without area has no coordinates: its row lies outside the map.
    """
    height, width = size
    extent = (base[:, 2:] - base[:, :2]).repeat(1, 2)
    # Divided first: equal boxes must give whole cells, else RoIAlign takes two samples a side where one suffices.
    relative = (boxes - base[:, :2].repeat(1, 2)) / extent * vector_like(base, width, height).repeat(2)
    return torch.where(relative.isfinite().all(dim=1, keepdim=True), relative, vector_like(relative, *_OUTSIDE))


def relative_roi_align(feature: Tensor, base_rois: Tensor, rois: Tensor, *, output_size: int) -> Tensor:
    """Adaptive feature alignment, a(F^-, B^e_{t-1}, B^e_t): the part of each map that lies under the new RoI.

    The same under every geometry: the map is stretched over the RoI, and the same RoI must give it back.

    Args:
        feature: ``(R, C, h, w)``, one map per RoI, each stretched over its row of ``base_rois (R, 5)``.
        rois: ``(R, 5)``, where the features are wanted; what lies outside the base reads 0.

    Returns:
        ``(R, C, output_size, output_size)``; the feature itself where both RoIs are the same and the sizes too.
    """
    height, width = feature.shape[-2:]
    boxes = relative_boxes(rois[:, 1:], base_rois[:, 1:], (height, width))
    rows = torch.arange(rois.shape[0], device=boxes.device, dtype=boxes.dtype)
    return roi_align(feature, torch.cat([rows[:, None], boxes], dim=1), output_size=output_size, stride=1)


def keep_inside(boxes: Tensor, limits: Tensor, *, ratio: float) -> Tensor:
    """RoI clipping (as the paper means it): ``boxes (n, 4)`` cut so that, enlarged, they lie in ``limits (n, 4)``.

    A box whose enlargement lies outside its limits altogether collapses onto their border.
    """
    enlarged = enlarge_boxes(boxes, ratio)
    low, high = limits[:, :2].repeat(1, 2), limits[:, 2:].repeat(1, 2)
    return enlarge_boxes(torch.minimum(torch.maximum(enlarged, low), high), 1 / ratio)
