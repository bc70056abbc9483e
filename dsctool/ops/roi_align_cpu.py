"""RoIAlign on a CPU as a sparse matrix product.

Averaging bilinear samples over a bin is a weighted sum of feature cells. The weights separate into
a vertical and a horizontal factor, and samples that share cells merge, so a bin needs few terms. The
backward pass is the same product with the transposed matrix; a large one is rebuilt for it rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsctool.ops.sparse import cell_sums, row_sums

SUPPORTS = torch.tensor([2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 1 << 20])
"""Supports of a bin are rounded up to one of these, so that few different block shapes occur."""
KEPT_TERMS = 2_000_000
"""A matrix of at most so many terms is kept for the backward pass (8 bytes each), a larger one built anew."""
MAX_TERMS = 16_000_000
"""About so many terms of the sparse matrix are held at a time (16 bytes each in the backward pass)."""

Aligned = tuple[Tensor, Tensor, Tensor, Tensor]
"""The result, and for its backward pass a matrix in three parts."""


def sparse_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: int,
    strides: Sequence[float],
    pool: int,
    samples: int,
    keep: bool,
) -> Aligned:
    """Aligned RoIAlign of each RoI on its level; see :func:`dsctool.ops.roi_align.roi_align`.

    Args:
        features: per level ``(N, C, h, w)`` float32.
        rois: ``(R, 5)``; levels: ``(R,)`` int64 index into ``features``.
        strides: pixels per cell of each level.
        samples: a side of each bin; 0: as many as it has cells.
        keep: give the matrix as well, where it has at most ``KEPT_TERMS`` terms.

    Returns:
        ``(R, C, output_size, output_size)``, channels last in memory, and the matrix for
        :func:`sparse_roi_align_backward`: cells and weights of its terms (none where it is not kept), and
        ``(R, 2)``: which RoI comes when, and how many terms each of its bins has.
    """
    table = one_table(features)
    shapes = [(x.shape[0], x.shape[2], x.shape[3]) for x in features]
    bins = _Bins.of(rois, levels, shapes, strides, size=output_size, pool=pool, samples=samples)
    pooled = table.new_empty(len(rois), output_size * output_size * table.shape[1])
    kept: list[_Terms] = []
    rows, count = [levels.new_zeros(0, 2)], 0
    for terms in bins.terms():
        rows.append(terms.rows)
        pooled.index_copy_(0, terms.rows[:, 0], terms.times(table).view(-1, pooled.shape[1]))
        count += len(terms.cells)
        kept = [*kept, terms] if keep and count <= KEPT_TERMS else []
    order = torch.cat(rows)
    pooled = pooled.view(len(rois), output_size, output_size, table.shape[1]).permute(0, 3, 1, 2)
    if kept:
        matrix = _Terms.cat(kept)
        return pooled, matrix.cells, matrix.weights, order
    return pooled, torch.zeros(0, dtype=torch.int32), torch.zeros(0), order


def sparse_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    matrix: tuple[Tensor, Tensor, Tensor],
    shapes: Sequence[tuple[int, int, int]],
    strides: Sequence[float],
    pool: int,
    samples: int,
) -> Tensor:
    """The gradient of every cell, ``(cells of all levels and images, C)``, from that of the result ``(R, C, s, s)``.

    ``matrix`` as :func:`sparse_roi_align` gave it; shapes: ``(N, h, w)`` of each level.
    """
    channels, size = grad.shape[1], grad.shape[2]
    flat = grad.permute(0, 2, 3, 1).reshape(-1, channels)
    cells = sum(images * height * width for images, height, width in shapes)
    table_grad = grad.new_zeros(cells, channels)
    kept = [_Terms(*matrix, size)] if len(matrix[0]) else None
    for terms in kept or _Bins.of(rois, levels, shapes, strides, size=size, pool=pool, samples=samples).terms():
        table_grad += terms.transposed_times(flat, cells)
    return table_grad


def one_table(features: Sequence[Tensor]) -> Tensor:
    """The cells of all levels and images, ``(cells, C)``, from maps ``(N, C, h, w)``.

    A view where the maps lie one after the other in memory, as :func:`side_by_side` puts them.
    """
    parts = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in features]
    first = parts[0]
    places, end = [], first.storage_offset()
    for part in parts:
        places.append(part.is_contiguous() and part.storage_offset() == end)
        end += part.numel()
    shared = all(part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for part in parts)
    if all(places) and shared:
        return first.as_strided((sum(len(part) for part in parts), first.shape[1]), first.stride())
    return torch.cat(parts)


def side_by_side(features: Sequence[Tensor]) -> list[Tensor]:
    """Copies of maps ``(N, C, h, w)``, one after the other in memory: RoIAlign reads them without copies of its own."""
    table = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in features])
    maps = table.split([x.shape[0] * x.shape[2] * x.shape[3] for x in features])
    return [
        part.view(x.shape[0], x.shape[2], x.shape[3], x.shape[1]).permute(0, 3, 1, 2)
        for part, x in zip(maps, features, strict=True)
    ]


@dataclass(frozen=True)
class _Grid:
    """Where each RoI's map lies in the table of all cells: ``(R,)`` tensors."""

    base: Tensor
    height: Tensor
    width: Tensor
    stride: Tensor

    @staticmethod
    def of(shapes: Sequence[tuple[int, int, int]], strides: Sequence[float], levels: Tensor, images: Tensor) -> _Grid:
        counts, heights, widths = torch.tensor(shapes).unbind(dim=1)
        starts = (counts * heights * widths).cumsum(0) - counts * heights * widths
        height, width = heights[levels], widths[levels]
        return _Grid(
            base=starts[levels] + images.long() * height * width,
            height=height,
            width=width,
            stride=torch.tensor(strides, dtype=torch.float32)[levels],
        )


@dataclass(frozen=True)
class _Axis:
    """One axis of all bins: the first cell ``(R, P)``, weights of it and the following ``(R, P, K)``, and ``(R,)``
    how many of the K each RoI needs."""

    first: Tensor
    weights: Tensor
    support: Tensor

    @staticmethod
    def of(start: Tensor, stop: Tensor, extent: Tensor, *, bins: int, pool: int, samples: int) -> _Axis:
        """From RoI borders ``(R,)`` in cells and the map's extent ``(R,)``.

        Samples outside ``[-1, extent]`` count as zero; those within half a cell of the border repeat it.
        """
        length = stop - start
        wanted = (length / (bins * pool)).ceil().clamp(min=0).long()
        per_bin = (torch.full_like(wanted, samples) if samples else wanted) * pool
        step = (length / bins / per_bin.clamp(min=1))[:, None, None]
        index = torch.arange(int(per_bin.max()) if len(per_bin) else 1)
        position = (
            start[:, None, None]
            + torch.arange(bins)[None, :, None] * (length / bins)[:, None, None]
            + (index + 0.5) * step
        )  # (R, P, S)
        extent = extent[:, None, None]
        valid = (index < per_bin[:, None, None]) & (position >= -1) & (position <= extent)
        position = torch.minimum(position.clamp(min=0), (extent - 1).float())
        low = position.floor()
        fraction = position - low
        first = low.amin(dim=2, keepdim=True) if low.shape[2] else low.new_zeros(*low.shape[:2], 1)
        offset = torch.where(valid, low - first, 0).long()
        support = offset.flatten(1).amax(dim=1) + 2 if offset.numel() else torch.full((len(start),), 2)
        share = valid / per_bin.clamp(min=1)[:, None, None]
        weights = start.new_zeros(len(start), bins, int(support.max()) if len(support) else 2)
        weights.scatter_add_(2, offset, (1 - fraction) * share)
        weights.scatter_add_(2, offset + 1, fraction * share)
        return _Axis(first[:, :, 0].long(), weights, support)


@dataclass(frozen=True)
class _Terms:
    """Rows of the sparse matrix, one per bin.

    cells, weights: the terms, flat: which cell, int32, and its weight.
    rows: ``(n, 2)`` whose bins these are, in this order, and how many terms each bin has.
    size: bins a side.
    """

    cells: Tensor
    weights: Tensor
    rows: Tensor
    size: int

    @staticmethod
    def cat(parts: Sequence[_Terms]) -> _Terms:
        if len(parts) == 1:
            return parts[0]
        cells, weights, rows = (
            torch.cat(column) for column in zip(*((p.cells, p.weights, p.rows) for p in parts), strict=True)
        )
        return _Terms(cells, weights, rows, parts[0].size)

    @property
    def counts(self) -> Tensor:
        """``(n * size^2,)``: terms of each bin."""
        return self.rows[:, 1].repeat_interleave(self.size**2)

    def times(self, table: Tensor) -> Tensor:
        """The rows times ``table (cells, C)``: ``(n * size^2, C)``."""
        return row_sums(table, cells=self.cells, weights=self.weights, counts=self.counts)

    def transposed_times(self, grad: Tensor, num_cells: int) -> Tensor:
        """The transposed rows times ``grad (all bins, C)``: ``(num_cells, C)``."""
        bins = (self.rows[:, :1] * self.size**2 + torch.arange(self.size**2)).flatten().int()
        return cell_sums(
            grad, rows=bins, cells=self.cells, weights=self.weights, counts=self.counts, num_cells=num_cells
        )


@dataclass(frozen=True)
class _Bins:
    """The sparse matrix from cells to bins, factored by axis."""

    y: _Axis
    x: _Axis
    grid: _Grid
    size: int

    @staticmethod
    def of(
        rois: Tensor,
        levels: Tensor,
        shapes: Sequence[tuple[int, int, int]],
        strides: Sequence[float],
        *,
        size: int,
        pool: int,
        samples: int,
    ) -> _Bins:
        grid = _Grid.of(shapes, strides, levels, rois[:, 0])
        corners = rois[:, 1:] * (1 / grid.stride)[:, None] - 0.5
        return _Bins(
            y=_Axis.of(corners[:, 1], corners[:, 3], grid.height, bins=size, pool=pool, samples=samples),
            x=_Axis.of(corners[:, 0], corners[:, 2], grid.width, bins=size, pool=pool, samples=samples),
            grid=grid,
            size=size,
        )

    def terms(self) -> Iterator[_Terms]:
        """The matrix, in parts of bounded size; RoIs with equal (rounded) supports are built together."""
        parts: list[_Terms] = []
        for rows, k_y, k_x in self._groups():
            parts.append(self._terms_of(rows, k_y, k_x))
            if sum(len(part.cells) for part in parts) >= MAX_TERMS:
                yield _Terms.cat(parts)
                parts = []
        if parts:
            yield _Terms.cat(parts)

    def _groups(self) -> Iterator[tuple[Tensor, int, int]]:
        tall, wide = torch.bucketize(self.y.support, SUPPORTS), torch.bucketize(self.x.support, SUPPORTS)
        kind = tall * len(SUPPORTS) + wide
        for value in kind.unique().tolist():
            rows = torch.nonzero(kind == value).flatten()
            k_y = min(int(SUPPORTS[value // len(SUPPORTS)]), self.y.weights.shape[2])
            k_x = min(int(SUPPORTS[value % len(SUPPORTS)]), self.x.weights.shape[2])
            for part in rows.split(max(1, MAX_TERMS // (self.size**2 * k_y * k_x))):
                yield part, k_y, k_x

    def _terms_of(self, rows: Tensor, k_y: int, k_x: int) -> _Terms:
        height, width = self.grid.height[rows, None, None], self.grid.width[rows, None, None]
        y = torch.minimum(self.y.first[rows, :, None] + torch.arange(k_y), height - 1) * width
        y = (y + self.grid.base[rows, None, None]).int()  # (n, P, Ky)
        x = torch.minimum(self.x.first[rows, :, None] + torch.arange(k_x), width - 1).int()  # (n, P, Kx)
        weights = self.y.weights[rows, :, None, :k_y, None] * self.x.weights[rows, None, :, None, :k_x]
        return _Terms(
            cells=(y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(),  # (n, P, P, Ky, Kx)
            weights=weights.flatten(),
            rows=torch.stack([rows, torch.full_like(rows, k_y * k_x)], dim=1),
            size=self.size,
        )
