"""RoIs and the features under them.

RoIs are ``(R, 5)`` float32: the image's index in the batch, then x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.ops.boxes import box_area
from dsctool.ops.exchange import vector_like
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.precision import full_precision
from dsctool.ops.roi_align_operator import aligned, exportable_roi_align


def boxes_to_rois(boxes: Sequence[Tensor], *, first: int = 0) -> Tensor:
    """Boxes ``(n_i, 4)`` of every image, from the batch's image ``first`` on -> ``(R, 5)`` RoIs, in the same order."""
    rois = [torch.cat([b.new_full((b.shape[0], 1), i), b], dim=1) for i, b in enumerate(boxes, start=first)]
    return torch.cat(rois)


def roi_levels(boxes: Tensor, *, num_levels: int, finest_size: float = 56.0) -> Tensor:
    """The pyramid level ``(R,)`` int64 of each box ``(R, 4)``: ``floor(log2(sqrt(w h) / finest_size + 1e-6))``.

    Level 0 holds boxes up to ``2 * finest_size`` pixels, the last one all larger (Lin et al. 2017, equation 1).
    """
    scale = box_area(boxes).sqrt()
    return torch.floor(torch.log2(scale / finest_size + 1e-6)).clamp(0, num_levels - 1).long()


def roi_align(
    features: Tensor, rois: Tensor, *, output_size: int, stride: float, pool: int = 1, geometry: Geometry = CURRENT
) -> Tensor:
    """Aligned RoIAlign with ``ceil(roi / bins)`` samples a side of each bin, or as ``geometry`` has it.

    Args:
        features: ``(N, C, h, w)``, one cell per ``stride`` pixels.
        rois: ``(R, 5)``.
        output_size: cells a side of the result.
        pool: the RoI is divided into ``output_size * pool`` bins a side, and ``pool x pool`` bins are averaged.

    Returns:
        ``(R, C, output_size, output_size)`` float32, also under autocast.
    """
    levels = rois.new_zeros(rois.shape[0], dtype=torch.int64)
    return _aligned([features], rois, levels, output_size=output_size, strides=[stride], pool=pool, geometry=geometry)


def pyramid_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    output_size: int,
    strides: Sequence[float],
    geometry: Geometry = CURRENT,
) -> Tensor:
    """:func:`roi_align` of each RoI on its :func:`roi_levels` level: ``(R, C, output_size, output_size)``.

    Every level is part of the graph, also one without RoIs.
    """
    levels = roi_levels(rois[:, 1:], num_levels=len(features))
    return _aligned(features, rois, levels, output_size=output_size, strides=strides, pool=1, geometry=geometry)


def _aligned(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    *,
    output_size: int,
    strides: Sequence[float],
    pool: int,
    geometry: Geometry,
) -> Tensor:
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in features)
    keep = trains and not torch.compiler.is_compiling()  # how much is kept depends on the data, which traces do without
    if geometry.roi_shift:
        shift = geometry.roi_shift * vector_like(rois, *strides)[levels]
        rois = torch.cat([rois[:, :1], rois[:, 1:] + shift[:, None]], dim=1)
    with full_precision(rois.device):
        # An exported program is for other machines, and holds operators that these have.
        operator = exportable_roi_align if torch.compiler.is_exporting() else aligned
        pooled: Tensor = operator(
            [x.float() for x in features],
            rois.float(),
            levels,
            output_size,
            [float(s) for s in strides],
            pool,
            geometry.roi_samples,
            keep,
        )[0]
    return pooled
