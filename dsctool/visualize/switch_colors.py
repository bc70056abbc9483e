"""The colours of switch maps: grey from 0 to 1, darker for more of the larger rate, tints beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW, HIGH = -1.0, 2.0
"""The scale's ends: the tints deepen up to them, and values beyond them look as they do."""

BELOW = ((40, 20, 110), (70, 90, 255))
"""Blues: just below 0, and at ``LOW``."""
ABOVE = ((255, 226, 160), (240, 100, 0))
"""Oranges: just above 1, and at ``HIGH``."""


def switch_colors(values: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB of switch values of any shape ``(...)``, as ``(..., 3)``.

    0 is black, 1 is white. The tints begin with a step, so that the border of [0, 1] can be seen.
    """
    values = np.asarray(values, dtype=np.float64)[..., None]
    grey = np.broadcast_to(255 * values, (*values.shape[:-1], 3))
    below = _between(BELOW, np.clip(values / LOW, 0, 1))
    above = _between(ABOVE, np.clip((values - 1) / (HIGH - 1), 0, 1))
    colors = np.where(values < 0, below, np.where(values > 1, above, grey))
    return np.asarray(np.rint(colors), dtype=np.uint8)


def _between(ends: tuple[tuple[int, int, int], tuple[int, int, int]], share: NDArray[np.float64]) -> NDArray[Any]:
    start, stop = np.asarray(ends, dtype=np.float64)
    return start + share * (stop - start)
