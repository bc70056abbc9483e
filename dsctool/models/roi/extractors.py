"""What a RoI head looks at: the pyramid under the RoI, plus the semantic feature where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.models.necks.fpn import STRIDES
from dsctool.models.roi.semantic_head import semantic_roi_feature
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import pyramid_roi_align
from dsctool.ops.roi_align_cpu import side_by_side

ROI_LEVELS = 4
"""RoIs are pooled from P2 to P5; P6 only serves the RPN and the semantic head."""


def roi_feature(
    features: Sequence[Tensor],
    semantic: Tensor | None,
    rois: Tensor,
    *,
    output_size: int,
    semantic_rois: Tensor | None = None,
    geometry: Geometry = CURRENT,
) -> Tensor:
    """RoIAlign on the pyramid, plus the pooled semantic feature (Chen et al. 2019, equation 6).

    Args:
        features: P2..P6.
        semantic: the embedded semantic feature ``(N, C, H/8, W/8)`` or None.
        rois: ``(R, 5)``.
        semantic_rois: where the semantic feature is pooled, ``(R, 5)``; None: under ``rois``.

    Returns:
        ``(R, C, output_size, output_size)``.
    """
    pooled = pyramid_roi_align(
        features[:ROI_LEVELS], rois, output_size=output_size, strides=STRIDES[:ROI_LEVELS], geometry=geometry
    )
    if semantic is not None:
        under = rois if semantic_rois is None else semantic_rois
        pooled = pooled + semantic_roi_feature(semantic, under, output_size=output_size, geometry=geometry)
    return pooled


def ready_for_rois(features: Sequence[Tensor]) -> list[Tensor]:
    """P2..P6 as RoIAlign reads them fastest, for inference: on a CPU those that RoIs are pooled from lie together."""
    if features[0].device.type != "cpu":
        return list(features)
    return [*side_by_side(features[:ROI_LEVELS]), *features[ROI_LEVELS:]]


def few_at_once(*columns: Tensor, roi_size: int = 14) -> list[tuple[Tensor, ...]]:
    """Columns with a row for every RoI of ``roi_size`` bins a side, in parts that go through the heads together.

    This is for inference, and bounds memory. An exported program takes all at once: how many parts there are depends on
    the data.
    """
    if torch.compiler.is_exporting():
        return [columns]
    count = _at_once(columns[0].device, roi_size)
    return list(zip(*(column.split(count) for column in columns), strict=True))


def _at_once(device: torch.device, roi_size: int) -> int:
    """How many RoIs that is.

    On a CPU so few that every array of features comes from memory that the allocator has at hand: larger ones are
    mapped and cleared anew each time, a quarter of DSC's time, and more beside a busy neighbour.
    """
    return (64 if device.type == "cpu" else 250) * 14**2 // roi_size**2
