"""Geometry of boxes: absolute ``(x1, y1, x2, y2)`` floats in pixels, half-open, no "+1" anywhere.

Areas, overlaps and the coding of boxes are float32 at least, whatever their arguments are: half precision
tells whole pixels apart only up to 256 (bfloat16) or 2,048.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.ops.exchange import vector_like
from dsctool.ops.precision import at_least_float32
from dsctool.terms import Size

MAX_LOG_RATIO = math.log(1000 / 16)
"""Decoded widths and heights change by at most this factor's logarithm, up or down."""


def box_area(boxes: Tensor) -> Tensor:
    """Areas ``(...,)`` of boxes ``(..., 4)``."""
    boxes = at_least_float32(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a (A, 4)`` with every box of ``b (B, 4)``: ``(A, B)``.

    The union is at least 1e-6, as in the published assigner, so boxes without area have IoU 0.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    width = torch.minimum(a[:, None, 2], b[None, :, 2]) - torch.maximum(a[:, None, 0], b[None, :, 0])
    height = torch.minimum(a[:, None, 3], b[None, :, 3]) - torch.maximum(a[:, None, 1], b[None, :, 1])
    intersection = width.clamp_(min=0) * height.clamp_(min=0)
    union = box_area(a)[:, None] + box_area(b)[None, :] - intersection
    return intersection / union.clamp(min=1e-6)


def encode_boxes(boxes: Tensor, targets: Tensor, stds: Sequence[float]) -> Tensor:
    """Deltas ``(n, 4)`` that lead from ``boxes (n, 4)`` to ``targets (n, 4)``.

    ``dx = (tx - x) / w``, ``dy = (ty - y) / h``, ``dw = log(tw / w)``, ``dh = log(th / h)`` on centres
    and sizes, each divided by its entry of ``stds``.
    """
    centres, sizes = _centre_size(boxes)
    target_centres, target_sizes = _centre_size(targets)
    deltas = torch.cat([(target_centres - centres) / sizes, torch.log(target_sizes / sizes)], dim=1)
    return deltas / vector_like(deltas, *stds)


def decode_boxes(boxes: Tensor, deltas: Tensor, stds: Sequence[float]) -> Tensor:
    """The inverse of :func:`encode_boxes`, with ``|dw|`` and ``|dh|`` cut at log(1000/16); not clipped to an image."""
    deltas = at_least_float32(deltas)
    deltas = deltas * vector_like(deltas, *stds)
    centres, sizes = _centre_size(boxes)
    centres = centres + deltas[:, :2] * sizes
    sizes = sizes * deltas[:, 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.cat([centres - sizes * 0.5, centres + sizes * 0.5], dim=1)


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Boxes ``(n, 4)`` cut to an image of ``size`` (h, w); both ends may touch the border."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=1)


def enlarge_boxes(boxes: Tensor, ratio: float) -> Tensor:
    """Boxes ``(n, 4)`` with sides ``ratio`` times as long about the same centres; they may leave the image."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * ((ratio - 1) / 2)
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def scale_boxes(boxes: Tensor, *, source: Size, target: Size) -> Tensor:
    """Boxes in the pixels of an image of size ``source`` (h, w), in those of its copy resized to ``target``."""
    return boxes * vector_like(boxes, target[1] / source[1], target[0] / source[0]).repeat(2)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = at_least_float32(boxes)
    return (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
