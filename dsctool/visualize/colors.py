"""Colours that tell neighbouring instances apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from colorsys import hsv_to_rgb, rgb_to_hsv

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

PALETTE: tuple[Color, ...] = (
    (255, 71, 87),
    (30, 144, 255),
    (46, 213, 115),
    (255, 165, 2),
    (164, 94, 229),
    (0, 206, 201),
    (253, 221, 58),
    (255, 99, 196),
    (116, 139, 255),
    (162, 222, 36),
    (255, 127, 80),
    (105, 216, 255),
    (205, 147, 255),
    (0, 168, 107),
    (214, 162, 94),
    (255, 168, 178),
)
"""Bright colours of different hue: they stand out on photographs, dark or light."""


def assign_colors(boxes: NDArray[np.float64]) -> list[Color]:
    """One colour per box ``(n, 4)``, far from the colours of the boxes near it.

    Each box in turn takes the palette's colour that differs most from those already given to boxes it
    touches; among equals, the one used least.
    """
    palette = np.asarray(PALETTE, dtype=np.float64)
    differences = np.sqrt((((palette[:, None] - palette[None]) * (0.55, 0.77, 0.33)) ** 2).sum(axis=-1))
    chosen: list[int] = []
    used = np.zeros(len(palette))
    for near in _touching(boxes):
        neighbours = sorted({chosen[other] for other in np.flatnonzero(near)})
        distance = differences[:, neighbours].min(axis=1) if neighbours else np.full(len(palette), np.inf)
        distinct = np.minimum(distance, 60.0)  # beyond that, more difference does not help the eye
        best = min(range(len(palette)), key=lambda color: (-distinct[color], used[color], color))
        chosen.append(best)
        used[best] += 1
    return [PALETTE[color] for color in chosen]


def class_colors(names: Sequence[str]) -> dict[str, Color]:
    """One colour per class, by its place among all: the same in every picture."""
    return {name: shade(PALETTE[index % len(PALETTE)], index // len(PALETTE)) for index, name in enumerate(names)}


def shade(color: Color, number: int) -> Color:
    """The colour for the ``number``-th of several things of one category, from 0: much alike, and told apart."""
    hue, saturation, value = rgb_to_hsv(*(part / 255 for part in color))
    step = (0.0, 0.032, -0.032, 0.016, -0.016)[number % 5]
    value *= (1.0, 0.8, 0.9)[number % 3]
    red, green, blue = (round(255 * part) for part in hsv_to_rgb((hue + step) % 1, saturation, value))
    return red, green, blue


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better on ``background``."""
    luminance = sum(
        weight * (value / 255) ** 2.2 for weight, value in zip((0.2126, 0.7152, 0.0722), background, strict=True)
    )
    return (0, 0, 0) if luminance > 0.18 else (255, 255, 255)


def _touching(boxes: NDArray[np.float64]) -> Iterator[NDArray[np.bool_]]:
    """For every box ``(index,)``: which of those before it overlap it, where all are grown by a tenth of their size."""
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    for index in range(len(boxes)):
        meet = np.maximum(low[:index], low[index]) < np.minimum(high[:index], high[index])
        yield np.asarray(meet.all(axis=1))
