"""Deformable convolution (Dai et al. 2017): a convolution that samples at learned offsets.

On CUDA and other devices torchvision's operator does the work. On a CPU that operator is serial, so
there the samples are gathered by a sparse product (:mod:`dsctool.ops.sparse`), which is an operator of its own,
``torch.ops.dsctool.gather_samples``, and convolved by one matrix product. Both give the same values and gradients up
to rounding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from dsctool.ops.precision import at_least_float32, full_precision
from dsctool.ops.sparse import cell_sums, weight_gradients


class DeformableConvFunction(Protocol):
    """The signature of :func:`deformable_conv`, which other backends share."""

    def __call__(
        self, x: Tensor, offset: Tensor, weight: Tensor, *, stride: int, padding: int, dilation: int, groups: int = 1
    ) -> Tensor: ...


def deformable_conv(
    x: Tensor, offset: Tensor, weight: Tensor, *, stride: int, padding: int, dilation: int, groups: int = 1
) -> Tensor:
    """Deformable convolution v1: bilinear samples, zero outside the map, no modulation, no bias.

    Args:
        x: ``(N, C, h, w)``.
        offset: ``(N, 2 k^2, h', w')``, in cells of x: dy and dx of every tap, taps row-major.
        weight: ``(O, C / groups, k, k)``.

    Returns:
        ``(N, O, h', w')``, float32 or better, also under autocast.
    """
    x, offset, weight = at_least_float32(x), at_least_float32(offset), at_least_float32(weight)
    with full_precision(x.device):
        if x.device.type == "cpu" and not torch.compiler.is_exporting():
            return _gathered_conv(x, offset, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return deform_conv2d(x, offset, weight, stride=stride, padding=padding, dilation=dilation)


def _gathered_conv(
    x: Tensor, offset: Tensor, weight: Tensor, *, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    batch, channels, height, width = x.shape
    out_height, out_width = offset.shape[-2:]
    out_channels, kernel = weight.shape[0], weight.shape[-1]
    y, x_position = _sample_positions(offset, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    cells, weights = _bilinear(y, x_position, height, width)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    samples: Tensor = gather_samples(table, weights, cells)
    if groups == 1:
        # (N h' w', k^2 C) with filters (O, k^2 C): a view of the weight where its memory is channels last.
        columns = samples.view(batch * out_height * out_width, -1)
        result = F.linear(columns, weight.permute(0, 2, 3, 1).reshape(out_channels, -1))
    else:
        columns = samples.view(batch * out_height * out_width, kernel**2, groups, channels // groups)
        columns = columns.permute(2, 0, 1, 3).flatten(2)  # (groups, N h' w', k^2 C / groups)
        filters = weight.view(groups, out_channels // groups, -1, kernel, kernel)
        filters = filters.permute(0, 3, 4, 2, 1).flatten(1, 3)  # (groups, k^2 C / groups, O / groups)
        result = torch.bmm(columns, filters).permute(1, 0, 2).flatten(1)
    return result.view(batch, out_height, out_width, out_channels).permute(0, 3, 1, 2)


def _sample_positions(
    offset: Tensor, *, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """Where each tap of each output cell samples: y and x in cells, ``(N, h' w', k^2)``."""
    batch, _, out_height, out_width = offset.shape
    dy, dx = offset.view(batch, kernel**2, 2, out_height * out_width).permute(0, 3, 1, 2).unbind(dim=3)
    tap = torch.arange(kernel, device=offset.device) * dilation - padding
    tap_y, tap_x = tap.repeat_interleave(kernel), tap.repeat(kernel)
    row = (torch.arange(out_height, device=offset.device) * stride).repeat_interleave(out_width)
    column = (torch.arange(out_width, device=offset.device) * stride).repeat(out_height)
    return dy + (row[:, None] + tap_y), dx + (column[:, None] + tap_x)


def _bilinear(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around each place and their weights, ``(places, 4)``; cells outside the map weigh nothing.

    Weights are differentiable in y and x, whose first dimension is the image.
    """
    base = (torch.arange(y.shape[0], device=y.device) * (height * width)).view(-1, 1, 1)
    top, left = y.detach().floor().nan_to_num(), x.detach().floor().nan_to_num()  # NaN stays in the weights
    down, right = y - top, x - left
    cells, weights = [], []
    for row, row_weight in ((top, 1 - down), (top + 1, down)):
        for column, column_weight in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            cell = base + row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            cells.append(cell.int())
            weights.append(row_weight * column_weight * inside)
    return torch.stack(cells, dim=-1).view(-1, 4), torch.stack(weights, dim=-1).view(-1, 4)


@torch.library.custom_op(
    "dsctool::gather_samples", mutates_args=(), schema="(Tensor table, Tensor weights, Tensor cells) -> Tensor"
)
def gather_samples(table: Tensor, weights: Tensor, cells: Tensor) -> Tensor:
    """Weighted sums ``(n, C)`` of four rows each of ``table (m, C)``: ``cells`` int32 and ``weights``, ``(n, 4)``."""
    return F.embedding_bag(cells, table, mode="sum", per_sample_weights=weights)


@torch.library.custom_op(
    "dsctool::gather_samples_table_grad",
    mutates_args=(),
    schema="(Tensor grad, Tensor weights, Tensor cells, SymInt num_cells) -> Tensor",
)
def gather_samples_table_grad(grad: Tensor, weights: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """The gradient ``(num_cells, C)`` of the table from that of the sums ``(n, C)``."""
    return cell_sums(
        grad.contiguous(),
        rows=torch.arange(len(cells), dtype=torch.int32, device=cells.device),
        cells=cells.flatten(),
        weights=weights.flatten(),
        counts=_fours(cells),
        num_cells=num_cells,
    )


@torch.library.custom_op(
    "dsctool::gather_samples_weight_grad", mutates_args=(), schema="(Tensor grad, Tensor table, Tensor cells) -> Tensor"
)
def gather_samples_weight_grad(grad: Tensor, table: Tensor, cells: Tensor) -> Tensor:
    """The gradient ``(n, 4)`` of the weights from that of the sums ``(n, C)``."""
    return weight_gradients(grad.contiguous(), table, cells=cells.flatten(), counts=_fours(cells)).view(cells.shape)


def _fours(cells: Tensor) -> Tensor:
    return torch.full((len(cells),), 4, device=cells.device)


@gather_samples.register_fake
def _(table: Tensor, weights: Tensor, cells: Tensor) -> Tensor:
    return table.new_empty(cells.shape[0], table.shape[1])


@gather_samples_table_grad.register_fake
def _(grad: Tensor, weights: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    return grad.new_empty(num_cells, grad.shape[1])


@gather_samples_weight_grad.register_fake
def _(grad: Tensor, table: Tensor, cells: Tensor) -> Tensor:
    return grad.new_empty(cells.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    table, weights, cells = ctx.saved_tensors
    return (
        gather_samples_table_grad(grad, weights, cells, table.shape[0]) if ctx.needs_input_grad[0] else None,
        gather_samples_weight_grad(grad, table, cells) if ctx.needs_input_grad[1] else None,
        None,
    )


gather_samples.register_autograd(_gradients, setup_context=_setup)
