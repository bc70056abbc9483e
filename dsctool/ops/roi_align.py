"""RoIs and the features under them.

RoIs are ``(R, 5)`` float32: the image's index in the batch, then x1, y1, x2, y2 in pixels.

On CUDA the work is done by torchvision. On a CPU torchvision's operator is serial and its backward
pass dominates training, so there RoIAlign is written as what it is, a sparse matrix times the
feature map: see :mod:`dsctool.ops.roi_align_cpu`. Both give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from dsctool.ops.boxes import box_area
from dsctool.ops.precision import full_precision
from dsctool.ops.roi_align_cpu import sparse_roi_align


def boxes_to_rois(boxes: Sequence[Tensor], *, first: int = 0) -> Tensor:
    """Boxes ``(n_i, 4)`` of every image, from the batch's image ``first`` on -> ``(R, 5)`` RoIs, in the same order."""
    return torch.cat([torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes, start=first)])


def roi_levels(boxes: Tensor, *, num_levels: int, finest_size: float = 56.0) -> Tensor:
    """The pyramid level ``(R,)`` int64 of each box ``(R, 4)``: ``floor(log2(sqrt(w h) / finest_size + 1e-6))``.

    Level 0 holds boxes up to ``2 * finest_size`` pixels, the last one all larger (Lin et al. 2017, equation 1).
    """
    scale = box_area(boxes).sqrt()
    return torch.floor(torch.log2(scale / finest_size + 1e-6)).clamp(0, num_levels - 1).long()


def roi_align(features: Tensor, rois: Tensor, *, output_size: int, stride: float, pool: int = 1) -> Tensor:
    """Aligned RoIAlign with ``ceil(roi / bins)`` samples a side of each bin.

    Args:
        features: ``(N, C, h, w)``, one cell per ``stride`` pixels.
        rois: ``(R, 5)``.
        output_size: cells a side of the result.
        pool: the RoI is divided into ``output_size * pool`` bins a side, and ``pool x pool`` bins are averaged.

    Returns:
        ``(R, C, output_size, output_size)`` float32, also under autocast.
    """
    features, rois = features.float(), rois.float()
    if features.device.type == "cpu":
        levels = torch.zeros(len(rois), dtype=torch.int64)
        return sparse_roi_align([features], rois, levels, output_size=output_size, strides=[stride], pool=pool)
    with full_precision(features.device):
        pooled = torchvision_roi_align(features, rois, output_size * pool, 1 / stride, sampling_ratio=0, aligned=True)
    return pooled if pool == 1 else F.avg_pool2d(pooled, pool)


def pyramid_roi_align(features: Sequence[Tensor], rois: Tensor, *, output_size: int, strides: Sequence[int]) -> Tensor:
    """:func:`roi_align` of each RoI on its :func:`roi_levels` level: ``(R, C, output_size, output_size)``.

    Every level is part of the graph, also one without RoIs.
    """
    levels = roi_levels(rois[:, 1:], num_levels=len(features))
    if rois.device.type == "cpu":
        return sparse_roi_align(
            [x.float() for x in features], rois, levels, output_size=output_size, strides=strides, pool=1
        )
    order, pooled = [], []
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        rows = torch.nonzero(levels == level).flatten()
        order.append(rows)
        pooled.append(roi_align(feature, rois[rows], output_size=output_size, stride=stride))
    return torch.cat(pooled)[torch.cat(order).argsort()]
