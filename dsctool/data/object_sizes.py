"""How large instances are as a model sees them: on the resized image, its canvas."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from math import ceil
from typing import Self

import numpy as np

from dsctool.config.schema import DataConfig
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.columns import Reading
from dsctool.data.usage import Usage
from dsctool.rle import Floats

SMALL = 8.0
"""Square root of an area in pixels of the canvas: what is smaller covers two cells of the finest level, and is hard to
find."""
MANY = 0.1
"""Share of small instances that is worth a word."""
STEP = 32
"""Short sides, and sides of windows, that are proposed are multiples of this, in pixels."""

Resize = tuple[int, int]
"""Limits of the shorter and of the longer side, in pixels."""


@dataclass(frozen=True, eq=False)
class ObjectSizes:
    """``n`` instances that training uses, without crowds.

    side: ``(n,)`` square roots of their areas, in pixels of the image. boxes: ``(n, 2)`` width and height. image:
    ``(n, 2)`` shorter and longer side of the image that each is in, or of the window that it is seen in.
    """

    side: Floats
    boxes: Floats
    image: Floats

    @classmethod
    def of(cls, reading: Reading) -> Self:
        """Of what was read."""
        rows = reading.annotations
        kept = np.flatnonzero(Usage.of(reading).used & ~rows.crowd)
        sides = np.sort(reading.sizes[rows.image[kept]], axis=1).astype(np.float64)
        return cls(np.sqrt(rows.area[kept]), rows.box[kept, 2:], sides)

    def __len__(self) -> int:
        return len(self.side)

    def in_windows(self, tiles: TilesConfig | None) -> Self:
        """The same where images are looked at by windows; None: they are not."""
        return self if tiles is None else self._in_windows(tiles.size)

    def _in_windows(self, size: int) -> Self:
        return replace(self, image=np.minimum(self.image, size))

    def factors(self, resize: Resize) -> Floats:
        """``(n,)``: by which the image of each is resized."""
        short, long = resize
        return np.minimum(short / self.image[:, 0], long / self.image[:, 1])

    def on_canvas(self, resize: Resize) -> Floats:
        """``(n,)``: ``side`` in pixels of the canvas."""
        return self.side * self.factors(resize)

    def small(self, resize: Resize) -> int:
        """How many are smaller than :data:`SMALL` on the canvas."""
        return int(np.count_nonzero(self.on_canvas(resize) < SMALL))

    def enough(self, resize: Resize) -> Resize:
        """The limits, of the same ratio, with which nine of ten are not small; the same where they are not."""
        tenth = float(np.quantile(self.on_canvas(resize), MANY, method="inverted_cdf")) if len(self) else SMALL
        return enlarged(resize, SMALL / tenth) if tenth < SMALL else resize

    def windows_enough(self, size: int, resize: Resize) -> int | None:
        """The largest windows below ``size``, a multiple of :data:`STEP`, in which not so many are small that it is
        worth a word; None: there are none."""
        sides = range(STEP, size, STEP)
        enough = bisect_left(
            sides, True, key=lambda side: self._in_windows(side).small(resize) >= max(MANY * len(self), 1)
        )
        return sides[enough - 1] if enough else None


def enlarged(resize: Resize, factor: float) -> Resize:
    """Larger limits, the shorter one a multiple of :data:`STEP`."""
    short = STEP * ceil(resize[0] * factor / STEP)
    return short, ceil(short * resize[1] / resize[0])


def train_resize(config: DataConfig) -> Resize:
    """The limits of training images, or windows, where they are largest."""
    if config.jitter is not None:
        return config.jitter.size, config.jitter.size
    return max(config.train_resize.short_sides), config.train_resize.long_side


def test_resize(config: DataConfig) -> Resize:
    """The same of what a model is tested on."""
    return max(config.test_resizes)


def resize_words(resize: Resize, *, training: bool) -> str:
    """Limits as one would type them. training: also those of training."""
    keys = ("train_resize", "test_resize") if training else ("test_resize",)
    return " ".join(f"data.{key}.short_sides=[{resize[0]}] data.{key}.long_side={resize[1]}" for key in keys)


TILES_WORD = ", or cut images into tiles (data.tiles, --tiles)"
"""Another way out."""
