"""Masks as what they have of every column: cut, moved, joined and compared without a bitmap.

What an operation takes, in time and memory, follows from the mask's own height and width, not from its image's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.rle import Bools, Ints, decompress_runs
from dsctool.rle import Rle as AnyRle
from dsctool.terms import Size

if TYPE_CHECKING:  # masks of results files are drawn without torch
    from dsctool.coco_results import Rle

_STRIDE = 1 << 32
"""Between the places of two columns: more than any image is high."""


class Window(NamedTuple):
    """A part of an image, in whole pixels, half-open."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> Size:
        """``(h, w)``."""
        return self.y2 - self.y1, self.x2 - self.x1

    def shared(self, other: Window) -> Window:
        """What two windows have in common; without width or height where they touch, negative where they are apart."""
        return Window(max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2))


@dataclass(frozen=True, eq=False)
class Spans:
    """A mask. column, top, bottom: ``(m,)`` int64, pieces of columns, rows half-open; in order, none touches the next
    one of its column, and none is empty."""

    column: Ints
    top: Ints
    bottom: Ints

    @classmethod
    def of(cls, rle: AnyRle | Rle) -> Self:
        """A mask of COCO's run-length encoding."""
        height = rle["size"][0]
        runs = decompress_runs(rle["counts"])
        if runs is None:
            raise ValueError("not COCO's run-length encoding")
        ends = np.cumsum(runs)
        start, stop = ends[: len(ends) // 2 * 2].reshape(-1, 2).T
        start, stop = start[stop > start], stop[stop > start]
        first = start // max(height, 1)
        columns = (stop - 1) // max(height, 1) - first + 1
        which = np.repeat(np.arange(len(start)), columns)
        column = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(columns) - columns, columns)
        top, bottom = start[which] - column * height, stop[which] - column * height
        return cls(column, top.clip(0), bottom.clip(max=height))

    @classmethod
    def rectangle(cls, window: Window) -> Self:
        """All pixels of a window."""
        column = np.arange(window.x1, max(window.x1, window.x2 if window.y2 > window.y1 else window.x1))
        return cls(column, np.full_like(column, window.y1), np.full_like(column, window.y2))

    @classmethod
    def union(cls, parts: Sequence[Self]) -> Self:
        """All pixels of any of the masks; at least one."""
        if len(parts) == 1:
            return parts[0]
        start = np.concatenate([part._start for part in parts])
        order = np.argsort(start, kind="stable")
        start = start[order]
        stop = np.maximum.accumulate(np.concatenate([part._stop for part in parts])[order])
        first, last = _ends(start[1:] > stop[:-1], len(start))
        return cls._between(start[first], stop[last])

    @classmethod
    def _between(cls, start: Ints, stop: Ints) -> Self:
        column = start // _STRIDE
        return cls(column, start - column * _STRIDE, stop - column * _STRIDE)

    @property
    def _start(self) -> Ints:
        return self.column * _STRIDE + self.top

    @property
    def _stop(self) -> Ints:
        return self.column * _STRIDE + self.bottom

    @property
    def area(self) -> int:
        """Its pixels."""
        return int((self.bottom - self.top).sum())

    @property
    def box(self) -> Window:
        """Around it; of an empty mask, an empty one at the origin."""
        if not len(self.column):
            return Window(0, 0, 0, 0)
        ends = (self.column[0], self.top.min(), self.column[-1] + 1, self.bottom.max())
        return Window(*map(int, ends))

    def moved(self, right: int, down: int) -> Spans:
        """The same mask elsewhere."""
        return Spans(self.column + right, self.top + down, self.bottom + down)

    def inside(self, window: Window) -> Spans:
        """What lies in the window."""
        first, last = np.searchsorted(self.column, (window.x1, window.x2)).tolist()
        top, bottom = self.top[first:last].clip(window.y1), self.bottom[first:last].clip(max=window.y2)
        return Spans(self.column[first:last], top, bottom)._only(bottom > top)

    def outside(self, window: Window) -> Spans:
        """What lies not in the window."""
        between = (self.column >= window.x1) & (self.column < window.x2)
        if not between.any():
            return self
        above = np.where(between, np.minimum(self.bottom, window.y1), self.bottom)
        below = np.where(between, np.maximum(self.top, window.y2), self.bottom)
        parts = [Spans(self.column, self.top, above), Spans(self.column, below, self.bottom)]
        return Spans.union([part._only(part.bottom > part.top) for part in parts])

    def _only(self, rows: Bools) -> Spans:
        return Spans(self.column[rows], self.top[rows], self.bottom[rows])

    def along(self, axis: int) -> Spans:
        """Its shadow: the rows (0) that it has pixels in, as one column, or the columns (1), one pixel high."""
        if axis == 1:
            column = np.unique(self.column)
            return Spans(column, np.zeros_like(column), np.ones_like(column))
        order = np.argsort(self.top, kind="stable")
        rows = Spans(np.zeros_like(self.column), self.top[order], self.bottom[order])
        return Spans.union([rows, rows._only(np.zeros(len(order), dtype=np.bool_))])

    def common(self, other: Spans) -> int:
        """Pixels that two masks share."""
        if not len(self.column) or not len(other.column):
            return 0
        return int((other._below(self._stop) - other._below(self._start)).sum())

    def _below(self, places: Ints) -> Ints:
        """``(n,)``: how many of the mask's pixels come before each place."""
        sums = np.append(0, np.cumsum(self.bottom - self.top))
        before = np.searchsorted(self._start, places, side="right")
        inside = np.minimum(places, np.append(0, self._stop)[before]) - np.append(0, self._start)[before]
        counted: Ints = sums[np.maximum(before - 1, 0)] + np.where(before > 0, inside, 0)
        return counted

    def resized(self, source: Size, target: Size) -> Spans:
        """The mask of an image of ``source`` resized to ``target``: the pixels nearest to the new ones' centres."""
        rows, columns = (
            ((np.arange(new) + 0.5) * (old / new)).astype(np.int64).clip(max=old - 1)
            for old, new in zip(source, target, strict=True)
        )
        return self.sampled(rows, columns)

    def sampled(self, rows: Ints, columns: Ints) -> Spans:
        """The mask of an image made of these rows and columns of the mask's; ascending, and they may repeat."""
        first, last = (np.searchsorted(self.column, columns, side=side) for side in ("left", "right"))
        count = last - first
        piece = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        top, bottom = (np.searchsorted(rows, each[piece]) for each in (self.top, self.bottom))
        picked = Spans(np.repeat(np.arange(len(columns)), count), top, bottom)._only(bottom > top)
        return Spans.union([picked, picked._only(np.zeros(len(picked.column), dtype=np.bool_))])

    def bitmap(self) -> tuple[Bools, Window]:
        """The pixels inside its box, ``(h, w)``, and the box."""
        box = self.box
        height, width = box.size
        edges = np.zeros((width, height + 1), dtype=np.int8)
        edges[self.column - box.x1, self.top - box.y1] += 1
        edges[self.column - box.x1, self.bottom - box.y1] -= 1
        return np.cumsum(edges, axis=1, dtype=np.int8)[:, :height].T > 0, box

    def rle(self, size: Size) -> Rle:
        """COCO's run-length encoding of the mask in an image of ``size``, which holds it."""
        height, width = size
        start, stop = self.column * height + self.top, self.column * height + self.bottom
        first, last = _ends(start[1:] != stop[:-1], len(start))
        ends = np.stack([start[first], stop[last]], axis=1).ravel()
        ends = ends[ends < height * width]  # as COCO's own encoder, which ends with a run that has pixels
        counts = np.diff(ends, prepend=0, append=height * width)
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _ends(apart: Bools, count: int) -> tuple[Bools, Bools]:
    """Which of so many pieces begin, and which end a run. apart: whether each but the first begins one."""
    edge = np.ones(min(count, 1), dtype=np.bool_)
    return np.concatenate([edge, apart]), np.concatenate([apart, edge])
