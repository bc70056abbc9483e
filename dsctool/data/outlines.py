"""Outlines of masks along the edges of their pixels, and what editors need of them: few points, no holes, one part.

Coordinates are those of corners of pixels: the mask of the pixel at row 0 and column 0 has the corners (0, 0), (1, 0),
(1, 1) and (0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsctool.rle import Bools

Ring = NDArray[np.float64]
"""``(n, 2)``: x and y of the corners of a closed line; the first is not repeated."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a mask: its outer ring, and those of its holes."""

    outer: Ring
    holes: tuple[Ring, ...] = ()


def outline(mask: NDArray[Any]) -> list[Part]:
    """The parts of ``(h, w)``, pixels that touch at a corner in one part; drawn with their holes, they are the mask."""
    padded = np.pad(mask != 0, 1).astype(np.int8)
    # Of the four pixels around each point between pixels: upper left, upper right, lower left, lower right.
    around = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    ys, xs = np.nonzero(_TURNS[around])
    kinds = around[ys, xs]
    crossing = _CROSSINGS[kinds]  # pixels that touch at a corner alone: the line comes by twice
    rows = np.repeat(np.arange(len(ys)), 1 + crossing)
    second = np.append(False, rows[1:] == rows[:-1]) if len(rows) else np.zeros(0, dtype=bool)
    ys, xs, kinds = ys[rows], xs[rows], kinds[rows]
    # In a row of points, sorted, every other gap is a line: at a crossing the first comes from the left. It turns so
    # that the pixels that touch stay in one part.
    across = _partners(np.lexsort((second, xs, ys)))
    below = np.where(kinds == _FALLING, ~second, second) & _CROSSINGS[kinds]
    down = _partners(np.lexsort((below, ys, xs)))
    parts: list[tuple[Ring, list[Ring]]] = []
    holes: list[Ring] = []
    for ring in _rings(across, down):
        points = np.stack([xs[ring], ys[ring]], axis=1).astype(np.float64)
        points = points[::-1] if area(points) < 0 else points
        x, y = points[np.lexsort((points[:, 0], points[:, 1]))[0]].astype(int)
        if mask[y, x]:
            parts.append((points, []))
        else:
            holes.append(points[::-1])
    for hole in holes:
        x, y = hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]] + 0.5
        enclosing = [part for part in parts if _encloses(part[0], x, y)]
        min(enclosing, key=lambda part: area(part[0]))[1].append(hole)
    return [Part(outer, tuple(inner)) for outer, inner in parts]


_FALLING, _RISING = 9, 6
_CROSSINGS = np.isin(np.arange(16), (_FALLING, _RISING))
_TURNS = np.isin(np.arange(16), (1, 2, 4, 8, 7, 11, 13, 14)) | _CROSSINGS


def _partners(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other end of the line that begins at each point; order: of the points, so that lines lie between pairs."""
    partners = np.empty(len(order), dtype=np.int64)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    return partners


def _rings(across: NDArray[np.int64], down: NDArray[np.int64]) -> list[list[int]]:
    """Points one after the other, along the rows and the columns in turn."""
    left, right = across.tolist(), down.tolist()
    seen = [False] * len(left)
    rings = []
    for start in range(len(left)):
        if seen[start]:
            continue
        ring = []
        point = start
        while not seen[point]:
            seen[point] = True
            other = left[point]
            seen[other] = True
            ring += [point, other]
            point = right[other]
        rings.append(ring)
    return rings


def area(ring: Ring) -> float:
    """In square pixels; above 0 where the line goes clockwise as one sees it."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _encloses(ring: Ring, x: float, y: float) -> bool:
    """Of a ring along the edges of pixels: whether a point that is on none of them lies inside."""
    ends = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring[:, 1], ends[:, 1]), np.maximum(ring[:, 1], ends[:, 1])
    return bool(np.count_nonzero((low < y) & (y < high) & (ring[:, 0] < x)) % 2)


def simplified(ring: Ring, tolerance: float, fixed: Bools | None = None) -> Ring:
    """Fewer points, none of those left out farther than ``tolerance`` pixels from the line (Douglas and Peucker 1973).

    fixed: ``(n,)``, points that stay. What would be left without area stays as it is.
    """
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    closed = np.concatenate([ring, ring[:1]])
    kept = np.zeros(len(closed), dtype=bool) if fixed is None else np.append(fixed, False)
    kept[[0, int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1))), len(ring)]] = True
    stack = list(pairwise(np.flatnonzero(kept).tolist()))
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        start, along = closed[first], closed[last] - closed[first]
        between = closed[first + 1 : last] - start
        length = max(float(along @ along), 1e-9)  # of a ring that comes back to where it began, 0
        share = np.clip(between @ along / length, 0, 1)
        apart = ((between - share[:, None] * along) ** 2).sum(axis=1)
        worst = int(np.argmax(apart))
        if apart[worst] > tolerance**2:
            kept[first + 1 + worst] = True
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    fewer = closed[:-1][kept[:-1]]
    return fewer if len(fewer) >= 3 and abs(area(fewer)) > 0 else ring


def midpoints(ring: Ring) -> Ring:
    """Of a ring along the edges of pixels: the middle of every edge, which a slanting border's steps lie around."""
    ends = np.roll(ring, -1, axis=0)
    lengths = np.abs(ends - ring).sum(axis=1).astype(int)
    owner = np.repeat(np.arange(len(ring)), lengths)
    along = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 0.5
    return ring[owner] + np.sign(ends - ring)[owner] * along[:, None]


def with_seams(rings: list[Ring]) -> Ring:
    """All rings as one line: from each to the next it goes over a seam without width, and back the same way.

    Polygons that must be a single line keep holes and parts so, whether drawn by parity or by winding: holes go the
    other way round than parts.
    """
    line = rings[0]
    for ring in rings[1:]:
        here, there = _nearest(line, ring)
        line = np.concatenate([line[: here + 1], ring[there:], ring[: there + 1], line[here:]])
    return line


def _nearest(line: Ring, ring: Ring) -> tuple[int, int]:
    """Places of the two points that are nearest to each other."""
    best = (np.inf, 0, 0)
    for first in range(0, len(line), 1024):
        part = line[first : first + 1024]
        apart = ((part[:, None] - ring[None]) ** 2).sum(axis=2)
        place = int(np.argmin(apart))
        row, column = divmod(place, len(ring))
        best = min(best, (float(apart[row, column]), first + row, column))
    return best[1], best[2]


def components(values: NDArray[Any]) -> NDArray[np.int64]:
    """``(h, w)``: a number from 1 for every set of pixels of one value that touch, if at corners; 0 where it is 0."""
    height, width = values.shape
    begins = np.ones((height, width), dtype=bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    ys, starts = np.nonzero(begins)
    stops = np.append(starts[1:], width)
    stops[np.append(ys[1:] != ys[:-1], True)] = width
    runs = np.flatnonzero(values[ys, starts] > 0)
    ys, starts, stops = ys[runs], starts[runs], stops[runs]
    owners = values[ys, starts]
    row = width + 1  # places of all rows in one line
    first = np.searchsorted(ys * row + stops, (ys - 1) * row + starts, side="left")
    last = np.searchsorted(ys * row + starts, (ys - 1) * row + stops, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(ys)), counts)
    above = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    same = owners[below] == owners[above]
    parents = list(range(len(ys)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for one, other in zip(below[same].tolist(), above[same].tolist(), strict=True):
        one, other = root(one), root(other)
        parents[max(one, other)] = min(one, other)
    roots = [root(run) for run in range(len(parents))]
    numbers = np.zeros((height, width), dtype=np.int64)
    for run, number in enumerate(np.unique(roots, return_inverse=True)[1].tolist()):
        numbers[ys[run], starts[run] : stops[run]] = number + 1
    return numbers


def border_error(truth: NDArray[Any], drawn: NDArray[Any]) -> int:
    """By how many pixels a drawn mask misses the border: what is wrong lies so near to it, diagonals counted as 1."""
    truth, drawn = truth != 0, drawn != 0
    grown, shrunk = truth, truth
    for steps in range(max(truth.shape) + 1):
        if not (drawn & ~grown).any() and not (shrunk & ~drawn).any():
            return steps
        grown, shrunk = _grown(grown), ~_grown(~shrunk)
    return max(truth.shape) + 1


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall
