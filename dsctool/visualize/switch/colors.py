"""The colours of switch maps: grey from 0 to 1, darker for more of the larger rate, tints beyond."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_Color = tuple[int, int, int]

BELOW: tuple[_Color, _Color] = ((40, 20, 110), (70, 90, 255))
"""Blues: just below 0, and at the scale's end."""
ABOVE: tuple[_Color, _Color] = ((255, 226, 160), (240, 100, 0))
"""Oranges: just above 1, and at the scale's end."""
_COOL, _WARM = (125, 140, 255), (255, 200, 120)


@dataclass(frozen=True)
class Scale:
    """What a switch value looks like. Values beyond ``low`` and ``high`` look as these do.

    stretched: black is at ``low`` and white at ``high``, for maps of little contrast; values below 0 and above 1
    have the hues of the tints. Otherwise black is 0 and white is 1; the tints begin with a step, so that the
    border of [0, 1] can be seen.
    """

    low: float
    high: float
    stretched: bool

    @classmethod
    def over(cls, values: NDArray[np.floating]) -> Scale:
        """Stretched over the range of ``values``; :data:`FULL` where they are (nearly) all the same."""
        low, high = float(values.min()), float(values.max())
        return cls(low, high, stretched=True) if high - low > 1e-4 else FULL

    def colors(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """RGB of values of any shape ``(...)``, as ``(..., 3)``."""
        values = np.clip(np.asarray(values, dtype=np.float64)[..., None], self.low, self.high)
        if self.stretched:
            share = (values - self.low) / (self.high - self.low)
            below, grey, above = (share * np.asarray(hue) for hue in (_COOL, (255, 255, 255), _WARM))
        else:
            below = _between(BELOW, np.clip(values / self.low, 0, 1))
            grey = np.broadcast_to(255 * values, (*values.shape[:-1], 3))
            above = _between(ABOVE, np.clip((values - 1) / (self.high - 1), 0, 1))
        return np.asarray(np.rint(np.where(values < 0, below, np.where(values > 1, above, grey))), dtype=np.uint8)

    def histogram(self, values: NDArray[np.floating], bins: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts ``(n,)`` and edges ``(n + 1,)`` of about ``bins`` bins; outliers are in the outermost ones.

        0 and 1 are edges and count as grey, as they are drawn.
        """
        values = np.clip(values, self.low, self.high)
        borders = [self.low, *(border for border in (0.0, 1.0) if self.low < border < self.high), self.high]
        counts, edges = [], [np.asarray([self.low])]
        for low, high in pairwise(borders):
            inside = (values < 0) if high <= 0 else (values > 1) if low >= 1 else (values >= 0) & (values <= 1)
            number = max(round(bins * (high - low) / (self.high - self.low)), 1)
            found, between = np.histogram(values[inside], bins=number, range=(low, high))
            counts.append(found)
            edges.append(between[1:])
        return np.concatenate(counts), np.concatenate(edges)


FULL = Scale(-1.0, 2.0, stretched=False)
"""The scale of every map that is not stretched, so that maps can be compared."""


def _between(ends: tuple[_Color, _Color], share: NDArray[np.float64]) -> NDArray[np.floating]:
    start, stop = np.asarray(ends, dtype=np.float64)
    return start + share * (stop - start)
