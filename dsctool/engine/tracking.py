"""Instances that go on from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.coco_results import Result

LEAST_IOU = 0.3
"""Of an instance and itself in the frame before."""
PATIENCE = 5
"""Frames for which something may be hidden."""


@dataclass
class _Track:
    number: int
    last: Result
    unseen: int = 0


class Tracker:
    """Gives results the number of what they show: the same as in frames before, where masks of a class overlap.

    The largest overlap first, each track goes on with one result. There is no model of how things move, so what moves
    by more than its own size between two frames gets a new number. Without masks boxes are compared.
    """

    def __init__(self, *, least: float = LEAST_IOU, patience: int = PATIENCE) -> None:
        self.least, self.patience = least, patience
        self._tracks: list[_Track] = []
        self._numbers = 0

    @property
    def count(self) -> int:
        """How many different things there have been."""
        return self._numbers

    def __call__(self, results: Sequence[Result]) -> list[int]:
        """The numbers, from 1, of the results of the next frame."""
        overlaps = _overlaps([track.last for track in self._tracks], results)
        numbers, going_on = [0] * len(results), set[int]()
        for flat in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            track, row = divmod(flat, len(results))
            if overlaps[track, row] < self.least:
                break
            if track not in going_on and not numbers[row]:
                numbers[row] = self._tracks[track].number
                going_on.add(track)
        for track, each in enumerate(self._tracks):
            each.unseen = 0 if track in going_on else each.unseen + 1
        known = {track.number: track for track in self._tracks if track.unseen <= self.patience}
        for row, result in enumerate(results):
            if not numbers[row]:
                self._numbers += 1
                numbers[row] = self._numbers
            known[numbers[row]] = _Track(numbers[row], result)
        self._tracks = list(known.values())
        return numbers


def _overlaps(before: Sequence[Result], now: Sequence[Result]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """IoU of masks, or of boxes; 0 of different classes."""
    if not before or not now:
        return np.zeros((len(before), len(now)))
    masks = all("segmentation" in result for result in (*before, *now))
    shapes = [[result["segmentation"] if masks else result["bbox"] for result in side] for side in (before, now)]
    if not masks:
        shapes = [np.array(side, dtype=np.float64).reshape(-1, 4) for side in shapes]  # type: ignore[misc]
    overlaps = np.array(coco_mask.iou(*shapes, [0] * len(now)), dtype=np.float64)
    same = np.equal.outer([result["category_id"] for result in before], [result["category_id"] for result in now])
    return np.where(same, overlaps, 0.0)
