"""RoIAlign as an operator, ``torch.ops.dsctool.roi_align``, which compiled programs hold as a whole.

On CUDA and other devices torchvision does the work. On a CPU torchvision's operator is serial and its backward pass
dominates training, so there RoIAlign is computed as what it is, a sparse matrix times the feature map: see
:mod:`dsctool.ops.roi_align_cpu`. Both give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from dsctool.ops.exchange import vector_like
from dsctool.ops.roi_align_cpu import Aligned, sparse_roi_align, sparse_roi_align_backward


def dense_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: int,
    strides: Sequence[float],
    pool: int,
    samples: int,
    keep: bool,
) -> Aligned:
    """As :func:`~dsctool.ops.roi_align_cpu.sparse_roi_align`, by torchvision; there is no matrix to keep."""
    parts = (
        torchvision_roi_align(x, part, output_size * pool, 1 / stride, sampling_ratio=samples, aligned=True)
        for x, stride, part in zip(features, strides, _by_level(rois, levels, strides), strict=True)
    )
    pooled = reduce(torch.add, parts)
    pooled = pooled if pool == 1 else F.avg_pool2d(pooled, pool)
    nothing = rois.new_zeros(0)
    return (
        pooled.contiguous(memory_format=torch.channels_last),
        nothing.int(),
        nothing,
        levels.new_zeros(rois.shape[0], 2),
    )


def exportable_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: int,
    strides: Sequence[float],
    pool: int,
    samples: int,
    keep: bool,
) -> Aligned:
    """As :func:`dense_roi_align`, by operators that other programs have, without keeping anything.

    Every RoI is looked at on its own level alone: such programs pool four times as long where it is on all.
    """
    parts: list[Tensor] = []
    rows: list[Any] = []
    for level, (x, stride) in enumerate(zip(features, strides, strict=True)):
        own = slice(None) if len(features) == 1 else (levels == level).nonzero().flatten()
        part = torchvision_roi_align(x, rois[own], output_size * pool, 1 / stride, sampling_ratio=samples, aligned=True)
        parts.append(part if pool == 1 else F.avg_pool2d(part, pool))
        rows.append(own)
    nothing = rois.new_zeros(0)
    pooled = parts[0] if len(parts) == 1 else _in_order(parts, rows, levels)
    return pooled, nothing.int(), nothing, nothing


def _in_order(parts: Sequence[Tensor], rows: Sequence[Tensor], like: Tensor) -> Tensor:
    """All ``parts`` together, each row where ``rows`` has it; these are as many as ``like`` has."""
    order = torch.cat(list(rows))
    places = torch.zeros_like(like).index_put((order,), torch.arange(order.shape[0], device=order.device))
    return torch.cat(list(parts))[places]


def dense_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    cells: Tensor,
    weights: Tensor,
    rows: Tensor,
    shapes: Sequence[int],
    strides: Sequence[float],
    pool: int,
    samples: int,
) -> Tensor:
    """As :func:`~dsctool.ops.roi_align_cpu.sparse_roi_align_backward`, by torchvision."""
    channels, bins = grad.shape[1], grad.shape[2] * pool
    grad = (grad.repeat_interleave(pool, dim=2).repeat_interleave(pool, dim=3) / pool**2).contiguous()
    parts = [
        torch.ops.torchvision._roi_align_backward(
            grad,
            part,
            1 / stride,
            bins,
            bins,
            images,
            channels,
            height,
            width,
            samples,
            True,
        )
        for (images, height, width), stride, part in zip(
            _triples(shapes), strides, _by_level(rois, levels, strides), strict=True
        )
    ]
    return torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in parts])


def _by_level(rois: Tensor, levels: Tensor, strides: Sequence[float]) -> list[Tensor]:
    """For every level ``(R, 5)``: the RoIs as they are, those of other levels beside the map, where zeros are read.

    What is written for nothing costs less than the host's wait to know how many RoIs each level has.
    """
    if len(strides) == 1:
        return [rois]
    beside = vector_like(rois, 0, -4, -4, -3, -3)
    return [rois.where((levels == level)[:, None], beside * stride) for level, stride in enumerate(strides)]


aligned = torch.library.custom_op(
    "dsctool::roi_align",
    dense_roi_align,
    mutates_args=(),
    schema="(Tensor[] features, Tensor rois, Tensor levels, int output_size, float[] strides, int pool, int samples,"
    " bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
)
aligned.register_kernel("cpu")(sparse_roi_align)
aligned_backward = torch.library.custom_op(
    "dsctool::roi_align_backward",
    dense_roi_align_backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor rois, Tensor levels, Tensor cells, Tensor weights, Tensor rows, SymInt[] shapes,"
    " float[] strides, int pool, int samples) -> Tensor",
)


@aligned_backward.register_kernel("cpu")
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    cells: Tensor,
    weights: Tensor,
    rows: Tensor,
    shapes: Sequence[int],
    strides: Sequence[float],
    pool: int,
    samples: int,
) -> Tensor:
    return sparse_roi_align_backward(
        grad, rois, levels, (cells, weights, rows), _triples(shapes), strides, pool, samples
    )


@aligned.register_fake
def _(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: int,
    strides: Sequence[float],
    pool: int,
    samples: int,
    keep: bool,
) -> Aligned:
    pooled = features[0].new_empty(rois.shape[0], output_size, output_size, features[0].shape[1]).permute(0, 3, 1, 2)
    terms = torch.library.get_ctx().new_dynamic_size() if keep else 0
    cells = rois.new_empty(terms, dtype=torch.int32)
    return pooled, cells, rois.new_empty(terms), levels.new_empty(rois.shape[0], 2)


@aligned_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    cells: Tensor,
    weights: Tensor,
    rows: Tensor,
    shapes: Sequence[int],
    strides: Sequence[float],
    pool: int,
    samples: int,
) -> Tensor:
    return grad.new_empty(sum(n * h * w for n, h, w in _triples(shapes)), grad.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Aligned) -> None:
    features, rois, levels, _, ctx.strides, ctx.pool, ctx.samples, _ = inputs
    ctx.shapes = [side for x in features for side in (x.shape[0], x.shape[2], x.shape[3])]
    ctx.save_for_backward(rois, levels, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[list[Tensor] | None, ...]:
    table = aligned_backward(grad, *ctx.saved_tensors, ctx.shapes, ctx.strides, ctx.pool, ctx.samples)
    shapes = _triples(ctx.shapes)
    maps = table.split([n * h * w for n, h, w in shapes])
    gradients = [x.view(*shape, grad.shape[1]).permute(0, 3, 1, 2) for x, shape in zip(maps, shapes, strict=True)]
    return gradients, None, None, None, None, None, None, None


aligned.register_autograd(_gradients, setup_context=_setup)


def _triples(shapes: Sequence[int]) -> list[tuple[int, int, int]]:
    """``(N, h, w)`` of each level from a flat list."""
    return list(zip(shapes[::3], shapes[1::3], shapes[2::3], strict=True))
