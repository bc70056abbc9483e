"""Drawing scenes of coloured shapes that huddle and hide each other."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dsctool.structures import Size

CLASSES = ("disc", "square", "triangle", "star", "bar")
"""Names of the shapes, by label."""

_HUES = (0.58, 0.04, 0.36, 0.13, 0.86)  # blue, coral, green, amber, magenta: one per class, varied a little
_FINE = 4  # shapes are drawn at this many times the resolution, and averaged
_MIN_VISIBLE_PX = 64
_MIN_VISIBLE_SHARE = 0.2

Points = list[tuple[float, float]]
Coverage = NDArray[np.uint8]
Bitmap = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """One drawn shape; ``outline`` in pixels."""

    label: int
    outline: Points
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    image: RGB.
    shapes: from the bottom to the top.
    visible: ``(h, w)`` bitmap of the visible part of every shape.
    hidden: whether another shape or the border hides a part.
    """

    image: Image.Image
    shapes: list[Shape]
    visible: list[Bitmap]
    hidden: list[bool]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene of about 160 x 230 pixels with two to six shapes."""
    size = (int(rng.integers(152, 185)), int(rng.integers(200, 257)))
    size = size if rng.random() < 0.75 else (size[1], size[0])
    shapes = _huddle(rng, size, count=int(rng.integers(2, 7)))
    coverages = [_coverage(shape.outline, size) for shape in shapes]
    seen = [_is_seen(visible, full) for visible, full in zip(_visible(coverages), coverages, strict=True)]
    shapes = [shape for shape, keep in zip(shapes, seen, strict=True) if keep]
    coverages = [coverage for coverage, keep in zip(coverages, seen, strict=True) if keep]
    visible = _visible(coverages)
    hidden = [
        bool((bitmap != (coverage >= 128)).any()) or _leaves(shape.outline, size)
        for shape, bitmap, coverage in zip(shapes, visible, coverages, strict=True)
    ]
    return Scene(_paint(rng, size, shapes, coverages), shapes, visible, hidden)


def _huddle(rng: np.random.Generator, size: Size, count: int) -> list[Shape]:
    """Shapes around one or two centres, large ones below; bars, which split what they cross, on top."""
    height, width = size
    centres = [(rng.uniform(0.25, 0.75) * width, rng.uniform(0.3, 0.7) * height) for _ in range(1 + (count > 3))]
    placed = []
    for number in range(count):
        x, y = centres[number % len(centres)]
        centre = (x + rng.normal(0, 0.14) * width, y + rng.normal(0, 0.14) * height)
        centre = (float(np.clip(centre[0], 8, width - 8)), float(np.clip(centre[1], 8, height - 8)))
        label = int(rng.integers(len(CLASSES)))
        radius = float(rng.uniform(0.11, 0.24)) * min(size)
        placed.append((label == CLASSES.index("bar"), -radius, label, centre))
    placed.sort()
    return [
        Shape(label, _outline(rng, label, centre, -radius), _colour(rng, label)) for _, radius, label, centre in placed
    ]


def _outline(rng: np.random.Generator, label: int, centre: tuple[float, float], radius: float) -> Points:
    turn = float(rng.uniform(0, 2 * math.pi))
    match CLASSES[label]:
        case "disc":
            corners = _polar([radius] * 40)
        case "square":
            corners = _polar([radius * 1.15] * 4)
        case "triangle":
            corners = _polar([radius * 1.3] * 3)
        case "star":
            corners = _polar([radius * 1.3, radius * 0.6] * 5)
        case _:
            long, short = radius * 1.9, max(radius * 0.28, 4.0)
            corners = [(-long, -short), (long, -short), (long, short), (-long, short)]
    cos, sin = math.cos(turn), math.sin(turn)
    return [(round(centre[0] + x * cos - y * sin, 2), round(centre[1] + x * sin + y * cos, 2)) for x, y in corners]


def _polar(radii: Sequence[float]) -> Points:
    step = 2 * math.pi / len(radii)
    return [(radius * math.cos(i * step), radius * math.sin(i * step)) for i, radius in enumerate(radii)]


def _colour(rng: np.random.Generator, label: int) -> tuple[float, float, float]:
    hue = (_HUES[label] + rng.normal(0, 0.02)) % 1.0
    return colorsys.hsv_to_rgb(hue, float(rng.uniform(0.55, 0.8)), float(rng.uniform(0.75, 0.95)))


def _coverage(outline: Points, size: Size) -> Coverage:
    """How much of each pixel the shape covers, 0 to 255."""
    height, width = size
    fine = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(fine).polygon([(x * _FINE, y * _FINE) for x, y in outline], fill=255)
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX))


def _visible(coverages: Sequence[Coverage]) -> list[Bitmap]:
    visible: list[Bitmap] = []
    for coverage in coverages:
        covered = coverage >= 128
        visible = [bitmap & ~covered for bitmap in visible]
        visible.append(covered)
    return visible


def _is_seen(visible: Bitmap, coverage: Coverage) -> bool:
    pixels = int(visible.sum())
    return pixels >= _MIN_VISIBLE_PX and pixels >= _MIN_VISIBLE_SHARE * int((coverage >= 128).sum())


def _leaves(outline: Points, size: Size) -> bool:
    return any(not (0 <= x <= size[1] and 0 <= y <= size[0]) for x, y in outline)


def _paint(rng: np.random.Generator, size: Size, shapes: Sequence[Shape], coverages: Sequence[Coverage]) -> Image.Image:
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    light = 0.5 + 0.5 * (columns / width * rng.uniform(-1, 1) + rows / height * rng.uniform(-1, 1)) / 2
    paper = np.array(colorsys.hsv_to_rgb(float(rng.random()), 0.08, float(rng.uniform(0.82, 0.95))))
    canvas = paper * (0.88 + 0.16 * light[..., None])
    for shape, coverage in zip(shapes, coverages, strict=True):
        fallen = _coverage([(x + 2, y + 3) for x, y in shape.outline], size)
        shadow = np.asarray(Image.fromarray(fallen).filter(ImageFilter.GaussianBlur(4)))
        canvas *= 1 - 0.35 * shadow[..., None] / 255
        alpha = coverage[..., None] / 255
        shade = np.array(shape.colour) * (0.8 + 0.4 * light[..., None])
        canvas = canvas * (1 - alpha) + shade * alpha
    canvas += rng.normal(0, 0.012, canvas.shape)
    return Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))
