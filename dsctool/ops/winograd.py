"""A 3x3 convolution by a third of the multiplications (Winograd; Lavin & Gray 2016, F(4x4, 3x3)), for CPUs.

A tile of 6x6 cells gives 4x4 results: tile and filter are each carried to 36 numbers that are multiplied one by one,
summed over channels by 36 matrix products, and carried back. The transforms are those of polynomials through the
points 0, +-3/4, +-3/2 and infinity, which leave an error of 2e-6 of the largest result where the usual points (0, +-1,
+-2) leave 7e-6, and a direct convolution 3e-7.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, RESULT = 6, 4
"""Cells a side that a tile reads, and that it gives."""
TILES_AT_ONCE = 128
"""Few enough for the caches: 256 channels of them are 4.7 MB."""
FEWEST_CHANNELS = 128
"""With fewer, going over the tiles takes longer than the products save."""
FEWEST_TILES = 64
"""With fewer, the filters, four times as large, are read more slowly than the products save."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`winograd_conv` is there for a map and filters, and faster than a direct convolution."""
    tiles = len(x) * -(-x.shape[-2] // RESULT) * -(-x.shape[-1] // RESULT)
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and tiles >= FEWEST_TILES
    )


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of a row of results ``(4, 6)``, of a row of a filter ``(6, 3)`` and of a row of a tile ``(6, 6)``; float64.

    Toom-Cook: ``results @ ((filter @ g) * (tile @ d))`` is the correlation of d with g.
    """
    points = torch.tensor([0.0, 0.75, -0.75, 1.5, -1.5], dtype=torch.float64)
    powers = points[:, None] ** torch.arange(TILE, dtype=torch.float64)
    results = torch.cat([powers[:, :RESULT].T, torch.eye(RESULT, dtype=torch.float64)[:, -1:]], dim=1)
    rivals = [torch.cat([points[:i], points[i + 1 :]]) for i in range(len(points))]
    scale = torch.stack([(point - others).prod() for point, others in zip(points, rivals, strict=True)])
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    filter_ = torch.cat([powers[:, :3] / scale[:, None], last])
    tile = torch.stack([_coefficients(others) for others in [*rivals, points]])
    return results, filter_, tile


def _coefficients(roots: Tensor) -> Tensor:
    """Of the polynomial with these roots and leading coefficient 1, from the constant on, ``(6,)``."""
    polynomial = torch.ones(1, dtype=torch.float64)
    for root in roots:
        polynomial = F.pad(polynomial, (1, 0)) - root * F.pad(polynomial, (0, 1))
    return F.pad(polynomial, (0, TILE - len(polynomial)))


_RESULTS, _FILTER, _ROW = _transforms()
_FROM_PRODUCTS = torch.kron(_RESULTS, _RESULTS).float()  # (16, 36)
_FROM_TILE = torch.kron(_ROW, _ROW).float()  # (36, 36)


def transform_filters(weight: Tensor) -> Tensor:
    """Filters ``(O, C, 3, 3)`` -> what :func:`winograd_conv` multiplies by: ``(36, C, O)`` of the same type."""
    rows = torch.einsum("ai,bj,ocij->abco", _FILTER, _FILTER, weight.double())
    return rows.to(weight.dtype).flatten(0, 1).contiguous()


def winograd_conv(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """Convolution with stride 1 and a border of one cell of zeros, on a CPU; not differentiable.

    Args:
        x: ``(N, C, h, w)`` float32.
        filters: ``(36, C, O)``, from :func:`transform_filters`.
        bias: ``(O,)``.

    Returns:
        ``(N, O, h, w)``, channels last in memory.
    """
    images, channels, height, width = x.shape
    out_channels = filters.shape[2]
    down, across = -(-height // RESULT), -(-width // RESULT)
    border = (0, 0, 1, RESULT * across + 1 - width, 1, RESULT * down + 1 - height)
    padded = F.pad(x.permute(0, 2, 3, 1), border)  # (N, 4 down + 2, 4 across + 2, C)
    image, row, column, _ = padded.stride()
    tiles = padded.as_strided(
        (images, down, across, TILE, TILE, channels),
        (image, RESULT * row, RESULT * column, row, column, 1),
    )
    out = x.new_empty(images, height, width, out_channels)
    for some, rows in _parts(images, down, across):
        part = tiles[some, rows]
        transformed = torch.matmul(_FROM_TILE, part.reshape(-1, TILE**2, channels))
        products = torch.bmm(transformed.transpose(0, 1), filters).transpose(0, 1)
        results = torch.baddbmm(bias.view(1, 1, -1), _FROM_PRODUCTS.expand(len(products), -1, -1), products)
        results = results.view(*part.shape[:3], RESULT, RESULT, out_channels).permute(0, 1, 3, 2, 4, 5)
        target = out[some, RESULT * rows.start : RESULT * rows.stop]
        target.copy_(results.reshape(len(part), -1, RESULT * across, out_channels)[:, : target.shape[1], :width])
    return out.permute(0, 3, 1, 2)


def _parts(images: int, down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Whole images, or rows of tiles of one: as many as belong together."""
    at_once = max(1, TILES_AT_ONCE // (down * across))
    rows = down if at_once > 1 else max(1, TILES_AT_ONCE // across)
    for image in range(0, images, at_once):
        for row in range(0, down, rows):
            yield slice(image, image + at_once), slice(row, min(row + rows, down))
