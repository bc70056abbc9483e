"""COCO's compressed run-length encoding: masks as short texts, alone and many in one buffer.

A text has the lengths of runs of background and foreground in turn, column by column. Six bits are a character, offset
by "0": five of value, and whether more of the same number follow. From the fourth run on, a number is the difference
to the run before the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.cores import on_all_cores

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


class Rle(TypedDict):
    """A mask as pycocotools takes it. size: ``[height, width]``. counts: the text."""

    size: list[int]
    counts: str | bytes


_FIRST = 48
_CODES: dict[type, int] = {np.int32: 6, np.int64: 7}  # of one number
_HIGHEST = (np.arange(32) ^ 16) - 16  # the code that ends a number has its highest bits, and the sign
_CHUNK = 1 << 18  # characters looked at together: what is computed of them stays in the processor's cache
_CALL = 200  # pycocotools' numbers overflow for lists of more than 255 masks


@dataclass(frozen=True, eq=False)
class PackedRles:
    """Many masks: ``m`` texts in one buffer.

    text: the buffer. start, length: ``(m,)`` of each mask in it. size: ``(m, 2)`` heights and widths.
    """

    text: Bytes
    start: Ints
    length: Ints
    size: Ints

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> Rle:
        return self.chosen([row])[0]

    def __iter__(self) -> Iterator[Rle]:
        return iter(self.chosen(slice(None)))

    def chosen(self, rows: Ints | Sequence[int] | slice) -> list[Rle]:
        """The masks of these rows, for pycocotools."""
        text: memoryview = self.text.data
        start, length, size = (each[rows].tolist() for each in (self.start, self.length, self.size))
        return [
            Rle(size=sides, counts=bytes(text[first : first + count]))
            for first, count, sides in zip(start, length, size, strict=True)
        ]

    def boxes(self, rows: Ints) -> Floats:
        """``(rows, 4)``: x, y, width, height around these masks; nothing around those without pixels."""

        def measured(part: slice) -> Floats:
            calls = (rows[first : min(first + _CALL, part.stop)] for first in range(part.start, part.stop, _CALL))
            return np.concatenate([np.zeros((0, 4)), *(coco_mask.toBbox(self.chosen(call)) for call in calls)])

        return np.concatenate(on_all_cores(measured, len(rows)))

    def areas(self, rows: Ints) -> Floats:
        """``(rows,)``: how many pixels these masks have."""
        parts = (rows[first : first + _CALL] for first in range(0, len(rows), _CALL))
        return np.concatenate([np.zeros(0), *(coco_mask.area(self.chosen(part)) for part in parts)])

    def take(self, rows: Ints | Bools) -> Self:
        """The masks of these rows; the buffer is shared."""
        return type(self)(self.text, self.start[rows], self.length[rows], self.size[rows])

    @classmethod
    def pack(cls, masks: Sequence[Rle]) -> Self:
        """Masks that are apart."""
        texts = [mask["counts"].encode() if isinstance(mask["counts"], str) else mask["counts"] for mask in masks]
        length = np.asarray([len(text) for text in texts], dtype=np.int64)
        size = np.asarray([mask["size"] for mask in masks], dtype=np.int64).reshape(-1, 2)
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(length) - length, length, size)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other; there is at least one part."""
        text, start, length, size = (
            np.concatenate([getattr(each, name) for each in parts]) for name in ("text", "start", "length", "size")
        )
        before = np.cumsum([0, *(len(each.text) for each in parts[:-1])])
        return cls(text, start + np.repeat(before, [len(each) for each in parts]), length, size)


@dataclass(frozen=True)
class RunSums:
    """What the runs of many masks add up to. formed: ``(m,)``, the text is run lengths, none of them negative.

    pixels, area: ``(m,)``, all runs, and those of foreground; without meaning where the text is not formed.
    """

    formed: Bools
    pixels: Ints
    area: Ints


def sum_runs(text: Bytes, length: Ints) -> RunSums:
    """Of masks whose texts, ``length`` ``(m,)``, lie one after the other in ``text``.

    In 32 bits, where what is too large for any image wraps around, as it does in pycocotools.
    """
    ends = np.cumsum(length)
    sums = RunSums(np.zeros(len(length), dtype=bool), np.zeros(len(length), np.int64), np.zeros(len(length), np.int64))
    rows = np.flatnonzero(length > 0)
    for part in _parts(ends[rows]):
        chosen = rows[part]
        if not len(chosen):
            continue
        first = ends[chosen[0]] - length[chosen[0]]
        codes = text[first : ends[chosen[-1]]] - np.uint8(_FIRST)  # what is below wraps around, far above 63
        sums.formed[chosen], sums.pixels[chosen], sums.area[chosen] = _sum_codes(codes, ends[chosen] - first)
    return sums


def _parts(ends: Ints) -> Iterator[slice]:
    """Slices of the rows that hold about ``_CHUNK`` characters each."""
    if len(ends):
        edges = np.unique(np.searchsorted(ends, np.arange(0, ends[-1] + _CHUNK, _CHUNK), side="right"))
        yield from (slice(first, last) for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _sum_codes(codes: Bytes, ends: Ints) -> tuple[Bools, Ints, Ints]:
    """As in ``RunSums``; ends: ``(m,)``, behind the last code of each mask; none is empty."""
    starts = np.append(0, ends[:-1])
    formed = codes[ends - 1] & 32 == 0
    if codes.max() > 63:
        formed &= np.maximum.reduceat(codes, starts) <= 63
    codes[ends - 1] &= 31  # a number that does not end must not go on in the next mask
    end, numbers, endless = _numbers(codes)
    last = np.searchsorted(end, ends - 1)  # the last number of each mask
    first = np.append(0, last[:-1] + 1)
    formed[np.searchsorted(last, endless)] = False
    runs = _runs(numbers, first, last)
    if runs.min() < 0:
        formed &= np.minimum.reduceat(runs, first) >= 0
    lanes = np.stack([_summed(runs[lane::2], (first + 1 - lane) >> 1, (last + 2 - lane) >> 1) for lane in (0, 1)])
    foreground = lanes[1 - (first & 1), np.arange(len(first))]
    return formed, lanes.sum(axis=0), foreground


def _summed(runs: NDArray[Any], begin: Ints, end: Ints) -> Ints:
    """``(m,)``: of all runs from ``begin`` on and before ``end``, where the next ones begin."""
    if not len(runs):
        return np.zeros(len(begin), dtype=np.int64)
    sums = np.add.reduceat(runs, np.minimum(begin, len(runs) - 1), dtype=np.int64)
    return np.where(end > begin, sums, 0)


def _numbers(codes: Bytes, dtype: type[np.signedinteger[Any]] = np.int32) -> tuple[Ints, NDArray[Any], Ints]:
    """Where each number ends ``(r,)``, its value, and which ones have more codes than ``dtype`` has room for.

    codes: the last one ends a number.
    """
    end = np.flatnonzero(codes < 32)
    numbers = _HIGHEST.astype(dtype).take(codes.take(end))
    size = np.empty(len(end), dtype=np.int64)
    size[0] = end[0] + 1
    np.subtract(end[1:], end[:-1], out=size[1:])
    rows = np.flatnonzero(size > 1)
    for place in range(1, _CODES[dtype]):
        if not len(rows):
            break
        numbers[rows] = (numbers[rows] << 5) | (codes[end[rows] - place] & 31)
        rows = rows[size[rows] > place + 1]
    return end, numbers, rows


def _runs(numbers: NDArray[Any], first: Ints, last: Ints) -> NDArray[Any]:
    """Lengths of runs from numbers. first, last: the first and last number of each mask."""
    runs = np.empty_like(numbers)
    sums = np.zeros(len(numbers) // 2 + 2, dtype=numbers.dtype)
    for lane in (0, 1):  # every other number of all masks
        own = numbers[lane::2]
        np.cumsum(own, out=sums[1 : len(own) + 1])
        begin, end = (first + 1 - lane) >> 1, (last + 2 - lane) >> 1
        # The first number is no difference, and so is the third: sums that it is not part of begin behind it.
        before = np.repeat(sums[begin + (first & 1 == lane)], end - begin)
        np.subtract(sums[1 : len(own) + 1], before, out=runs[lane::2])
    runs[first] = numbers[first]
    return runs


def cut_out(rle: Mapping[str, Any]) -> tuple[Bools, int, int] | None:
    """A mask within the box around it ``(h, w)``, and the box's top and left; None where it has no pixels.

    Only the columns that it lies in are ever drawn: an instance of a large image costs what it is itself.
    """
    height, _ = rle["size"]
    runs = decompress_runs(rle["counts"])
    if runs is None:
        raise ValueError("counts are no run lengths")
    ends = np.cumsum(runs)
    first, last = (ends - runs)[1::2], ends[1::2]
    first, last = first[first < last], last[first < last]
    if not len(first):
        return None
    left, right = int(first[0]) // height, int(last[-1] - 1) // height + 1
    change = np.zeros((right - left) * height + 1, dtype=np.int8)
    change[first - left * height] += 1
    change[last - left * height] -= 1
    columns = np.cumsum(change[:-1], dtype=np.int8).reshape(right - left, height).astype(bool)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return columns[:, top:bottom].T, top, left


def decompress_runs(counts: str | bytes) -> Ints | None:
    """The lengths of the runs, background first; None where ``counts`` is no such text.

    Lengths may come out negative: pycocotools never looks.
    """
    raw = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    codes = np.frombuffer(raw, dtype=np.uint8) - np.uint8(_FIRST)
    if len(codes) == 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    end, numbers, endless = _numbers(codes, np.int64)
    long = np.diff(end, prepend=-1) > _CODES[np.int32]
    if len(endless) or (numbers[long] < 0).any() or (numbers[long] >= 1 << 31).any():  # which pycocotools misreads
        return None
    return _runs(numbers, np.zeros(1, dtype=np.int64), np.asarray([len(numbers) - 1]))
