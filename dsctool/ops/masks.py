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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from dsctool.coco_results import Rle
from dsctool.ops.boxes import clip_boxes
from dsctool.ops.exchange import rows_where, vector_like
from dsctool.ops.precision import full_precision
from dsctool.terms import Size

TILE_PIXELS = 1 << 21
"""Most pixels sampled at once; about 16 bytes each are alive at the peak."""
BITMAP_VALUES = 1 << 25
"""Most bitmap pixels that :func:`mask_targets` holds as float32 at once."""
FLIPS_AT_ONCE = 1 << 27
"""About so many places are searched for the ends of runs at once where reading the device takes long; a byte each."""
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
    return paste_images([probs], [boxes], [size], threshold=threshold, whole_pixels=whole_pixels)[0]


def paste_images(
    probs: Sequence[Tensor],
    boxes: Sequence[Tensor],
    sizes: Sequence[Size],
    *,
    threshold: float = 0.5,
    whole_pixels: bool = False,
) -> list[Tensor]:
    """:func:`paste_masks` of several images, which reads the device as often as that of one."""
    images = []
    for prob, box, size, plan in zip(probs, boxes, sizes, _tiles(boxes, sizes), strict=True):
        pasted = torch.zeros((len(box), *size), dtype=torch.bool, device=box.device)
        for tiles in plan:
            sampled = _foreground(prob, box, tiles, threshold, whole_pixels)
            for columns, (mask, x1, y1, x2, y2) in zip(sampled, tiles.rows, strict=True):
                pasted[mask, y1:y2, x1:x2] = columns[: x2 - x1, : y2 - y1].T
        images.append(pasted)
    return images


def paste_probabilities(probs: Tensor, boxes: Tensor, size: Size, *, whole_pixels: bool = False) -> Tensor:
    """``(n, h, w)`` float32: how probable each mask is in each pixel, 0 further than two pixels outside its box.

    Arguments as for :func:`paste_masks`, which gives where these reach its threshold. Where many masks would take too
    much memory, ask for a few at a time.
    """
    pasted = torch.zeros((len(boxes), *size), device=boxes.device)
    for tiles in _tiles([boxes], [size])[0]:
        sampled = _sampled(probs, boxes, tiles, whole_pixels)
        for columns, (mask, x1, y1, x2, y2) in zip(sampled, tiles.rows, strict=True):
            pasted[mask, y1:y2, x1:x2] = columns[: x2 - x1, : y2 - y1].T
    return pasted


def encode_masks(
    probs: Tensor, boxes: Tensor, size: Size, *, threshold: float = 0.5, whole_pixels: bool = False
) -> list[Rle]:
    """:func:`paste_masks` followed by COCO's run-length encoding, without the full-size masks.

    Memory does not grow with the image: the ends of the runs are found on the tensors' device, tile by
    tile, and only they are kept.
    """
    return encode_images([probs], [boxes], [size], threshold=threshold, whole_pixels=whole_pixels)[0]


def encode_images(
    probs: Sequence[Tensor],
    boxes: Sequence[Tensor],
    sizes: Sequence[Size],
    *,
    threshold: float = 0.5,
    whole_pixels: bool = False,
) -> list[list[Rle]]:
    """:func:`encode_masks` of several images, which reads the device as often as that of one."""
    ends = _Ends(at_once=0 if not boxes or boxes[0].device.type == "cpu" else FLIPS_AT_ONCE)
    bounds, first = [], 0
    for prob, box, size, plan in zip(probs, boxes, sizes, _tiles(boxes, sizes), strict=True):
        for tiles in plan:
            ends.add(_foreground(prob, box, tiles, threshold, whole_pixels), tiles, size, first=first)
        bounds.append(torch.arange(len(box) + 1) * (size[0] * size[1] + 1) + first)
        first = int(bounds[-1][-1])
    places = ends.sorted()
    return [_encoded(places, of_image, size) for of_image, size in zip(bounds, sizes, strict=True)]


def _encoded(places: Tensor, bounds: Tensor, size: Size) -> list[Rle]:
    """Masks of one image from the ends of all runs, of which those of mask i are from ``bounds[i]`` on."""
    height, width = size
    pixels = height * width
    runs = []
    parts = pairwise(torch.searchsorted(places, bounds).tolist())
    for bound, (first, last) in zip(bounds[:-1].tolist(), parts, strict=True):
        own = places[first:last] - bound
        own = own[own < pixels]
        counts = torch.diff(own, prepend=own.new_zeros(1), append=own.new_full((1,), pixels))
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
    clipped = clip_boxes(boxes.float(), (height, width))
    targets = clipped.new_zeros((len(boxes), size, size))
    parts = masks.split(max(1, BITMAP_VALUES // max(1, height * width)))
    starts = [0, *accumulate(len(part) for part in parts)]
    rows: Sequence[Tensor | slice] = [slice(None)]
    if len(parts) > 1:
        rows = rows_where([(gt_indices >= first) & (gt_indices < end) for first, end in pairwise(starts)])
    for part, start, chosen in zip(parts, starts[:-1], rows, strict=True):
        bitmaps = (part[:, None] != 0).float()
        rois = torch.cat([(gt_indices[chosen, None] - start).float(), clipped[chosen]], dim=1)
        with full_precision(masks.device):
            shares = roi_align(bitmaps, rois, (size, size), spatial_scale=1.0, sampling_ratio=0, aligned=True)
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
    first, last = pixels[:, :2].clamp(min=0), pixels[:, 2:].minimum(vector_like(pixels, width, height)) - 1
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
    """Tiles of similar size, sampled together.

    rows: ``[mask, x1, y1, x2, y2]``, which mask is in which whole pixels. columns: ``(5, tiles)``, the same on the
    masks' device.
    """

    rows: list[list[int]]
    columns: Tensor

    @property
    def mask(self) -> Tensor:
        return self.columns[0]

    @property
    def width(self) -> int:
        """Of the widest."""
        return max(row[3] - row[1] for row in self.rows)

    @property
    def height(self) -> int:
        """Of the highest."""
        return max(row[4] - row[2] for row in self.rows)


def _tiles(boxes: Sequence[Tensor], sizes: Sequence[Size]) -> list[list[_Tiles]]:
    """Tiles that cover every box of every image, the largest last, in groups that waste little when padded to one size.

    A device is read and written to once for all images.
    """
    if not boxes:
        return []
    windows = torch.cat([_windows(box, size) for box, size in zip(boxes, sizes, strict=True)]).tolist()
    bounds = pairwise(accumulate((len(box) for box in boxes), initial=0))
    groups = [list(_grouped(windows[first:last])) for first, last in bounds]
    rows = torch.tensor([row for image in groups for group in image for row in group], dtype=torch.int64)
    columns = rows.view(-1, 5).T.to(boxes[0].device, non_blocking=True)
    parts = iter(columns.split([len(group) for image in groups for group in image], dim=1))
    return [[_Tiles(group, next(parts)) for group in image] for image in groups]


def _grouped(windows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Rows of :class:`_Tiles`, those that are sampled together."""
    rows = sorted(_split(windows), key=lambda row: (row[3] - row[1]) * (row[4] - row[2]))
    group: list[list[int]] = []
    width = height = used = 0
    for row in rows:
        w, h = row[3] - row[1], row[4] - row[2]
        padded = (len(group) + 1) * max(width, w) * max(height, h)
        wasteful = padded > 1.5 * (used + w * h) and padded > TILE_PIXELS // 32
        if group and (padded > TILE_PIXELS or wasteful):
            yield group
            group, width, height, used = [], 0, 0, 0
        group.append(row)
        width, height, used = max(width, w), max(height, h), used + w * h
    if group:
        yield group


def _windows(boxes: Tensor, size: Size) -> Tensor:
    """``(n, 4)`` int64, x1, y1, x2, y2 in whole pixels: one to two pixels more on every side, inside the image."""
    grown = torch.cat([boxes[:, :2].float().floor() - 1, boxes[:, 2:].float().ceil() + 1], dim=1)
    return clip_boxes(grown.nan_to_num(nan=0.0), size).long()


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
    sampled = _sampled(probs, boxes, tiles, whole_pixels)
    return sampled > threshold if whole_pixels else sampled >= threshold


def _sampled(probs: Tensor, boxes: Tensor, tiles: _Tiles, whole_pixels: bool) -> Tensor:
    """Probabilities as in :func:`_sample`, by either way of pasting."""
    if whole_pixels:
        return _sample(probs, _whole_pixels(boxes), tiles, within=True)
    return _sample(probs, boxes, tiles)


def _sample(probs: Tensor, boxes: Tensor, tiles: _Tiles, *, within: bool = False) -> Tensor:
    """Probabilities ``(tiles, width, height)``, columns first, zero where a smaller tile is padded.

    within: zero outside the boxes, while towards their borders the outermost cells stay as they are.
    """
    x1, y1, x2, y2 = boxes[tiles.mask].float().unbind(dim=1)
    _, left, top, right, bottom = tiles.columns
    u = _grid_coordinates(left, right, tiles.width, x1, x2)
    v = _grid_coordinates(top, bottom, tiles.height, y1, y2)
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


@dataclass
class _Ends:
    """Where foreground begins or ends in every column of some tiles, as one sortable number per place.

    at_once: how many places are looked at before they are searched for ends, all at once.
    """

    at_once: int
    _flips: list[Tensor] = field(default_factory=list)
    _tiles: list[Tensor] = field(default_factory=list)
    _waiting: int = 0
    _found: list[Tensor] = field(default_factory=list)

    def add(self, on: Tensor, tiles: _Tiles, size: Size, *, first: int) -> None:
        """Those of ``on (tiles, width, height)``, bool: ``first + mask * (h * w + 1) + x * h + y``."""
        height, width = size
        padded = F.pad(on, (1, 1))
        flips = padded[..., 1:] != padded[..., :-1]  # (tiles, width, height + 1)
        start = torch.arange(len(on), device=on.device) * flips[0].numel() + self._waiting
        mask, x1, y1, _, _ = tiles.columns
        corner = first + mask * (height * width + 1) + x1 * height + y1
        rows = [torch.full_like(start, flips.shape[2]), torch.full_like(start, height)]
        self._flips.append(flips.flatten())
        self._tiles.append(torch.stack([start, corner, *rows]))
        self._waiting += flips.numel()
        if self._waiting > self.at_once:
            self._search()

    def sorted(self) -> Tensor:
        """All of them, on the CPU, but for those of runs that go on from the last row of a column to the first row of
        the next, which end and start at one place."""
        if self._flips:
            self._search()
        ends = (torch.cat(self._found).sort().values if self._found else torch.zeros(0, dtype=torch.int64)).cpu()
        repeated = torch.zeros(len(ends) + 1, dtype=torch.bool)
        repeated[1:-1] = ends[1:] == ends[:-1]
        return ends[~(repeated[1:] | repeated[:-1])]

    def _search(self) -> None:
        at = torch.cat(self._flips).nonzero().flatten()
        starts, corners, lengths, heights = torch.cat(self._tiles, dim=1)
        tile = torch.bucketize(at, starts, right=True) - 1
        within, length = at - starts[tile], lengths[tile]
        self._found.append(corners[tile] + within // length * heights[tile] + within % length)
        self._flips, self._tiles, self._waiting = [], [], 0
