"""Instances of an image from what was found in overlapping windows of it.

What two windows both see decides. Results of one class in two windows are one instance where their masks agree in the
part that both windows have (IoU of what lies there; where windows only touch, IoU of the masks' ends along the seam).
Of each window at most one result takes part, the best pairs first, by IoU and scores; and then what both
see of a further cut one, if that lies in what it is a part of (a bow whose ends reach into a window).

* An instance that some window sees whole is taken from the window in which it lies furthest from the edges. Where none
  does, its parts are put together: of each pixel decides the window in whose middle it is, the box goes around all.
* Its score is the mean of the scores of those that see it whole; where none does, that of all parts, by their pixels.
* What is cut by its window's edge, and lies inside another window that has found no such thing, is dropped: that window
  sees more of it. So is a part that lies in a better instance for the most part.
* Of instances of different windows that overlap by more than the agreement, the better one stays.

Masks are spans of columns throughout. Detectors of boxes have their boxes for masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dsctool.ops.spans import Spans, Window

MARGIN, MARGIN_SHARE = 2.0, 0.03
"""What ends so near an edge may be cut by it, in pixels and in shares of its side: boxes are not exact."""
SEAM = 3
"""Where windows only touch, the ends of masks are looked for so many pixels from the seam."""
PART = 0.5
"""A cut result of which more lies in a better one is a part of that."""
WITHIN = 0.75
"""What two windows both see of a cut result lies in another cut one by so much: they are one thing, of which a window
sees several ends."""


_Pair = tuple[float, int, int]


@dataclass(frozen=True, eq=False)
class Piece:
    """A result of one window, in pixels of the image.

    window: which one. box: x1, y1, x2, y2. mask: what it is compared by.
    """

    window: int
    box: tuple[float, float, float, float]
    score: float
    label: int
    mask: Spans

    @cached_property
    def area(self) -> int:
        """Pixels."""
        return self.mask.area


@dataclass(frozen=True, eq=False)
class Stitched:
    """An instance of the image. pieces: what it was made of."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    mask: Spans
    pieces: tuple[Piece, ...]


def stitch(pieces: Sequence[Piece], windows: Sequence[Window], *, agreement: float) -> list[Stitched]:
    """The instances by descending score.

    windows: as :func:`dsctool.data.tiles.tiles_of` gives them. agreement: the IoU from which two are one.
    """
    stitching = _Stitching(pieces, windows, agreement)
    found = [stitching.joined(group) for group in stitching.groups()]
    return stitching.apart(sorted(found, key=lambda each: -each.score))


class _Stitching:
    def __init__(self, pieces: Sequence[Piece], windows: Sequence[Window], agreement: float) -> None:
        self.pieces = pieces
        self.windows = windows
        self.agreement = agreement
        self.image = Window(0, 0, max(each.x2 for each in windows), max(each.y2 for each in windows))
        self.neighbours = _neighbours(windows)
        self.beside: list[set[int]] = [set() for _ in windows]
        for one, other in self.neighbours:
            self.beside[one].add(other)
            self.beside[other].add(one)
        self.middles = _middles(windows)
        self.boxes = np.asarray([piece.box for piece in pieces], dtype=np.float64).reshape(-1, 4)
        self.labels = np.asarray([piece.label for piece in pieces], dtype=np.int64)
        self.of_window: list[list[int]] = [[] for _ in windows]
        for row, piece in enumerate(pieces):
            self.of_window[piece.window].append(row)
        self.whole = [self._sees_whole(piece.window, piece.box) for piece in pieces]

    def _sees_whole(self, window: int, box: Sequence[float]) -> bool:
        """Whether a box lies in a window, and is cut by none of its edges but the image's own."""
        place, image = self.windows[window], self.image
        for axis in (0, 1):
            low, high = box[axis], box[axis + 2]
            margin = MARGIN + MARGIN_SHARE * (high - low)
            if place[axis] > image[axis] and low < place[axis] + margin:
                return False
            if place[axis + 2] < image[axis + 2] and high > place[axis + 2] - margin:
                return False
        return True

    # --- which pieces are one ---------------------------------------------------------------------

    def groups(self) -> list[list[Piece]]:
        """Pieces of one instance each; without those that another window knows better."""
        parent = list(range(len(self.pieces)))
        members: dict[int, list[int]] = {row: [row] for row in parent}
        seen = {row: {self.pieces[row].window} for row in parent}
        agreeing, within = self._compared()
        for _, left, right in sorted(agreeing, key=lambda pair: -pair[0]):
            one, other = (_root(parent, row) for row in (left, right))
            if one != other and not seen[one] & seen[other]:
                parent[other] = one
                members[one] += members.pop(other)
                seen[one] |= seen.pop(other)
        for _, part, row in sorted(within, key=lambda pair: -pair[0]):
            one = _root(parent, row)
            if len(members.get(part, ())) == 1 and one != part and self._beside_its_own(part, members[one]):
                parent[part] = one
                members[one] += members.pop(part)
                seen[one] |= seen.pop(part)
        kept = [group for root, group in members.items() if not self._known_better(group, seen[root])]
        return [[self.pieces[row] for row in group] for group in kept]

    def _beside_its_own(self, part: int, group: Sequence[int]) -> bool:
        """Whether a piece is something else than those of its window in the group."""
        piece = self.pieces[part]
        own = (self.pieces[row] for row in group if self.pieces[row].window == piece.window)
        return all(piece.mask.common(other.mask) <= PART * min(piece.area, other.area) for other in own)

    def _compared(self) -> tuple[list[_Pair], list[_Pair]]:
        """Pairs of pieces of two windows that agree, with what that says; and of cut ones, the first in the second."""
        agreeing, within = [], []
        for one, other in self.neighbours:
            shared = self.windows[one].shared(self.windows[other])
            parts = [self._parts(window, shared) for window in (one, other)]
            for left, right in self._near(parts[0], parts[1]):
                a, b = parts[0][left], parts[1][right]
                common, scores = a.common(b), [self.pieces[row].score for row in (left, right)]
                overlap = common / max(a.area + b.area - common, 1)
                weight = (scores[0] * scores[1]) ** 0.5
                if overlap >= self.agreement:
                    agreeing.append((overlap * weight, left, right))
                if common and not self.whole[left] and not self.whole[right] and min(scores) > PART * max(scores):
                    share, part, row = max((common / a.area, left, right), (common / b.area, right, left))
                    if share >= WITHIN:
                        within.append((share * weight, part, row))
        return agreeing, within

    def _parts(self, window: int, shared: Window) -> dict[int, Spans]:
        """By piece of a window, what it has in the part that is shared with another, or its end at the seam."""
        axis = 0 if shared.x1 == shared.x2 else 1 if shared.y1 == shared.y2 else None
        if axis is not None:
            place = list(shared)
            place[axis], place[axis + 2] = shared[axis] - SEAM, shared[axis] + SEAM
            shared = self.windows[window].shared(Window(*place))
        rows = [row for row in self.of_window[window] if _meet(self.boxes[row], shared)]
        parts = {row: self.pieces[row].mask.inside(shared) for row in rows}
        if axis is not None:
            parts = {row: part.along(axis) for row, part in parts.items()}
        return {row: part for row, part in parts.items() if len(part.column)}

    def _near(self, one: dict[int, Spans], other: dict[int, Spans]) -> Iterator[tuple[int, int]]:
        """Pairs of one class whose parts may have pixels in common."""
        left, right = (np.fromiter(each, dtype=np.int64, count=len(each)) for each in (one, other))
        if not len(left) or not len(right):
            return
        boxes = [np.asarray([part.box for part in each.values()]) for each in (one, other)]
        meet = (boxes[0][:, None, :2] < boxes[1][None, :, 2:]) & (boxes[1][None, :, :2] < boxes[0][:, None, 2:])
        near = meet.all(axis=2) & (self.labels[left][:, None] == self.labels[right][None])
        for row, column in np.argwhere(near).tolist():
            yield int(left[row]), int(right[column])

    def _known_better(self, group: Sequence[int], seen: set[int]) -> bool:
        """Whether no window of the group sees it whole, but another one does, which has not found it."""
        if any(self.whole[row] for row in group):
            return False
        box = _around([self.pieces[row].box for row in group])
        near = set().union(*(self.beside[window] for window in seen)) - seen
        return any(self._sees_whole(window, box) for window in near)

    # --- what becomes of them ---------------------------------------------------------------------

    def joined(self, group: Sequence[Piece]) -> Stitched:
        """One instance."""
        box = _around([piece.box for piece in group])
        whole = [piece for piece in group if self._sees_whole(piece.window, box)]
        if whole:
            best = max(whole, key=self._depth)
            score = sum(piece.score for piece in whole) / len(whole)
            return Stitched(best.box, score, best.label, best.mask, tuple(group))
        if len(group) == 1:
            (piece,) = group
            return Stitched(piece.box, piece.score, piece.label, piece.mask, (piece,))
        weights = [max(piece.area, 1) for piece in group]
        score = sum(piece.score * weight for piece, weight in zip(group, weights, strict=True)) / sum(weights)
        parts = []
        for piece in group:
            part = piece.mask
            for window in {other.window for other in group} - {piece.window}:
                part = part.outside(self.middles[window])
            parts.append(part)
        return Stitched(box, score, group[0].label, Spans.union(parts), tuple(group))

    def _depth(self, piece: Piece) -> float:
        """How far a box is from the nearest edge of its window that is not the image's."""
        place, image = self.windows[piece.window], self.image
        gaps = [piece.box[axis] - place[axis] for axis in (0, 1) if place[axis] > image[axis]]
        gaps += [place[axis] - piece.box[axis] for axis in (2, 3) if place[axis] < image[axis]]
        return min(gaps, default=0.0)

    def apart(self, found: Sequence[Stitched]) -> list[Stitched]:
        """Those of ``found``, the best first, that are not a better one of their class again, or a part of it."""
        grid = _Grid(side=max(64, min(window.x2 - window.x1 for window in self.windows) // 4))
        kept: list[Stitched] = []
        for each in found:
            rivals = (kept[row] for row in grid.near(each.box))
            if not any(self._again(each, rival) for rival in rivals):
                grid.add(each.box, len(kept))
                kept.append(each)
        return kept

    def _again(self, each: Stitched, better: Stitched) -> bool:
        if each.label != better.label or not (common := each.mask.common(better.mask)):
            return False
        area = each.mask.area
        if common > PART * area and not any(self._sees_whole(piece.window, piece.box) for piece in each.pieces):
            return True
        if {piece.window for piece in each.pieces} & {piece.window for piece in better.pieces}:
            return False  # suppression has left both in one window
        return common > self.agreement * (area + better.mask.area - common)


class _Grid:
    """Boxes by the cells of an image that they lie in."""

    def __init__(self, *, side: int) -> None:
        self._side = side
        self._rows: dict[tuple[int, int], list[int]] = {}

    def add(self, box: Sequence[float], row: int) -> None:
        for cell in self._cells(box):
            self._rows.setdefault(cell, []).append(row)

    def near(self, box: Sequence[float]) -> list[int]:
        """Rows of the boxes that share a cell."""
        return sorted({row for cell in self._cells(box) for row in self._rows.get(cell, ())})

    def _cells(self, box: Sequence[float]) -> Iterator[tuple[int, int]]:
        x1, y1, x2, y2 = (int(side // self._side) for side in box)
        return ((x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1))


def _neighbours(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """Pairs of windows that overlap, or touch along a side."""
    if len(windows) < 2:
        return []
    corners = np.asarray(windows, dtype=np.int64)
    pairs: list[tuple[int, int]] = []
    for number, corner in enumerate(corners[:-1]):
        rest = corners[number + 1 :]
        extent = np.minimum(corner[2:], rest[:, 2:]) - np.maximum(corner[:2], rest[:, :2])
        near = (extent >= 0).all(axis=1) & (extent > 0).any(axis=1)
        pairs += [(number, number + 1 + other) for other in np.flatnonzero(near).tolist()]
    return pairs


def _middles(windows: Sequence[Window]) -> list[Window]:
    """The part of each window that is nearer to it than to its neighbours: up to half of what it shares with them."""
    starts = [sorted({each[axis] for each in windows}) for axis in (0, 1)]
    stops = [{each[axis]: each[axis + 2] for each in windows} for axis in (0, 1)]
    middles = []
    for place in windows:
        ends = list(place)
        for axis in (0, 1):
            number = starts[axis].index(place[axis])
            if number > 0:
                ends[axis] = (place[axis] + stops[axis][starts[axis][number - 1]]) // 2
            if number + 1 < len(starts[axis]):
                ends[axis + 2] = (starts[axis][number + 1] + place[axis + 2]) // 2
        middles.append(Window(*ends))
    return middles


def _root(parent: list[int], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


def _meet(box: NDArray[np.float64], window: Window) -> bool:
    return bool(box[0] < window.x2 + 1 and box[1] < window.y2 + 1 and box[2] > window.x1 - 1 and box[3] > window.y1 - 1)


def _around(boxes: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)
