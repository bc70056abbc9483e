"""Many figures at once: their outlines as polygons, and their masks as COCO's run lengths, without drawing pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LIMITS = (2**4, 2**9, 2**14, 2**19)
"""What signed numbers of 5, 10, 15 and 20 bits are below; one more character is enough for 2 ** 24 pixels."""


@dataclass(frozen=True)
class Figures:
    """Bumpy ellipses, one run of pixels in every column.

    boxes: ``(N, 4)`` x, y, width and height, at least a pixel of each inside the picture, in pixels.
    bumps: ``(N, 4)`` phases of the waves on their edges, two for the upper and two for the lower one.
    """

    boxes: Array
    bumps: Array

    def __len__(self) -> int:
        return len(self.boxes)

    def edges(self, index: Array, places: Array) -> tuple[Array, Array]:
        """The upper and the lower end of figures ``index`` at ``places``, from -1 (left) to 1 (right)."""
        places, bumps = places.astype(np.float32), self.bumps.astype(np.float32)[index]  # whose sines are fast
        height = self.boxes[index, 3] / 2
        middle = self.boxes[index, 1] + height
        half = height * np.sqrt(np.clip(1 - places**2, 0, 1))

        def wave(first: int) -> Array:
            return 0.85 + 0.1 * np.sin(4 * places + bumps[:, first]) + 0.05 * np.sin(11 * places + bumps[:, first + 1])

        return middle - half * wave(0), middle + half * wave(2)


@dataclass(frozen=True)
class Runs:
    """Masks as run lengths, in COCO's order of pixels.

    counts: of all masks one after the other. lengths: ``(N,)`` how many of them each mask has.
    boxes: ``(N, 4)`` x, y, width and height of the pixels.
    """

    counts: Array
    lengths: Array
    boxes: Array

    def lists(self) -> list[list[int]]:
        """Each mask's counts."""
        return [part.tolist() for part in np.split(self.counts, np.cumsum(self.lengths)[:-1])]

    def texts(self) -> list[str]:
        """Each mask's counts as pycocotools compresses them: differences, 5 bits a character, the lowest first."""
        values = self.counts.copy()
        later = np.flatnonzero(_places(self.lengths) > 2)
        values[later] -= self.counts[later - 2]
        used = np.ones_like(values)
        for limit in LIMITS:
            used += np.where(values < 0, ~values, values) >= limit
        ends = np.cumsum(used)
        text = np.empty(ends[-1], dtype=np.uint8)
        for number in range(len(LIMITS) + 1):
            longer = np.flatnonzero(used > number)
            bits = values[longer] >> (5 * number) & 31
            text[ends[longer] - used[longer] + number] = bits + 48 + 32 * (used[longer] > number + 1)
        stops = ends[np.cumsum(self.lengths) - 1].tolist()
        characters = text.tobytes().decode()
        return [characters[start:end] for start, end in zip([0, *stops], stops, strict=False)]


def runs(figures: Figures, size: tuple[int, int]) -> Runs:
    """The figures' masks in a picture of ``size`` (height, width); at least one figure."""
    height, width = size
    left = np.clip(np.round(figures.boxes[:, 0]), 0, width - 1).astype(np.int32)
    right = np.clip(np.round(figures.boxes[:, 0] + figures.boxes[:, 2]), left + 1, width).astype(np.int32)
    columns = right - left
    owner = np.repeat(np.arange(len(figures)), columns)
    x = np.repeat(left, columns) + _places(columns)
    upper, lower = figures.edges(owner, (2 * (x - left[owner]) + 1) / columns[owner] - 1)
    top = np.clip(np.round(upper), 1, height - 2).astype(np.int32)  # a row to spare: runs never meet
    bottom = np.clip(np.round(lower), top + 1, height - 1).astype(np.int32)

    lengths = 2 * columns + 1
    ends = np.zeros(int(lengths.sum() + len(lengths)), dtype=np.int32)  # of each run, with the 0 before the first
    firsts = _starts(lengths + 1)
    places = np.repeat(firsts, columns) + 1 + 2 * _places(columns)
    ends[places], ends[places + 1] = x * height + top, x * height + bottom
    ends[firsts + lengths] = height * width
    counts = np.delete(np.diff(ends), firsts[1:] - 1)

    upmost, lowest = np.minimum.reduceat(top, _starts(columns)), np.maximum.reduceat(bottom, _starts(columns))
    return Runs(counts, lengths, np.stack([left, upmost, columns, lowest - upmost], axis=1))


def polygon(figures: Figures, index: int, points: int) -> list[float]:
    """A figure's outline, ``points`` along its upper and its lower edge: x, y, x, y, ..., in hundredths of a pixel."""
    x, _, width, _ = figures.boxes[index]
    places = -np.cos(np.linspace(0, np.pi, points))
    upper, lower = figures.edges(np.full(points, index), places)
    columns = x + width * (places + 1) / 2
    there, back = np.stack([columns, upper], axis=1), np.stack([columns, lower], axis=1)[-2:0:-1]
    return np.concatenate([there, back]).round(2).ravel().tolist()


def _starts(lengths: Array) -> Array:
    """Where parts of such lengths begin."""
    return np.cumsum(lengths) - lengths


def _places(lengths: Array) -> Array:
    """0, 1, 2, ... in each of the parts."""
    return np.arange(int(lengths.sum()), dtype=np.int32) - np.repeat(_starts(lengths), lengths).astype(np.int32)
