"""Masks of an image's instances as bitmaps, drawn at the size that they are used at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsctool.ops.spans import Spans
from dsctool.rle import Ints
from dsctool.terms import Size


@dataclass(frozen=True)
class Undrawn:
    """Masks in an image of ``size`` ``(h, w)``, which take little memory however large it is.

    crowds: of crowd regions; None: they are not needed.
    """

    instances: Sequence[Spans]
    crowds: Sequence[Spans] | None
    size: Size

    def at(self, size: Size) -> tuple[Tensor, Tensor | None]:
        """``(n, h, w)`` uint8 0/1, what torchvision's resizing of their bitmaps to ``size`` gives; crowds alike."""
        rows, columns = (_nearest(old, new) for old, new in zip(self.size, size, strict=True))

        def drawn(masks: Sequence[Spans]) -> Tensor:
            return bitmaps([mask.sampled(rows, columns) for mask in masks], size)

        return drawn(self.instances), None if self.crowds is None else drawn(self.crowds)


def bitmaps(masks: Sequence[Spans], size: Size) -> Tensor:
    """``(n, h, w)`` uint8 0/1 of masks that lie in an image of ``size``."""
    drawn = torch.zeros((len(masks), *size), dtype=torch.uint8)
    for bitmap, mask in zip(drawn, masks, strict=True):
        pixels, box = mask.bitmap()
        bitmap[box.y1 : box.y2, box.x1 : box.x2] = torch.from_numpy(pixels)
    return drawn


def areas_of(masks: Sequence[Spans]) -> Tensor:
    """``(n,)`` int64: their pixels."""
    return torch.tensor([mask.area for mask in masks], dtype=torch.int64)


def _nearest(old: int, new: int) -> Ints:
    """``(new,)``: the pixel that torch takes for each of a side resized from ``old`` to ``new``."""
    pixels = torch.arange(old, dtype=torch.float32)  # torch places the pixels of bytes in this precision as well
    indices: Ints = interpolate(pixels[None, None], size=new, mode="nearest")[0, 0].long().numpy()
    return indices
