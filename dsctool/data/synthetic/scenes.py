"""Composing scenes of huddled sea animals, shells and pebbles: the picture, and what of it belongs to whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsctool.data.synthetic.figures import CLASSES, Figure
from dsctool.data.synthetic.ground import STUFF, draw_ground, draw_weed, grit, stones
from dsctool.data.synthetic.layout import SIZES, Placed, arrange
from dsctool.data.synthetic.textures import Picture, Window, blurred, caustics, colour, grain, mixed, tiles
from dsctool.terms import Size

__all__ = ["CLASSES", "MIN_VISIBLE_PX", "MIN_VISIBLE_SHARE", "STUFF", "Scene", "draw_scene"]

MIN_VISIBLE_PX = 80
MIN_VISIBLE_SHARE = 0.3
"""Objects of which fewer pixels, or a smaller share, would be visible are not drawn."""

_SHADOW = np.array((0.86, 0.78, 0.66), np.float32).reshape(3, 1, 1)  # of the light that a full shadow takes, by colour
_SEA = colour("337887")
_NOBODY = -1
_CRUMBS = 14


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    image: RGB.
    labels: ``(n,)``, the class of every object, from the bottom to the top.
    owner: ``(h, w)``, the index of the object that is visible at each pixel, or -1.
    semantic: ``(h, w)``, classes by label, and after them what :data:`STUFF` names.
    """

    image: Image.Image
    labels: list[int]
    owner: NDArray[np.int16]
    semantic: NDArray[np.uint8]


def draw_scene(
    rng: np.random.Generator,
    size: Size,
    huddle: float,
    labels: Sequence[int] = range(len(CLASSES)),
    sizes: tuple[float, float] = SIZES,
) -> Scene:
    """A scene of ``size`` (height, width in pixels); ``huddle`` from 0 (all apart) to 1 (all in heaps).

    labels: the classes that may occur. sizes: of the smallest and the largest objects, as shares of the shorter side.
    """
    ground = draw_ground(rng, size)
    kinds = grit(round(_unit(size), 1))
    strewn = _scattered(rng, size, [kinds[kind] for kind in rng.integers(len(kinds), size=_CRUMBS).tolist()])
    below = _weeds(rng, size, int(rng.integers(1, 5)))
    above = _weeds(rng, size, int(rng.integers(0, 3)))
    objects = _visible_enough(arrange(rng, size, huddle, labels, sizes), above, size)
    picture = ground.picture * (0.94 + 0.26 * caustics(rng, size, 44 * _unit(size)))
    for placed in (*strewn, *below, *objects, *above):
        _paint(picture, placed)
    owner = _owners([*objects, *above], size)
    weedy = (_owners(below, size) >= 0) | (owner >= len(objects))
    owner[owner >= len(objects)] = _NOBODY
    semantic = np.where(weedy, len(CLASSES) + STUFF.index("seaweed"), ground.surface + len(CLASSES)).astype(np.uint8)
    labels = [placed.figure.label for placed in objects]
    semantic = np.where(owner >= 0, np.array([*labels, 0], np.uint8)[owner], semantic)
    return Scene(_under_water(rng, picture), labels, owner, semantic)


def prepare() -> None:
    """Work out now what all scenes have in common, before processes begin that would each do it again."""
    tiles()
    stones()


def _unit(size: Size) -> float:
    return min(size) / 192


def _weeds(rng: np.random.Generator, size: Size, count: int) -> list[Placed]:
    return _scattered(rng, size, [draw_weed(rng, float(rng.uniform(22, 64)) * _unit(size)) for _ in range(count)])


def _scattered(rng: np.random.Generator, size: Size, figures: Sequence[Figure]) -> list[Placed]:
    placed = []
    for figure in figures:
        height, width = figure.coverage.shape
        top, left = rng.uniform(0, 1, 2) * np.array(size) - np.array([height, width]) / 2
        placed.append(Placed(figure, int(top), int(left)))
    return placed


def _visible_enough(objects: list[Placed], above: Sequence[Placed], size: Size) -> list[Placed]:
    """Without those that are hidden too much; one goes at a time, since it frees what it hid itself."""
    full = [int((placed.figure.coverage >= 0.5).sum()) for placed in objects]
    while objects:
        owner = _owners([*objects, *above], size)
        seen = np.bincount(owner[owner >= 0], minlength=len(objects))[: len(objects)]
        enough = np.minimum(seen / MIN_VISIBLE_PX, seen / (MIN_VISIBLE_SHARE * np.array(full)))
        worst = int(enough.argmin())
        if enough[worst] >= 1:
            break
        objects, full = objects[:worst] + objects[worst + 1 :], full[:worst] + full[worst + 1 :]
    return objects


def _owners(layers: Sequence[Placed], size: Size) -> NDArray[np.int16]:
    """``(h, w)``: the index of the last layer that covers at least half of a pixel, or -1."""
    owner = np.full(size, _NOBODY, np.int16)
    for index, placed in enumerate(layers):
        window, part = _windows(placed, size)
        owner[window][placed.figure.coverage[part] >= 0.5] = index
    return owner


def _windows(placed: Placed, size: Size, margin: int = 0) -> tuple[Window, Window]:
    """The part of the image that a figure's window, ``margin`` pixels larger, takes up, and the same part of it."""
    inside, own = [], []
    for start, length, limit in zip((placed.top, placed.left), placed.figure.coverage.shape, size, strict=True):
        start, stop = start - margin, start + length + margin
        first, last = max(start, 0), max(min(stop, limit), 0)
        inside.append(slice(first, last))
        own.append(slice(first - start, max(last - start, first - start)))
    return (inside[0], inside[1]), (own[0], own[1])


def _paint(picture: Picture, placed: Placed) -> None:
    """Lay a figure over the picture, its shadow on what is there already."""
    size = (picture.shape[1], picture.shape[2])
    coverage = placed.figure.coverage
    lift = 0.05 * min(min(coverage.shape), 60) + 0.8
    margin = math.ceil(4 * lift) + 2
    shift = round(0.9 * lift), round(1.2 * lift)  # away from the light
    padded = Image.fromarray((np.pad(coverage, margin) * 255).astype(np.uint8))
    cast, touch = (blurred(padded, radius) for radius in (0.9 * lift, 1.6))
    cast = np.roll(cast, (shift[1], shift[0]), (0, 1))
    shade = 1 - (1 - 0.5 * cast) * (1 - 0.3 * touch)
    window, part = _windows(placed, size, margin)
    picture[:, *window] *= 1 - shade[part] * _SHADOW
    window, part = _windows(placed, size)
    picture[:, *window] = mixed(picture[:, *window], placed.figure.picture[:, *part], coverage[part])


def _under_water(rng: np.random.Generator, picture: Picture) -> Image.Image:
    """A breath of the sea's colour, deeper away from the light; and the camera's noise."""
    height, width = picture.shape[1:]
    rows, columns = np.ogrid[0:height, 0:width]
    away = (rows / height * 0.6 + columns / width * 0.4).astype(np.float32)
    depth = float(rng.uniform(0.08, 0.24)) * (0.35 + 0.9 * away)
    picture = mixed(picture * 1.09, _SEA, depth) + 0.012 * grain(rng, (height, width), 0)
    values = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
