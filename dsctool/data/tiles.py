"""Which windows an image is looked at by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil

import torch

from dsctool.config.tiles_schema import TilesConfig
from dsctool.ops.spans import Window
from dsctool.terms import Size


def tiles_of(size: Size, config: TilesConfig) -> list[Window]:
    """The windows that cover an image of ``size`` ``(h, w)``, row by row, spread evenly; one, where it is no larger.

    Neighbours share at least ``config.overlap`` of a side, rounded to whole pixels.
    """
    tops, lefts = (_starts(side, config) for side in size)
    height, width = (min(side, config.size) for side in size)
    return [Window(left, top, left + width, top + height) for top, left in product(tops, lefts)]


def _starts(length: int, config: TilesConfig) -> list[int]:
    side, shared = config.size, round(config.size * config.overlap)
    if length <= side:
        return [0]
    gaps = ceil((length - shared) / (side - shared)) - 1
    return [gap * (length - side) // gaps for gap in range(gaps + 1)]


def fits(size: Size, config: TilesConfig) -> bool:
    """Whether an image is no larger than a window, so that it is looked at whole."""
    return max(size) <= config.size


def most_in_a_tile(size: Size, config: TilesConfig, boxes: torch.Tensor) -> int:
    """How many of the boxes ``(n, 4)`` in an image of ``size`` the fullest of its windows has, whole or in part."""
    most = 0
    for window in tiles_of(size, config):
        meet = (boxes[:, :2] < torch.tensor(window[2:])) & (boxes[:, 2:] > torch.tensor(window[:2]))
        most = max(most, int(meet.all(dim=1).sum()))
    return most


def random_window(size: Size, config: TilesConfig, boxes: Sequence[Sequence[float]] | torch.Tensor) -> Window:
    """A window in an image of ``size`` for training, by torch's global generator: around one of its instances, or not.

    boxes: ``(G, 4)`` of the instances. The centre of the chosen one may lie anywhere in the window.
    """
    corner = []
    chosen = None
    if len(boxes) and float(torch.rand(())) < config.around:
        chosen = boxes[int(torch.randint(len(boxes), ()))]
    for axis, length in ((0, size[1]), (1, size[0])):
        side = min(length, config.size)
        low, high = 0, length - side
        if chosen is not None:
            centre = float(chosen[axis] + chosen[axis + 2]) / 2
            low = max(low, min(ceil(centre) - side, high))
            high = max(low, min(high, int(centre)))
        corner.append((int(torch.randint(low, high + 1, ())), side))
    (left, width), (top, height) = corner
    return Window(left, top, left + width, top + height)
