"""Products of a sparse matrix with a table of feature cells.

RoIAlign and deformable convolution read features at fractional places: each result is a weighted sum
of a few cells. ``embedding_bag`` computes such sums in parallel and vectorised over channels. The
matrix is given row by row: ``counts (rows,)`` terms each, then flat ``cells`` (int32 row of the table)
and ``weights``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def row_sums(table: Tensor, *, cells: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """The matrix times ``table (cells, C)``: ``(rows, C)``."""
    return F.embedding_bag(cells, table, _starts(counts), mode="sum", per_sample_weights=weights)


def cell_sums(grad: Tensor, *, rows: Tensor, cells: Tensor, weights: Tensor, counts: Tensor, num_cells: int) -> Tensor:
    """The transposed matrix times ``grad (all rows, C)``: ``(num_cells, C)``.

    rows: ``(rows,)`` int32, the row of ``grad`` that belongs to each row of the matrix.
    """
    by_cell = cells.argsort()
    cell_counts = cells.bincount(minlength=num_cells)
    return F.embedding_bag(
        rows.repeat_interleave(counts)[by_cell],
        grad,
        _starts(cell_counts),
        mode="sum",
        per_sample_weights=weights[by_cell],
    )


def weight_gradients(grad: Tensor, table: Tensor, *, cells: Tensor, counts: Tensor) -> Tensor:
    """The gradient of every weight: the product of its row of ``grad`` with its cell of ``table``, ``(terms,)``.

    The operator is private to PyTorch, which has no public one for it; a test says so when it changes.
    """
    rows = torch.arange(len(counts), dtype=cells.dtype, device=cells.device).repeat_interleave(counts)
    sum_mode = 0
    gradients: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, table, cells, _starts(counts), rows, sum_mode, -1
    )
    return gradients


def _starts(counts: Tensor) -> Tensor:
    return (counts.cumsum(0) - counts).int()
