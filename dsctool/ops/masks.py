"""Masks between a box's small grid and the image: targets for training, pasting, run-length encoding.

A detector's mask is a small map of probabilities stretched over its box. Pixel ``(x, y)`` of the image
is foreground when the map, sampled bilinearly at the pixel's centre ``(x + 0.5, y + 0.5)``, reaches the
threshold. Everything here samples each mask only near its box, in tiles of bounded size, and computes
in float32 whatever the inputs are.

mmdet 1.x worked with whole pixels: a box covered those from ``int(x1)`` to ``int(x2 - 1)`` (half-open ``x2``), a mask
was resized to them by OpenCV's bilinear interpolation, which repeats what lies at the border, and was foreground where
it was above the threshold. ``whole_pixels`` and :func:`resized_crops` do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from dsctool.coco_results import Rle
from dsctool.ops.precision import full_precision
from dsctool.terms import Size

TILE_PIXELS = 1 << 21
"""Most pixels sampled at once; about 16 bytes each are alive at the peak."""
BITMAP_VALUES = 1 << 25
"""Most bitmap pixels that :func:`mask_targets` holds as float32 at once."""
FIXED_POINT = 1 << 11
"""What OpenCV's interpolation of bytes counts its weights in."""


def paste_masks(
    probs: Tensor, boxes: Tensor, size: Size, *, threshold: float = 0.5, whole_pixels: bool = False
) -> Tensor:
    """Masks at image size.

    probs: ``(n, s, s)`` probabilities, each spread over its box. boxes: ``(n, 4)`` in pixels of the image
    of ``size`` ``(h, w)``. Returns ``(n, h, w)`` bool, true where the probability is at least ``threshold``; with
    ``whole_pixels`` (as mmdet 1.x did) more than it, and only on the whole pixels of the box, over which it is spread.
    Nothing is painted further than two pixels outside a box, which matters for thresholds below 0.5 only.
    For results on disk use :func:`encode_masks`, which never holds this array.
    """
    pasted = torch.zeros((len(boxes), *size), dtype=torch.bool, device=boxes.device)
    for tiles in _tiles(boxes, size):
        sampled = _foreground(probs, boxes, tiles, threshold, whole_pixels)
        for columns, (mask, x1, y1, x2, y2) in zip(sampled, tiles.tolist(), strict=True):
            pasted[mask, y1:y2, x1:x2] = columns[: x2 - x1, : y2 - y1].T
    return pasted


def encode_masks(
    probs: Tensor, boxes: Tensor, size: Size, *, threshold: float = 0.5, whole_pixels: bool = False
) -> list[Rle]:
    """:func:`paste_masks` followed by COCO's run-length encoding, without the full-size masks.

    Memory does not grow with the image: the ends of the runs are found on the tensors' device, tile by
    tile, and only they are kept.
    """
    height, width = size
    pixels = height * width
    keys = [
        _run_ends(_foreground(probs, boxes, tiles, threshold, whole_pixels), tiles, size)
        for tiles in _tiles(boxes, size)
    ]
    ends = torch.cat(keys).sort().values if keys else torch.empty(0, dtype=torch.int64)
    # A run that goes on from the last row of a column to the first row of the next ends and starts at one place.
    repeated = torch.zeros(len(ends) + 1, dtype=torch.bool, device=ends.device)
    repeated[1:-1] = ends[1:] == ends[:-1]
    ends = ends[~(repeated[1:] | repeated[:-1])].cpu()

    firsts = torch.searchsorted(ends, torch.arange(len(boxes) + 1) * (pixels + 1)).tolist()
    runs = []
    for index, (first, last) in enumerate(pairwise(firsts)):
        places = ends[first:last] - index * (pixels + 1)
        places = places[places < pixels]
        counts = torch.diff(places, prepend=places.new_zeros(1), append=places.new_full((1,), pixels))
        runs.append({"size": [height, width], "counts": counts.tolist()})
    encoded = coco_mask.frPyObjects(runs, height, width) if runs else []
    return [Rle(size=[height, width], counts=rle["counts"].decode("ascii")) for rle in encoded]


def mask_targets(masks: Tensor, boxes: Tensor, gt_indices: Tensor, size: int) -> Tensor:
    """What the mask head should predict for positive boxes.

    masks: ``(G, h, w)`` bitmaps, foreground where they are not 0. boxes: ``(P, 4)`` in the bitmaps' pixels; they are
    clipped to the bitmap. gt_indices: ``(P,)`` int64, the bitmap of each box. Returns ``(P, size, size)`` float32 of
    0 and 1: the bitmap averaged over every cell of the box (RoIAlign), 1 from a half on.
    """
    height, width = masks.shape[-2:]
    limits = boxes.new_tensor([width, height, width, height], dtype=torch.float32)
    rois = torch.cat([gt_indices[:, None].float(), boxes.float().clamp(min=0).minimum(limits)], dim=1)
    targets = rois.new_zeros((len(boxes), size, size))
    step = max(1, BITMAP_VALUES // max(1, height * width))
    for start in range(0, len(masks), step):
        bitmaps = (masks[start : start + step, None] != 0).float()
        whole = len(bitmaps) == len(masks)
        chosen = slice(None) if whole else (gt_indices >= start) & (gt_indices < start + step)
        shifted = rois[chosen] - rois.new_tensor([start, 0, 0, 0, 0])
        with full_precision(masks.device):
            shares = roi_align(bitmaps, shifted, (size, size), spatial_scale=1.0, sampling_ratio=0, aligned=True)
        targets[chosen] = (shares[:, 0] >= 0.5).float()
    return targets


def resized_crops(masks: Tensor, boxes: Tensor, gt_indices: Tensor, size: int) -> Tensor:
    """What the mask head should predict for positive boxes, as mmdet 1.x had it; arguments and result as above.

    The bitmap under the whole pixels of the box is resized to ``(size, size)`` in bytes by OpenCV's ``INTER_LINEAR``
    (no anti-aliasing, the border repeated), to the last bit: weights in units of 2^-11, what each of the two rows adds
    cut off to quarters, the sum of these rounded half up. So a cell of a bitmap of 0 and 1 is 1 where there are two
    quarters, which is rarer than half a foreground: (0.45, 0.24) are but one.
    """
    height, width = masks.shape[-2:]
    pixels = _whole_pixels(boxes)
    first, last = pixels[:, :2].clamp(min=0), (pixels[:, 2:] - 1).minimum(pixels.new_tensor([width - 1, height - 1]))
    x, x_weight = _taps(first[:, 0], last[:, 0], size, settled=True)
    y, y_weight = _taps(first[:, 1], last[:, 1], size, settled=False)
    quarters = torch.zeros((len(boxes), size, size), dtype=torch.int32, device=boxes.device)
    for rows, share in zip(y, y_weight, strict=True):
        left, right = (masks[gt_indices[:, None, None], rows[:, :, None], columns[:, None, :]] != 0 for columns in x)
        along = left * x_weight[0][:, None, :] + right * x_weight[1][:, None, :]
        quarters += (along >> 4) * share[:, :, None] >> 16  # of at most FIXED_POINT each
    return (quarters >= 2).float()


def _taps(
    first: Tensor, last: Tensor, size: int, *, settled: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Bilinear interpolation of the pixels ``first..last (P,)`` of an axis to ``size``.

    settled: beyond the border, where both are the same pixel, it has one weight (OpenCV's along rows), else two parts.

    Returns the lower and the upper pixel, ``(P, size)`` int64 each, and their weights, int32 in units of
    1 / ``FIXED_POINT``.
    """
    length = (last - first + 1)[:, None]
    position = ((2 * torch.arange(size, device=first.device) + 1) * length - size) / (2 * size)
    if settled:
        position = position.clamp(min=0).minimum(length - 1)
    low = position.floor()
    upper_weight = ((position - low) * FIXED_POINT).round().int()
    lower, upper = (first[:, None] + (low.long() + step).clamp(min=0).minimum(length - 1) for step in (0, 1))
    return (lower, upper), (FIXED_POINT - upper_weight, upper_weight)


def _whole_pixels(boxes: Tensor) -> Tensor:
    """``(n, 4)`` int64, half-open: from the first pixel of each box to its last, both cut off, at least one."""
    first, last = boxes[:, :2].float().trunc(), (boxes[:, 2:].float() - 1).trunc()
    return torch.cat([first, torch.maximum(last, first) + 1], dim=1).long()


# --- tiles: the part of the image in which one mask is sampled -----------------------------------

_OUTSIDE = -3.0
"""A grid coordinate beyond every mask cell: samples zero."""


@dataclass(frozen=True)
class _Tiles:
    """Tiles of similar size, sampled together. ``mask`` indexes the masks, the rest are whole pixels."""

    mask: Tensor
    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    width: int
    height: int

    @classmethod
    def of(cls, rows: list[list[int]], device: torch.device) -> _Tiles:
        mask, x1, y1, x2, y2 = torch.tensor(rows, device=device).unbind(dim=1)
        width = max(row[3] - row[1] for row in rows)
        height = max(row[4] - row[2] for row in rows)
        return cls(mask=mask, x1=x1, y1=y1, x2=x2, y2=y2, width=width, height=height)

    def tolist(self) -> list[list[int]]:
        return torch.stack([self.mask, self.x1, self.y1, self.x2, self.y2], dim=1).tolist()


def _tiles(boxes: Tensor, size: Size) -> Iterator[_Tiles]:
    """Tiles that cover every box, the largest last, in groups that waste little when padded to one size."""
    rows = sorted(_split(_windows(boxes, size)), key=lambda row: (row[3] - row[1]) * (row[4] - row[2]))
    group: list[list[int]] = []
    width = height = used = 0
    for row in rows:
        w, h = row[3] - row[1], row[4] - row[2]
        padded = (len(group) + 1) * max(width, w) * max(height, h)
        wasteful = padded > 1.5 * (used + w * h) and padded > TILE_PIXELS // 32
        if group and (padded > TILE_PIXELS or wasteful):
            yield _Tiles.of(group, boxes.device)
            group, width, height, used = [], 0, 0, 0
        group.append(row)
        width, height, used = max(width, w), max(height, h), used + w * h
    if group:
        yield _Tiles.of(group, boxes.device)


def _windows(boxes: Tensor, size: Size) -> list[list[int]]:
    """``[x1, y1, x2, y2]`` in whole pixels per box: one to two pixels more on every side, inside the image."""
    height, width = size
    grown = torch.cat([boxes[:, :2].float().floor() - 1, boxes[:, 2:].float().ceil() + 1], dim=1)
    limits = grown.new_tensor([width, height, width, height])
    return grown.nan_to_num(nan=0.0).clamp(min=0).minimum(limits).long().tolist()


def _split(windows: list[list[int]]) -> Iterator[list[int]]:
    """``[mask, x1, y1, x2, y2]``: windows with pixels in them, large ones cut into strips of columns."""
    for mask, (x1, y1, x2, y2) in enumerate(windows):
        if x2 <= x1 or y2 <= y1:
            continue
        step = max(1, TILE_PIXELS // (y2 - y1))
        for left in range(x1, x2, step):
            yield [mask, left, y1, min(left + step, x2), y2]


def _foreground(probs: Tensor, boxes: Tensor, tiles: _Tiles, threshold: float, whole_pixels: bool) -> Tensor:
    """``(tiles, width, height)`` bool, columns first, false where a smaller tile is padded."""
    if whole_pixels:
        return _sample(probs, _whole_pixels(boxes), tiles, within=True) > threshold
    return _sample(probs, boxes, tiles) >= threshold


def _sample(probs: Tensor, boxes: Tensor, tiles: _Tiles, *, within: bool = False) -> Tensor:
    """Probabilities ``(tiles, width, height)``, columns first, zero where a smaller tile is padded.

    within: zero outside the boxes, while towards their borders the outermost cells stay as they are.
    """
    x1, y1, x2, y2 = boxes[tiles.mask].float().unbind(dim=1)
    u = _grid_coordinates(tiles.x1, tiles.x2, tiles.width, x1, x2)
    v = _grid_coordinates(tiles.y1, tiles.y2, tiles.height, y1, y2)
    if within:
        u, v = (_kept_within(c, cells) for c, cells in ((u, probs.shape[-1]), (v, probs.shape[-2])))
    shape = (len(u), tiles.width, tiles.height)
    grid = torch.stack([u[:, :, None].expand(shape), v[:, None, :].expand(shape)], dim=-1)
    with full_precision(probs.device):
        return F.grid_sample(probs[tiles.mask, None].float(), grid, align_corners=False)[:, 0]


def _grid_coordinates(start: Tensor, stop: Tensor, length: int, low: Tensor, high: Tensor) -> Tensor:
    """``(tiles, length)``: where pixel centres lie in the boxes' side ``low..high``, -1 to 1 inside.

    A side without length has infinite coordinates; they become 0 (the middle), as in the reference.
    """
    pixels = start[:, None] + torch.arange(length, device=start.device)
    coordinates = (pixels.float() + 0.5 - low[:, None]) / (high - low)[:, None] * 2 - 1
    coordinates = coordinates.nan_to_num(nan=_OUTSIDE, posinf=0.0, neginf=0.0)
    return coordinates.where(pixels < stop[:, None], _OUTSIDE)


def _kept_within(coordinates: Tensor, cells: int) -> Tensor:
    """Coordinates of a side: those in the box no further out than the centres of its outermost cells."""
    centre = 1 - 1 / cells
    return coordinates.clamp(-centre, centre).where(coordinates.abs() < 1, _OUTSIDE)


def _run_ends(on: Tensor, tiles: _Tiles, size: Size) -> Tensor:
    """Where foreground begins or ends in every column of the tiles, as one sortable number per place.

    on: ``(tiles, width, height)`` bool. Returns ``mask * (h * w + 1) + x * h + y``, int64.
    """
    height, width = size
    padded = F.pad(on, (1, 1))
    tile, column, row = (padded[..., 1:] != padded[..., :-1]).nonzero().unbind(dim=1)
    place = (tiles.x1[tile] + column) * height + tiles.y1[tile] + row
    return tiles.mask[tile] * (height * width + 1) + place
